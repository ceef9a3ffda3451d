"""Tensor names of Hugging Face's transformers, with or without a head."""

from zoo.weights.names.rename import Table


def resnet_rows(*parts: str) -> Table:
    """Returns the rows of a ResNet whose blocks have the given layers in order."""
    rows = [("classifier.1", "head", "dense")]
    for prefix in ("resnet.", ""):
        block = f"{prefix}encoder.stages.{{stage}}.layers.{{block}}"
        layers = [(f"{prefix}embedder.embedder", "stem")]
        layers += [(f"{block}.shortcut", "stage{stage+1}_{block}/skip")]
        layers += [
            (f"{block}.layer.{n}", f"stage{{stage+1}}_{{block}}/{layer}")
            for n, layer in enumerate(parts)
        ]
        rows += [(f"{name}.convolution", f"{path}/conv", "conv") for name, path in layers]
        rows += [(f"{name}.normalization", f"{path}/norm", "norm") for name, path in layers]
    return rows


VIT_LAYERS = (
    ("layernorm_before", "norm1", "norm"),
    ("attention.attention.query", "attention/qkv[0/3]", "dense"),
    ("attention.attention.key", "attention/qkv[1/3]", "dense"),
    ("attention.attention.value", "attention/qkv[2/3]", "dense"),
    ("attention.output.dense", "attention/out", "dense"),
    ("layernorm_after", "norm2", "norm"),
    ("intermediate.dense", "expand", "dense"),
    ("output.dense", "reduce", "dense"),
)


def vit_rows() -> Table:
    """Returns the rows of a ViT; the pooler of the pre-training is dropped."""
    rows: list = [("classifier", "head", "dense")]
    for prefix in ("vit.", ""):
        rows += [
            (f"{prefix}embeddings.cls_token", "class_token", "tensor"),
            (f"{prefix}embeddings.position_embeddings", "positions", "tensor"),
            (f"{prefix}embeddings.patch_embeddings.projection", "patch", "conv"),
            (f"{prefix}layernorm", "norm", "norm"),
            (f"{prefix}pooler.dense", None, "dense"),
        ]
        rows += [
            (f"{prefix}encoder.layer.{{n}}.{name}", f"stage1_{{n}}/{path}", layout)
            for name, path, layout in VIT_LAYERS
        ]
    return rows


NAMES: dict[str, list[Table]] = {
    "resnet": [resnet_rows("first", "second"), resnet_rows("reduce", "spatial", "expand")],
    "vit": [vit_rows()],
}
