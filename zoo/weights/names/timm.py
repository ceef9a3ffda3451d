"""timm: the names in its models."""

from zoo.weights.names import torchvision
from zoo.weights.names.rename import Row, Table, flattened_conv_layout

VGG_HEAD: Table = [
    ("pre_logits.fc1", "fc6", flattened_conv_layout(7, 7)),
    ("pre_logits.fc2", "fc7", flattened_conv_layout(1, 1)),
    ("head.fc", "head", "dense"),
]

MOBILENET_ENDS: Table = [
    ("conv_stem", "stem/conv", "conv"),
    ("bn1", "stem/norm", "norm"),
    ("conv_head", "last/conv", "conv"),
    ("bn2", "last/norm", "norm"),
    ("classifier", "head", "dense"),
]


def mobilenet_rows(prefix: str, path: str, parts: dict[str, str]) -> list[Row]:
    """Rows of a block whose convolutions are called as `parts` says, with norms in their order."""
    rows: list[Row] = []
    for n, (name, part) in enumerate(parts.items(), 1):
        rows.append((f"{prefix}.{name}", f"{path}/{part}/conv", "conv"))
        rows.append((f"{prefix}.bn{n}", f"{path}/{part}/norm", "norm"))
    return rows


# timm's stages change where the width does, ours where the stride does.
MOBILENET_V2_STAGES = ((0, 1), (1, 2), (2, 3), (3, 4), (3, 3), (4, 3), (4, 1))  # of ours, blocks


def mobilenet_v2_rows() -> Table:
    """Rows of MobileNetV2, whose first block does not expand."""
    rows, blocks = list(MOBILENET_ENDS), [0] * 5
    for there, (stage, depth) in enumerate(MOBILENET_V2_STAGES):
        parts = {"conv_pw": "expand", "conv_dw": "depthwise", "conv_pwl": "project"}
        parts = parts if there else {"conv_dw": "depthwise", "conv_pw": "project"}
        for n in range(depth):
            path = f"stage{stage}_{blocks[stage]}"
            rows += mobilenet_rows(f"blocks.{there}.{n}", path, parts)
            blocks[stage] += 1
    return rows


MOBILENET_V1: Table = [
    *MOBILENET_ENDS,
    *mobilenet_rows(
        "blocks.{stage}.{n}", "stage{stage}_{n}", {"conv_dw": "depthwise", "conv_pw": "pointwise"}
    ),
]

VIT: Table = [
    ("cls_token", "class_token", "tensor"),
    ("patch_embed.proj", "patch", "conv"),
    ("pos_embed", "positions", "tensor"),
    ("blocks.{n}.norm1", "stage1_{n}/norm1", "norm"),
    ("blocks.{n}.attn.qkv", "stage1_{n}/attention/qkv", "dense"),
    ("blocks.{n}.attn.proj", "stage1_{n}/attention/out", "dense"),
    ("blocks.{n}.norm2", "stage1_{n}/norm2", "norm"),
    ("blocks.{n}.mlp.fc1", "stage1_{n}/expand", "dense"),
    ("blocks.{n}.mlp.fc2", "stage1_{n}/reduce", "dense"),
    ("norm", "norm", "norm"),
    ("head", "head", "dense"),
]

NAMES: dict[str, list[Table]] = {
    "densenet": torchvision.NAMES["densenet"],
    "mobilenet_v1": [MOBILENET_V1],
    "mobilenet_v2": [mobilenet_v2_rows()],
    "resnet": torchvision.NAMES["resnet"],
    "vgg": [
        [*torchvision.vgg_rows(depths, norm=norm), *VGG_HEAD]
        for depths in torchvision.VGG_DEPTHS
        for norm in (False, True)
    ],
    "vit": [VIT],
}
