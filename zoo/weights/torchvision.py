"""torchvision: the names in its models, and the weights that it publishes."""

from zoo.weights.names import BIAS, CONV, Row, Table, flatten

ADDRESS = "https://download.pytorch.org/models/"  # file names end in the start of their sha256

VGG_DEPTHS = ((1, 1, 2, 2, 2), (2, 2, 2, 2, 2), (2, 2, 3, 3, 3), (2, 2, 4, 4, 4))
MOBILENET_V2_DEPTHS = (1, 2, 3, 7, 4)  # blocks by stride
IN_PROJ = {"in_proj_weight": ("params/{}/kernel", CONV), "in_proj_bias": BIAS["bias"]}

ALEXNET: Table = [
    *((f"features.{n}", f"conv{k}", "conv") for k, n in enumerate((0, 3, 6, 8, 10), 1)),
    ("classifier.1", "fc6", flatten(6, 6)),
    ("classifier.4", "fc7", "dense"),
    ("classifier.6", "head", "dense"),
]

VGG_HEAD: Table = [
    ("classifier.0", "fc6", flatten(7, 7)),
    ("classifier.3", "fc7", "dense"),
    ("classifier.6", "head", "dense"),
]


def vgg_features(depths: tuple[int, ...], *, norm: bool) -> list[Row]:
    """Rows of the convolutions, which are numbered together with what stands between them."""
    rows, index = [], 0
    for stage, depth in enumerate(depths, 1):
        for block in range(depth):
            rows.append((f"features.{index}", f"stage{stage}_{block}/conv", "conv"))
            if norm:
                rows.append((f"features.{index + 1}", f"stage{stage}_{block}/norm", "norm"))
            index += 3 if norm else 2
        index += 1  # the pooling
    return rows


RESNET_ENDS: Table = [
    ("conv1", "stem/conv", "conv"),
    ("bn1", "stem/norm", "norm"),
    ("layer{stage}.{block}.downsample.0", "stage{stage}_{block}/skip/conv", "conv"),
    ("layer{stage}.{block}.downsample.1", "stage{stage}_{block}/skip/norm", "norm"),
    ("fc", "head", "dense"),
]


def resnet(*parts: str) -> Table:
    """Rows of a ResNet whose blocks have these parts, one after the other."""
    rows = list(RESNET_ENDS)
    for n, part in enumerate(parts, 1):
        path = f"stage{{stage}}_{{block}}/{part}"
        rows.append((f"layer{{stage}}.{{block}}.conv{n}", f"{path}/conv", "conv"))
        rows.append((f"layer{{stage}}.{{block}}.bn{n}", f"{path}/norm", "norm"))
    return rows


DENSENET: Table = [
    ("features.conv0", "stem/conv", "conv"),
    ("features.norm0", "stem/norm", "norm"),
    *(
        (f"features.denseblock{{stage}}.denselayer{{block+1}}.{name}", path, layout)
        for dot in ("", ".")  # the published files are of 2017: norm.1
        for name, path, layout in (
            (f"norm{dot}1", "stage{stage}_{block}/norm", "norm"),
            (f"conv{dot}1", "stage{stage}_{block}/reduce/conv", "conv"),
            (f"norm{dot}2", "stage{stage}_{block}/reduce/norm", "norm"),
            (f"conv{dot}2", "stage{stage}_{block}/spatial", "conv"),
        )
    ),
    ("features.transition{stage}.norm", "transition{stage}/norm", "norm"),
    ("features.transition{stage}.conv", "transition{stage}/reduce", "conv"),
    ("features.norm5", "norm", "norm"),
    ("classifier", "head", "dense"),
]


