"""Tensor names of timm."""

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
    """Returns the rows of a block with the given convolutions, with norms in their order."""
    rows: list[Row] = []
    for n, (name, layer) in enumerate(parts.items(), 1):
        rows.append((f"{prefix}.{name}", f"{path}/{layer}/conv", "conv"))
        rows.append((f"{prefix}.bn{n}", f"{path}/{layer}/norm", "norm"))
    return rows


# timm's stages change with the width, ours with the stride.
MOBILENET_V2_STAGES = (
    (0, 1),
    (1, 2),
    (2, 3),
    (3, 4),
    (3, 3),
    (4, 3),
    (4, 1),
)  # (our stage, blocks)


def mobilenet_v2_rows() -> Table:
    """Returns the rows of MobileNet v2, whose first block does not expand."""
    rows, blocks = list(MOBILENET_ENDS), [0] * 5
    for prefix, (stage, depth) in enumerate(MOBILENET_V2_STAGES):
        layers = {"conv_pw": "expand", "conv_dw": "depthwise", "conv_pwl": "project"}
        layers = layers if prefix else {"conv_dw": "depthwise", "conv_pw": "project"}
        for n in range(depth):
            path = f"stage{stage}_{blocks[stage]}"
            rows += mobilenet_rows(f"blocks.{prefix}.{n}", path, layers)
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
