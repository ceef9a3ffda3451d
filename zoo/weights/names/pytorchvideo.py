"""Tensor names of pytorchvideo."""

from zoo.weights.names.rename import Row, Table


def block_rows(prefix: str, path: str) -> list[Row]:
    """Returns the rows of a stage of bottlenecks."""
    rows: list[Row] = [
        (f"{prefix}.res_blocks.{{block}}.branch1_conv", f"{path}_{{block}}/skip/conv", "conv"),
        (f"{prefix}.res_blocks.{{block}}.branch1_norm", f"{path}_{{block}}/skip/norm", "norm"),
    ]
    for letter, layer in zip("abc", ("reduce", "spatial", "expand"), strict=True):
        branch = f"{prefix}.res_blocks.{{block}}.branch2"
        rows.append((f"{branch}.conv_{letter}", f"{path}_{{block}}/{layer}/conv", "conv"))
        rows.append((f"{branch}.norm_{letter}", f"{path}_{{block}}/{layer}/norm", "norm"))
    return rows


def slow_rows() -> Table:
    """Returns the rows of the Slow pathway alone."""
    return [
        ("blocks.0.conv", "stem/conv", "conv"),
        ("blocks.0.norm", "stem/norm", "norm"),
        *block_rows("blocks.{stage}", "stage{stage}"),
        ("blocks.5.proj", "head", "dense"),
    ]


def slowfast_rows() -> Table:
    """Returns the rows of both pathways."""
    rows: list[Row] = [("blocks.6.proj", "head", "dense")]
    for number, path in enumerate(("slow", "fast")):
        stem = f"blocks.0.multipathway_blocks.{number}"
        rows += [
            (f"{stem}.{pathway}", f"{path}_stem/{pathway}", pathway) for pathway in ("conv", "norm")
        ]
        prefix = f"blocks.{{stage}}.multipathway_blocks.{number}"
        rows += block_rows(prefix, f"{path}_stage{{stage}}")
    fusion = "blocks.{n}.multipathway_fusion"
    rows.append((f"{fusion}.conv_fast_to_slow", "lateral_{n}/conv", "conv"))
    rows.append((f"{fusion}.norm", "lateral_{n}/norm", "norm"))
    return rows


NAMES: dict[str, list[Table]] = {"slowfast": [slow_rows(), slowfast_rows()]}
