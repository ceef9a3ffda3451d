"""Tensor names of torchvision."""

from zoo.weights.names.rename import BIAS, CONV, Row, Table, flattened_layout

VGG_DEPTHS = ((1, 1, 2, 2, 2), (2, 2, 2, 2, 2), (2, 2, 3, 3, 3), (2, 2, 4, 4, 4))
MOBILENET_V2_DEPTHS = (1, 2, 3, 7, 4)  # blocks of each stride
IN_PROJ = {"in_proj_weight": ("params/{}/kernel", CONV), "in_proj_bias": BIAS["bias"]}

ALEXNET: Table = [
    *((f"features.{n}", f"conv{k}", "conv") for k, n in enumerate((0, 3, 6, 8, 10), 1)),
    ("classifier.1", "fc6", flattened_layout(6, 6)),
    ("classifier.4", "fc7", "dense"),
    ("classifier.6", "head", "dense"),
]

VGG_HEAD: Table = [
    ("classifier.0", "fc6", flattened_layout(7, 7)),
    ("classifier.3", "fc7", "dense"),
    ("classifier.6", "head", "dense"),
]


def vgg_rows(depths: tuple[int, ...], *, norm: bool) -> list[Row]:
    """Returns the rows of the convolutions, which are numbered together with other layers."""
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


def resnet_rows(*layers: str) -> Table:
    """Returns the rows of a ResNet whose blocks have the given layers in order."""
    rows = list(RESNET_ENDS)
    for n, layer in enumerate(layers, 1):
        path = f"stage{{stage}}_{{block}}/{layer}"
        rows.append((f"layer{{stage}}.{{block}}.conv{n}", f"{path}/conv", "conv"))
        rows.append((f"layer{{stage}}.{{block}}.bn{n}", f"{path}/norm", "norm"))
    return rows


def resnet3d_rows() -> Table:
    """Returns the rows of a video ResNet; its (2+1)-D convolutions are nested lists."""
    rows: list[Row] = [
        ("stem.0", "stem/conv", "conv"),
        ("stem.1", "stem/norm", "norm"),
        *(row for row in RESNET_ENDS if row[0] not in ("conv1", "bn1")),
    ]
    for n, layer in enumerate(("first", "second"), 1):
        prefix, path = f"layer{{stage}}.{{block}}.conv{n}", f"stage{{stage}}_{{block}}/{layer}"
        rows += [(f"{prefix}.0", f"{path}/full/conv", "conv")]
        rows += [(f"{prefix}.1", f"{path}/full/norm", "norm")]
    return rows


def resnet3d_mixed_rows() -> Table:
    """Returns the rows of a video ResNet whose stages are flat from the second on."""
    rows: list[Row] = []
    for their_name, our_name, layout in resnet3d_rows():
        if "/full/" not in str(our_name):
            rows.append((their_name, our_name, layout))
            continue
        for stage in "1234":
            kind = "full" if stage == "1" else "spatial"
            their_stage, our_stage = (
                side.replace("{stage}", stage) for side in (their_name, str(our_name))
            )
            rows.append((their_stage, our_stage.replace("full", kind), layout))
    return rows


def resnet3d_factored_rows() -> Table:
    """Returns the rows of a video ResNet with (2+1)-D convolutions."""
    rows: list[Row] = [row for row in resnet3d_rows() if "full" not in str(row[1])]
    rows = [row for row in rows if not row[0].startswith("stem")]
    for n, layer in enumerate(("spatial", "temporal")):
        rows.append((f"stem.{3 * n}", f"stem_{layer}/conv", "conv"))
        rows.append((f"stem.{3 * n + 1}", f"stem_{layer}/norm", "norm"))
    for n, layer in enumerate(("first", "second"), 1):
        prefix, path = f"layer{{stage}}.{{block}}.conv{n}", f"stage{{stage}}_{{block}}/{layer}"
        rows.append((f"{prefix}.0.0", f"{path}/spatial/conv", "conv"))
        rows.append((f"{prefix}.0.1", f"{path}/spatial/norm", "norm"))
        rows.append((f"{prefix}.0.3", f"{path}/temporal/conv", "conv"))
        rows.append((f"{prefix}.1", f"{path}/temporal/norm", "norm"))
    return rows


