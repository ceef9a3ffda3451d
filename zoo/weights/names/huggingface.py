"""Hugging Face's transformers: the names in its models, with a head or without."""

from zoo.weights.names.rename import Table


def resnet_rows(*parts: str) -> Table:
    """Rows of a ResNet whose blocks have these parts, one after the other."""
    rows = [("classifier.1", "head", "dense")]
    for before in ("resnet.", ""):
        block = f"{before}encoder.stages.{{stage}}.layers.{{block}}"
        layers = [(f"{before}embedder.embedder", "stem")]
        layers += [(f"{block}.shortcut", "stage{stage+1}_{block}/skip")]
        layers += [
            (f"{block}.layer.{n}", f"stage{{stage+1}}_{{block}}/{part}")
            for n, part in enumerate(parts)
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
    """Rows of a ViT; the pooler of its pre-training is left."""
    rows: list = [("classifier", "head", "dense")]
    for before in ("vit.", ""):
        rows += [
            (f"{before}embeddings.cls_token", "class_token", "tensor"),
            (f"{before}embeddings.position_embeddings", "positions", "tensor"),
            (f"{before}embeddings.patch_embeddings.projection", "patch", "conv"),
            (f"{before}layernorm", "norm", "norm"),
            (f"{before}pooler.dense", None, "dense"),
        ]
        rows += [
            (f"{before}encoder.layer.{{n}}.{name}", f"stage1_{{n}}/{path}", layout)
            for name, path, layout in VIT_LAYERS
        ]
    return rows


NAMES: dict[str, list[Table]] = {
    "resnet": [resnet_rows("first", "second"), resnet_rows("reduce", "spatial", "expand")],
    "vit": [vit_rows()],
}
