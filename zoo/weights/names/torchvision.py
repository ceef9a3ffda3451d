"""torchvision: the names in its models."""

from zoo.weights.names.rename import BIAS, CONV, Row, Table, flattened_layout

VGG_DEPTHS = ((1, 1, 2, 2, 2), (2, 2, 2, 2, 2), (2, 2, 3, 3, 3), (2, 2, 4, 4, 4))
MOBILENET_V2_DEPTHS = (1, 2, 3, 7, 4)  # blocks by stride
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


def resnet_rows(*parts: str) -> Table:
    """Rows of a ResNet whose blocks have these parts, one after the other."""
    rows = list(RESNET_ENDS)
    for n, part in enumerate(parts, 1):
        path = f"stage{{stage}}_{{block}}/{part}"
        rows.append((f"layer{{stage}}.{{block}}.conv{n}", f"{path}/conv", "conv"))
        rows.append((f"layer{{stage}}.{{block}}.bn{n}", f"{path}/norm", "norm"))
    return rows


def resnet3d_rows() -> Table:
    """Rows of a video ResNet, whose (2+1)-D convolutions are a list within a list."""
    rows: list[Row] = [
        ("stem.0", "stem/conv", "conv"),
        ("stem.1", "stem/norm", "norm"),
        *(row for row in RESNET_ENDS if row[0] not in ("conv1", "bn1")),
    ]
    for n, part in enumerate(("first", "second"), 1):
        there, path = f"layer{{stage}}.{{block}}.conv{n}", f"stage{{stage}}_{{block}}/{part}"
        rows += [(f"{there}.0", f"{path}/full/conv", "conv")]
        rows += [(f"{there}.1", f"{path}/full/norm", "norm")]
    return rows


def resnet3d_mixed_rows() -> Table:
    """resnet3d's, of which the stages from the second on are flat."""
    rows: list[Row] = []
    for theirs, ours, layout in resnet3d_rows():
        if "/full/" not in str(ours):
            rows.append((theirs, ours, layout))
            continue
        for stage in "1234":
            kind = "full" if stage == "1" else "spatial"
            there, here = (side.replace("{stage}", stage) for side in (theirs, str(ours)))
            rows.append((there, here.replace("full", kind), layout))
    return rows


def resnet3d_factored_rows() -> Table:
    """resnet3d's, of (2+1)-D convolutions."""
    rows: list[Row] = [row for row in resnet3d_rows() if "full" not in str(row[1])]
    rows = [row for row in rows if not row[0].startswith("stem")]
    for n, part in enumerate(("spatial", "temporal")):
        rows.append((f"stem.{3 * n}", f"stem_{part}/conv", "conv"))
        rows.append((f"stem.{3 * n + 1}", f"stem_{part}/norm", "norm"))
    for n, part in enumerate(("first", "second"), 1):
        there, path = f"layer{{stage}}.{{block}}.conv{n}", f"stage{{stage}}_{{block}}/{part}"
        rows.append((f"{there}.0.0", f"{path}/spatial/conv", "conv"))
        rows.append((f"{there}.0.1", f"{path}/spatial/norm", "norm"))
        rows.append((f"{there}.0.3", f"{path}/temporal/conv", "conv"))
        rows.append((f"{there}.1", f"{path}/temporal/norm", "norm"))
    return rows


def fcn_resnet_rows() -> Table:
    """Rows of an FCN on a ResNet of bottlenecks, its auxiliary head with it."""
    rows: list[Row] = [
        (f"backbone.{theirs}", f"backbone/{ours}", layout)
        for theirs, ours, layout in resnet_rows("reduce", "spatial", "expand")
        if theirs != "fc"
    ]
    for theirs, ours in (("classifier", "head"), ("aux_classifier", "auxiliary")):
        rows.append((f"{theirs}.0", f"{ours}/reduce/conv", "conv"))
        rows.append((f"{theirs}.1", f"{ours}/reduce/norm", "norm"))
        rows.append((f"{theirs}.4", f"{ours}/score", "conv"))
    return rows


def faster_rcnn_rows(*parts: str, norm: str) -> Table:
    """Rows of a Faster R-CNN on the pyramid of a ResNet whose blocks have these parts.

    The published file is of 2019, before the pyramid's convolutions and the proposals' became
    sequences.
    """
    rows: list[Row] = [
        (f"backbone.body.{theirs}", f"backbone/{ours}", norm if layout == "norm" else layout)
        for theirs, ours, layout in resnet_rows(*parts)
        if theirs != "fc"
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


def mobilenet_v2_rows() -> Table:
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
