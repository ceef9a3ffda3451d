"""The commands `python -m zoo list` and `show`."""

from collections.abc import Sequence

from zoo.registry import ModelCard


def join_dims(shape: Sequence[int]) -> str:
    """Formats (32, 32, 1) as 32x32x1."""
    return "x".join(map(str, shape))


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Formats rows as aligned columns, with numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        words = zip(row, widths, strict=True)
        cells = [w.rjust(n) if w[:1].isdigit() else w.ljust(n) for w, n in words]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def format_listing(cards: Sequence[ModelCard]) -> str:
    """Formats the table that `list` prints."""
    head = ("name", "task", "parameters", "multiply-adds", "input")
    rows = [
        (card.name, card.task, f"{card.parameters:,}", f"{card.macs:,}", join_dims(card.input))
        for card in cards
    ]
    return markdown_table([head, *rows])


def format_resizing(card: ModelCard) -> list[tuple[str, str]]:
    """Returns (label, value) lines about the resizing of images."""
    preprocessing = card.preprocessing
    if card.task != "detection":
        crop = f"{preprocessing.crop:g} of the short side"
        frames = [("frames", f"{preprocessing.frames}, every {preprocessing.stride} of the video")]
        return [
            *(frames if preprocessing.frames else []),
            ("resize", f"{join_dims(preprocessing.size)} {preprocessing.interpolation}"),
            ("crop", crop),
        ]
    method = (
        "stretched onto it"
        if preprocessing.sides is None
        else "sides to {} and {} at most".format(*preprocessing.sides)
    )
    return [("canvas", f"{join_dims(preprocessing.size)}, {method}")]


def format_stage(card: ModelCard, stage: str) -> str:
    """Formats stride and channels of a stage."""
    stride, channels = card.features[stage]
    frame_stride = f" and {card.frame_strides[stage]} frames" if card.frame_strides else ""
    return f"{stage} stride {stride}{frame_stride}, {channels} channels"


def pathway_rows(card: ModelCard) -> list[tuple[str, str]]:
    """Returns the lines about the multiply-adds of pathways, if any."""
    shares = [f"{path} {100 * n / card.macs:.1f} %" for path, n in card.pathways.items()]
    return [("pathways", ", ".join(shares) + " of the multiply-adds")] if shares else []


def format_card(card: ModelCard) -> str:
    """Formats the card that `show` prints."""
    preprocessing = card.preprocessing
    kind = "clip" if len(card.input) == 4 else "image"
    rows = [
        ("name", card.name),
        ("task", card.task),
        ("paper", card.paper),
        ("reported", card.reported or "-"),
        ("parameters", f"{card.parameters:,}"),
        ("multiply-adds", f"{card.macs:,} for one {kind} of {join_dims(card.input)}"),
        *pathway_rows(card),
        ("features", "; ".join(format_stage(card, stage) for stage in card.features) or "-"),
        (
            "batch norms",
            "{folded} to fold, {affine} to a scale and a bias".format(**card.batchnorms),
        ),
        *format_resizing(card),
        ("mean", ", ".join(f"{value:.4g}" for value in preprocessing.mean)),
        ("deviation", ", ".join(f"{value:.4g}" for value in preprocessing.std)),
        *zip(["weights", *[""] * len(card.weights)], card.weights or ["-"], strict=False),
    ]
    width = max(len(word) for word, _ in rows)
    return "\n".join(f"{word:{width}}  {value}" for word, value in rows)
