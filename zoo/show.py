"""Cards of models as text."""

from collections.abc import Sequence

from zoo.registry import ModelCard


def by(shape: Sequence[int]) -> str:
    """(32, 32, 1) to "32x32x1"."""
    return "x".join(map(str, shape))


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words to lines of aligned columns, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        words = zip(row, widths, strict=True)
        cells = [w.rjust(n) if w[:1].isdigit() else w.ljust(n) for w, n in words]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def listing(cards: Sequence[ModelCard]) -> str:
    """Cards to the table that `list` prints."""
    head = ("name", "task", "parameters", "multiply-adds", "input")
    rows = [
        (card.name, card.task, f"{card.parameters:,}", f"{card.macs:,}", by(card.input))
        for card in cards
    ]
    return table([head, *rows])


def resizing(card: ModelCard) -> list[tuple[str, str]]:
    """How images come to the model's size: (word, value) of each line."""
    seen = card.preprocessing
    if card.task != "detection":
        crop = f"{seen.crop:g} of the short side"
        return [("resize", f"{by(seen.size)} {seen.interpolation}"), ("crop", crop)]
    how = (
        "stretched onto it"
        if seen.sides is None
        else "sides to {} and {} at most".format(*seen.sides)
    )
    return [("canvas", f"{by(seen.size)}, {how}")]


def facts(card: ModelCard) -> str:
    """A card to the lines that `show` prints."""
    preprocessing = card.preprocessing
    stages = [
        f"{stage} stride {stride}, {channels} channels"
        for stage, (stride, channels) in card.features.items()
    ]
    rows = [
        ("name", card.name),
        ("task", card.task),
        ("paper", card.paper),
        ("reported", card.reported or "-"),
        ("parameters", f"{card.parameters:,}"),
        ("multiply-adds", f"{card.macs:,} for one image of {by(card.input)}"),
        ("features", "; ".join(stages) or "-"),
        (
            "batch norms",
            "{folded} to fold, {affine} to a scale and a bias".format(**card.batchnorms),
        ),
        *resizing(card),
        ("mean", ", ".join(f"{value:.4g}" for value in preprocessing.mean)),
        ("deviation", ", ".join(f"{value:.4g}" for value in preprocessing.std)),
        *zip(["weights", *[""] * len(card.weights)], card.weights or ["-"], strict=False),
    ]
    width = max(len(word) for word, _ in rows)
    return "\n".join(f"{word:{width}}  {value}" for word, value in rows)
