"""What is compared with which reference: one row a variant and source, plain data.

To add a family: its rows here, its rename rows in zoo/weights, `python -m tests.golden.make NAME ...`
in an environment with the extra `parity`, and commit the files that it writes.
"""

import types
from collections.abc import Mapping
from typing import Any, NamedTuple

from zoo.models.resnet import ResNet

NOTHING: Mapping[str, Any] = types.MappingProxyType({})


# Of maps as large as the image every so many pixels are kept: prime to the strides, so that all
# places between two pixels of a smaller map are among them.
GRID = 13


class Case(NamedTuple):
    """A variant `name` here, and `reference`, its name in `source`.

    `stages` are {our output: the reference's module whose output it is}. `size` is the image's
    side in pixels, `frames` how many a clip has, 0 of an image. `fields` are the variant's fields here and `reference_fields` the arguments
    there; `training` those fields besides that leave nothing to chance while training, or None
    where training is not compared. `tolerance` is evaluation's. `jitted` is for models whose layers
    all differ, or are many operations: others are evaluated faster layer by layer. `test` False leaves the row to
    `make parity`, `test_training` False its training.
    """

    source: str
    name: str
    reference: str
    stages: dict[str, str]
    size: int = 64
    frames: int = 0
    fields: Mapping[str, Any] = NOTHING
    reference_fields: Mapping[str, Any] = NOTHING
    training: Mapping[str, Any] | None = None
    tolerance: float = 1e-5
    jitted: bool = False
    test: bool = True
    test_training: bool = False

    @property
    def title(self) -> str:
        fields = [
            f"-{field}_{'x'.join(map(str, value)) if isinstance(value, tuple) else value}"
            for field, value in sorted(self.reference_fields.items())
        ]
        return f"{self.source}-{self.reference}{''.join(fields)}"


RESNET = dict(stages={f"stage{k}": f"layer{k}" for k in (1, 2, 3, 4)}, training={})
RESNETS = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2",
    "wide_resnet101_2", "resnext50_32x4d", "resnext101_32x8d",
)  # fmt: skip

CASES = [
    Case("torchvision", name, name, **RESNET, test_training=name in ("resnet18", "resnet50"))
    for name in RESNETS
]
CASES += [Case("timm", name, name, **RESNET) for name in RESNETS]
CASES += [Case("timm", "resnet50", "resnet50_gn", **RESNET, fields=dict(norm="group"))]

CASES += [  # torchvision has no dilated Basic
    Case(
        "timm",
        "resnet18",
        "resnet18",
        **RESNET,
        fields=dict(output_stride=8),
        reference_fields=dict(output_stride=8),
    )
]

FCN = dict(
    stages={f"stage{k}": f"backbone.layer{k}" for k in (1, 2, 3, 4)}, training=dict(dropout=0.0)
)
CASES += [Case("torchvision", name, name, **FCN) for name in ("fcn_resnet50", "fcn_resnet101")]
FEW = (1, 1, 2, 2)  # blocks: the gradients of all take a quarter of a minute to compile
CASES += [
    Case(
        "torchvision",
        "fcn_resnet50",
        "fcn_resnet50",
        **FCN,
        fields=dict(backbone=ResNet(FEW)),
        reference_fields=dict(depths=FEW),
        test_training=True,
    )
]

# The map is seen after the last ReLU: torchvision's works in place, timm's is part of the norm.
DENSENET = dict(
    stages={f"stage{k}": f"features.denseblock{k}" for k in (1, 2, 3)}
    | {"stage4": "features.norm5"},
    training={},
    jitted=True,
)
DENSENETS = ("densenet121", "densenet161", "densenet169", "densenet201")
CASES += [Case("torchvision", name, name, **DENSENET) for name in DENSENETS]
CASES += [Case("timm", name, name, **DENSENET, test=False) for name in DENSENETS]
DEEP, SHALLOW = dict(block_config=(6, 12, 64, 48)), dict(block_config=(2, 2, 2, 2))
CASES += [Case("timm", "densenet264", "densenet121", **DENSENET, reference_fields=DEEP)]
CASES += [  # the gradients of all 121 layers take half a minute to compile, these seconds
    Case(
        "timm",
        "densenet121",
        "densenet121",
        **DENSENET | dict(training=dict(remat=True)),
        fields=dict(depths=(2, 2, 2, 2)),
        reference_fields=SHALLOW,
        test_training=True,
    )
]


