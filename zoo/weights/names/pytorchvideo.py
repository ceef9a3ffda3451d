"""pytorchvideo: the names in its models."""

from zoo.weights.names.rename import Row, Table


def block_rows(prefix: str, path: str) -> list[Row]:
    """Rows of the blocks of a stage, of bottlenecks."""
    rows: list[Row] = [
        (f"{prefix}.res_blocks.{{block}}.branch1_conv", f"{path}_{{block}}/skip/conv", "conv"),
        (f"{prefix}.res_blocks.{{block}}.branch1_norm", f"{path}_{{block}}/skip/norm", "norm"),
    ]
    for letter, part in zip("abc", ("reduce", "spatial", "expand"), strict=True):
        inside = f"{prefix}.res_blocks.{{block}}.branch2"
        rows.append((f"{inside}.conv_{letter}", f"{path}_{{block}}/{part}/conv", "conv"))
        rows.append((f"{inside}.norm_{letter}", f"{path}_{{block}}/{part}/norm", "norm"))
    return rows


def slow_rows() -> Table:
    """Rows of the Slow pathway alone."""
    return [
        ("blocks.0.conv", "stem/conv", "conv"),
        ("blocks.0.norm", "stem/norm", "norm"),
        *block_rows("blocks.{stage}", "stage{stage}"),
        ("blocks.5.proj", "head", "dense"),
    ]


def slowfast_rows() -> Table:
    """Rows of both pathways."""
    rows: list[Row] = [("blocks.6.proj", "head", "dense")]
    for number, path in enumerate(("slow", "fast")):
        stem = f"blocks.0.multipathway_blocks.{number}"
        rows += [(f"{stem}.{part}", f"{path}_stem/{part}", part) for part in ("conv", "norm")]
        there = f"blocks.{{stage}}.multipathway_blocks.{number}"
        rows += block_rows(there, f"{path}_stage{{stage}}")
    fusion = "blocks.{n}.multipathway_fusion"
    rows.append((f"{fusion}.conv_fast_to_slow", "lateral_{n}/conv", "conv"))
    rows.append((f"{fusion}.norm", "lateral_{n}/norm", "norm"))
    return rows


NAMES: dict[str, list[Table]] = {"slowfast": [slow_rows(), slowfast_rows()]}