def mobilenet_v2() -> Table:
    """Rows of MobileNetV2, whose blocks are numbered through and whose first does not expand."""
    rows: list[Row] = [
        ("features.0.0", "stem/conv", "conv"),
        ("features.0.1", "stem/norm", "norm"),
        ("features.18.0", "last/conv", "conv"),
        ("features.18.1", "last/norm", "norm"),
        ("classifier.1", "head", "dense"),
    ]
    paths = [f"stage{k}_{n}" for k, depth in enumerate(MOBILENET_V2_DEPTHS) for n in range(depth)]
    for index, path in enumerate(paths, 1):
        parts = ("depthwise",) if index == 1 else ("expand", "depthwise")
        for n, part in enumerate(parts):
            rows.append((f"features.{index}.conv.{n}.0", f"{path}/{part}/conv", "conv"))
            rows.append((f"features.{index}.conv.{n}.1", f"{path}/{part}/norm", "norm"))
        last = len(parts)
        rows.append((f"features.{index}.conv.{last}", f"{path}/project/conv", "conv"))
        rows.append((f"features.{index}.conv.{last + 1}", f"{path}/project/norm", "norm"))
    return rows


VIT: Table = [
    ("class_token", "class_token", "tensor"),
    ("conv_proj", "patch", "conv"),
    ("encoder.pos_embedding", "positions", "tensor"),
    *(
        (f"encoder.layers.encoder_layer_{{n}}.{name}", f"stage1_{{n}}/{path}", layout)
        for name, path, layout in (
            ("ln_1", "norm1", "norm"),
            ("self_attention", "attention/qkv", IN_PROJ),
            ("self_attention.out_proj", "attention/out", "dense"),
            ("ln_2", "norm2", "norm"),
            ("mlp.0", "expand", "dense"),
            ("mlp.3", "reduce", "dense"),
            ("mlp.linear_1", "expand", "dense"),  # before torchvision 0.14
            ("mlp.linear_2", "reduce", "dense"),
        )
    ),
    ("encoder.ln", "norm", "norm"),
    ("heads.head", "head", "dense"),
]

NAMES: dict[str, list[Table]] = {
    "alexnet": [ALEXNET],
    "densenet": [DENSENET],
    "mobilenet_v2": [mobilenet_v2()],
    "resnet": [resnet("first", "second"), resnet("reduce", "spatial", "expand")],
    "vgg": [
        [*vgg_features(depths, norm=norm), *VGG_HEAD]
        for depths in VGG_DEPTHS
        for norm in (False, True)
    ],
    "vit": [VIT],
}

# Each file, its top-1 accuracy on ImageNet's validation set in % as torchvision measured it, and
# what of the preprocessing is not SEEN: pixels of the resized short side and of the crop, say.
SEEN = dict(
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    short=256,
    side=224,
    interpolation="bilinear",
)
V2 = dict(short=232)


def swag(side: int) -> dict:
    """Preprocessing of the weights that were trained on Instagram's images first: no margin."""
    return dict(short=side, side=side, interpolation="bicubic")