def fcn_resnet_rows() -> Table:
    """Returns the rows of an FCN on a ResNet of bottlenecks, with its auxiliary head."""
    rows: list[Row] = [
        (f"backbone.{their_name}", f"backbone/{our_name}", layout)
        for their_name, our_name, layout in resnet_rows("reduce", "spatial", "expand")
        if their_name != "fc"
    ]
    for their_name, our_name in (("classifier", "head"), ("aux_classifier", "auxiliary")):
        rows.append((f"{their_name}.0", f"{our_name}/reduce/conv", "conv"))
        rows.append((f"{their_name}.1", f"{our_name}/reduce/norm", "norm"))
        rows.append((f"{their_name}.4", f"{our_name}/score", "conv"))
    return rows


def faster_rcnn_rows(*layers: str, norm: str) -> Table:
    """Returns the rows of a Faster R-CNN on a pyramid of a ResNet.

    The published file is from 2019, before the convolutions of the pyramid and the RPN became
    sequences.
    """
    rows: list[Row] = [
        (
            f"backbone.body.{their_name}",
            f"backbone/{our_name}",
            norm if layout == "norm" else layout,
        )
        for their_name, our_name, layout in resnet_rows(*layers)
        if their_name != "fc"
    ]
    for late in (".0", ""):
        rows.append((f"backbone.fpn.inner_blocks.{{n}}{late}", "fpn/inner{n+1}", "conv"))
        rows.append((f"backbone.fpn.layer_blocks.{{n}}{late}", "fpn/layer{n+1}", "conv"))
        rows.append((f"rpn.head.conv{late}{late}", "rpn/conv", "conv"))
    rows.append(("rpn.head.cls_logits", "rpn/logits", "conv"))
    rows.append(("rpn.head.bbox_pred", "rpn/deltas", "conv"))
    rows.append(("roi_heads.box_head.fc6", "head/fc6", flattened_layout(7, 7)))
    rows.append(("roi_heads.box_head.fc7", "head/fc7", "dense"))
    rows.append(("roi_heads.box_predictor.cls_score", "head/logits", "dense"))
    rows.append(("roi_heads.box_predictor.bbox_pred", "head/deltas", "dense"))
    return rows


DENSENET: Table = [
    ("features.conv0", "stem/conv", "conv"),
    ("features.norm0", "stem/norm", "norm"),
    *(
        (f"features.denseblock{{stage}}.denselayer{{block+1}}.{name}", path, layout)
        for dot in ("", ".")  # the published files are from 2017: norm.1
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


def mobilenet_v2_rows() -> Table:
    """Returns the rows of MobileNet v2: consecutive blocks, the first without expansion."""
    rows: list[Row] = [
        ("features.0.0", "stem/conv", "conv"),
        ("features.0.1", "stem/norm", "norm"),
        ("features.18.0", "last/conv", "conv"),
        ("features.18.1", "last/norm", "norm"),
        ("classifier.1", "head", "dense"),
    ]
    paths = [f"stage{k}_{n}" for k, depth in enumerate(MOBILENET_V2_DEPTHS) for n in range(depth)]
    for index, path in enumerate(paths, 1):
        layers = ("depthwise",) if index == 1 else ("expand", "depthwise")
        for n, layer in enumerate(layers):
            rows.append((f"features.{index}.conv.{n}.0", f"{path}/{layer}/conv", "conv"))
            rows.append((f"features.{index}.conv.{n}.1", f"{path}/{layer}/norm", "norm"))
        last = len(layers)
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
    "faster_rcnn": [
        faster_rcnn_rows(*parts, norm=norm)
        for parts in (("reduce", "spatial", "expand"), ("first", "second"))
        for norm in ("frozen", "norm")
    ],
    "fcn": [fcn_resnet_rows()],
    "mobilenet_v2": [mobilenet_v2_rows()],
    "resnet": [resnet_rows("first", "second"), resnet_rows("reduce", "spatial", "expand")],
    "resnet3d": [resnet3d_rows(), resnet3d_mixed_rows(), resnet3d_factored_rows()],
    "vgg": [
        [*vgg_rows(depths, norm=norm), *VGG_HEAD] for depths in VGG_DEPTHS for norm in (False, True)
    ],
    "vit": [VIT],
}