def vit(source: str, name: str, reference: str, *, side: int = 64, **fields: Any) -> Case:
    """With images of few patches; of 632 M parameters a step in float64 takes 20 GB and more.

    `fields` are the reference's: timm has no head where it has no weights with one.
    """
    norm, size = dict(torchvision=("encoder.ln", "image_size"), timm=("norm", "img_size"))[source]
    small = name in ("vit_ti_16", "vit_s_16", "vit_b_16", "vit_b_32")
    return Case(
        source,
        name,
        reference,
        stages={"stage1": norm},
        size=side,
        fields=dict(image_size=side),
        reference_fields={size: side, **fields},
        training=None if name == "vit_h_14" else dict(remat=name == "vit_ti_16"),
        test=small,
        test_training=name == "vit_ti_16",
    )


CASES += [
    vit("timm", "vit_ti_16", "vit_tiny_patch16_224"),
    vit("timm", "vit_s_16", "vit_small_patch16_224"),
    vit("timm", "vit_b_16", "vit_base_patch16_224"),
    vit("timm", "vit_b_32", "vit_base_patch32_224"),
    vit("timm", "vit_l_16", "vit_large_patch16_224"),
    vit("timm", "vit_l_32", "vit_large_patch32_224", num_classes=1000),
    vit("timm", "vit_h_14", "vit_huge_patch14_224", side=70, num_classes=1000),
]
CASES += [
    vit("torchvision", name, name) for name in ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32")
]
CASES += [vit("torchvision", "vit_h_14", "vit_h_14", side=70)]
CASES += [
    Case(
        "timm",
        "vit_ti_16",
        "vit_tiny_patch16_224",
        stages={"stage1": "norm"},
        fields=dict(image_size=64, pool="mean"),
        reference_fields=dict(img_size=64, class_token=False, global_pool="avg", fc_norm=False),
    )
]

# What a max-pooling of AlexNet and VGG sees is the output of the ReLU before it. With 4,096 hidden
# units a training step in float64 takes gigabytes: the tests compare it with fewer.
NARROW = dict(hidden=32, num_classes=10)
TRAIN_NARROW = dict(
    size=48, fields=NARROW, training=dict(dropout=0.0, remat=True), test_training=True
)
ALEXNET = dict(stage1="features.1", stage2="features.4", stage3="features.11")
CASES += [
    Case("torchvision", "alexnet", "alexnet", ALEXNET, size=224, training=dict(dropout=0.0)),
    Case(
        "torchvision",
        "alexnet",
        "alexnet",
        ALEXNET,
        reference_fields=NARROW,
        **{**TRAIN_NARROW, "size": 96},
    ),
]


def vgg_stages(name: str) -> dict[str, str]:
    """The ReLUs before the poolings, in a list of all layers."""
    depths = dict(vgg11="11222", vgg13="22222", vgg16="22333", vgg19="22444")[name[:5]]
    layers = [int(depth) * (3 if name.endswith("_bn") else 2) + 1 for depth in depths]
    return {f"stage{k}": f"features.{sum(layers[:k]) - 2}" for k in range(1, 6)}