PUBLISHED = {
    "alexnet": {"IMAGENET1K_V1": ("alexnet-owt-7be5be79.pth", 56.522)},
    "densenet121": {"IMAGENET1K_V1": ("densenet121-a639ec97.pth", 74.434)},
    "densenet161": {"IMAGENET1K_V1": ("densenet161-8d451a50.pth", 77.138)},
    "densenet169": {"IMAGENET1K_V1": ("densenet169-b2777c0a.pth", 75.6)},
    "densenet201": {"IMAGENET1K_V1": ("densenet201-c1103571.pth", 76.896)},
    "mobilenet_v2": {
        "IMAGENET1K_V1": ("mobilenet_v2-b0353104.pth", 71.878),
        "IMAGENET1K_V2": ("mobilenet_v2-7ebf99e0.pth", 72.154, V2),
    },
    "resnet101": {
        "IMAGENET1K_V1": ("resnet101-63fe2227.pth", 77.374),
        "IMAGENET1K_V2": ("resnet101-cd907fc2.pth", 81.886, V2),
    },
    "resnet152": {
        "IMAGENET1K_V1": ("resnet152-394f9c45.pth", 78.312),
        "IMAGENET1K_V2": ("resnet152-f82ba261.pth", 82.284, V2),
    },
    "resnet18": {"IMAGENET1K_V1": ("resnet18-f37072fd.pth", 69.758)},
    "resnet34": {"IMAGENET1K_V1": ("resnet34-b627a593.pth", 73.314)},
    "resnet50": {
        "IMAGENET1K_V1": ("resnet50-0676ba61.pth", 76.13),
        "IMAGENET1K_V2": ("resnet50-11ad3fa6.pth", 80.858, V2),
    },
    "resnext101_32x8d": {
        "IMAGENET1K_V1": ("resnext101_32x8d-8ba56ff5.pth", 79.312),
        "IMAGENET1K_V2": ("resnext101_32x8d-110c445d.pth", 82.834, V2),
    },
    "resnext50_32x4d": {
        "IMAGENET1K_V1": ("resnext50_32x4d-7cdf4587.pth", 77.618),
        "IMAGENET1K_V2": ("resnext50_32x4d-1a0047aa.pth", 81.198, V2),
    },
    "vgg11": {"IMAGENET1K_V1": ("vgg11-8a719046.pth", 69.02)},
    "vgg11_bn": {"IMAGENET1K_V1": ("vgg11_bn-6002323d.pth", 70.37)},
    "vgg13": {"IMAGENET1K_V1": ("vgg13-19584684.pth", 69.928)},
    "vgg13_bn": {"IMAGENET1K_V1": ("vgg13_bn-abd245e5.pth", 71.586)},
    "vgg16": {"IMAGENET1K_V1": ("vgg16-397923af.pth", 71.592)},
    "vgg16_bn": {"IMAGENET1K_V1": ("vgg16_bn-6c64b313.pth", 73.36)},
    "vgg19": {"IMAGENET1K_V1": ("vgg19-dcbb9e9d.pth", 72.376)},
    "vgg19_bn": {"IMAGENET1K_V1": ("vgg19_bn-c79401a0.pth", 74.218)},
    "vit_b_16": {
        "IMAGENET1K_V1": ("vit_b_16-c867db91.pth", 81.072),
        "IMAGENET1K_SWAG_E2E_V1": ("vit_b_16_swag-9ac1b537.pth", 85.304, swag(384)),
        "IMAGENET1K_SWAG_LINEAR_V1": ("vit_b_16_lc_swag-4e70ced5.pth", 81.886, swag(224)),
    },
    "vit_b_32": {"IMAGENET1K_V1": ("vit_b_32-d86f8d99.pth", 75.912)},
    "vit_h_14": {
        "IMAGENET1K_SWAG_E2E_V1": ("vit_h_14_swag-80465313.pth", 88.552, swag(518)),
        "IMAGENET1K_SWAG_LINEAR_V1": ("vit_h_14_lc_swag-c1eb923e.pth", 85.708, swag(224)),
    },
    "vit_l_16": {
        "IMAGENET1K_V1": ("vit_l_16-852ce7e3.pth", 79.662, dict(short=242)),
        "IMAGENET1K_SWAG_E2E_V1": ("vit_l_16_swag-4f3808c9.pth", 88.064, swag(512)),
        "IMAGENET1K_SWAG_LINEAR_V1": ("vit_l_16_lc_swag-4d563306.pth", 85.146, swag(224)),
    },
    "vit_l_32": {"IMAGENET1K_V1": ("vit_l_32-c7638314.pth", 76.972)},
    "wide_resnet101_2": {
        "IMAGENET1K_V1": ("wide_resnet101_2-32ee1156.pth", 78.848),
        "IMAGENET1K_V2": ("wide_resnet101_2-d733dc28.pth", 82.51, V2),
    },
    "wide_resnet50_2": {
        "IMAGENET1K_V1": ("wide_resnet50_2-95faca4d.pth", 78.468),
        "IMAGENET1K_V2": ("wide_resnet50_2-9ba9bcbe.pth", 81.602, V2),
    },
}