VGGS = [f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")]
CASES += [
    Case("torchvision", name, name, vgg_stages(name), training=dict(dropout=0.0)) for name in VGGS
]
CASES += [
    Case("timm", name, name, vgg_stages(name), test=name in ("vgg11", "vgg11_bn")) for name in VGGS
]
CASES += [
    Case("torchvision", name, name, vgg_stages(name), reference_fields=NARROW, **TRAIN_NARROW)
    for name in ("vgg11", "vgg11_bn")
]
CASES += [  # torchvision's, changed by make.py to configurations that it lacks
    Case("torchvision", name, like, vgg_stages(like), reference_fields=fields, **TRAIN_NARROW)
    for name, like, fields in (
        ("vgg11_lrn", "vgg11", dict(NARROW, lrn=True)),
        ("vgg16_c", "vgg16", dict(NARROW, pointwise=True)),
    )
]

V1 = dict(stage1="blocks.1", stage2="blocks.2", stage3="blocks.3", stage4="blocks.4")
V2 = dict(stage1="blocks.1", stage2="blocks.2", stage3="blocks.4", stage4="blocks.6")
V2_TORCHVISION = dict(
    stage1="features.3", stage2="features.6", stage3="features.13", stage4="features.17"
)
CASES += [
    Case(
        "timm",
        name,
        "mobilenetv1_100",
        V1,
        reference_fields=dict(channel_multiplier=width),
        training=dict(dropout=0.0, remat=True),
        jitted=True,
        test_training=width == 0.25,
    )
    for name, width in (
        ("mobilenet_v1", 1.0),
        ("mobilenet_v1_075", 0.75),
        ("mobilenet_v1_050", 0.5),
        ("mobilenet_v1_025", 0.25),
    )
]
CASES += [
    Case(
        "timm",
        name,
        f"mobilenetv2_{width}",
        V2,
        training=dict(dropout=0.0),
        jitted=True,
        test_training=width == "035",
    )
    for name, width in (
        ("mobilenet_v2", "100"),
        ("mobilenet_v2_140", "140"),
        ("mobilenet_v2_075", "075"),
        ("mobilenet_v2_050", "050"),
        ("mobilenet_v2_035", "035"),
    )
]
CASES += [  # the narrowest: its first block is 8 channels to 8, and so has a skip
    Case(
        "timm",
        "mobilenet_v2_025",
        "mobilenetv2_100",
        V2,
        reference_fields=dict(channel_multiplier=0.25),
        training=dict(dropout=0.0),
        jitted=True,
    ),
    Case(
        "torchvision",
        "mobilenet_v2_025",
        "mobilenet_v2",
        V2_TORCHVISION,
        reference_fields=dict(width_mult=0.25),
        training=dict(dropout=0.0),
        test=False,
    ),
]
CASES += [
    Case(
        "torchvision",
        "mobilenet_v2",
        "mobilenet_v2",
        V2_TORCHVISION,
        training=dict(dropout=0.0, remat=True),
    )
]

FLAT = (1, 1, 1, 1)  # a block a stage: what training's gradients are compared of
VIDEO = dict(
    stages={f"stage{k}": f"layer{k}" for k in (1, 2, 3, 4)},
    size=32,
    frames=4,
    training={},
    jitted=True,
)
CASES += [
    Case("torchvision", name, name, **VIDEO, test=False)
    for name in ("r3d_18", "mc3_18", "r2plus1d_18")
]
CASES += [
    Case(
        "torchvision",
        name,
        name,
        **VIDEO,
        fields=dict(depths=FLAT, width=8, num_classes=10),  # what make.py calls Narrow
        reference_fields=dict(layers=FLAT),
        test_training=name == "mc3_18",  # two of the three kinds; the rest is left to make parity
    )
    for name in ("r3d_18", "mc3_18", "r2plus1d_18")
]

SLOW = {f"stage{k}": f"blocks.{k}" for k in (1, 2, 3, 4)}
SLOWFAST = {
    f"{path}_stage{k}": f"blocks.{k}.multipathway_blocks.{number}"
    for number, path in enumerate(("slow", "fast"))
    for k in (1, 2, 3, 4)
}
FEW_CHANNELS = dict(size=32, jitted=True, training=dict(dropout=0.0), test_training=True)
CASES += [
    Case(
        "pytorchvideo",
        "slow_r50",
        "slow_r50",
        SLOW,
        frames=4,
        fields=dict(depths=FLAT, width=8, num_classes=10),
        reference_fields=dict(depths=FLAT, stem_dim_out=8, model_num_class=10),
        **{**FEW_CHANNELS, "test_training": False},
    ),
    Case(
        "pytorchvideo",
        "slowfast_r50",
        "slowfast_r50",
        SLOWFAST,
        frames=16,
        fields=dict(depths=FLAT, width=16, num_classes=10),
        reference_fields=dict(depths=FLAT, stem_dim_outs=(16, 2), model_num_class=10),
        **FEW_CHANNELS,
    ),
    Case("pytorchvideo", "slow_r50", "slow_r50", SLOW, size=224, frames=8, test=False),
    Case("pytorchvideo", "slowfast_r50", "slowfast_r50", SLOWFAST, size=224, frames=32, test=False),
    Case(
        "pytorchvideo", "slowfast_r101", "slowfast_r101", SLOWFAST, size=224, frames=32, test=False
    ),
]
