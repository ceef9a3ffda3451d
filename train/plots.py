"""Pictures of a run, drawn without a display."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

NUMBERED = 20  # classes up to which a map of confusions carries its counts
NAMED = 120  # classes up to which it names every one
COLOURS = {"train": "tab:blue", "val": "tab:orange", "test": "tab:green"}


def curves(rows: Sequence[Mapping[str, float]], *, best: int | None = None) -> Figure:
    """Rows of metrics.jsonl -> one panel per metric over epochs, every source in it.

    `best`: the step of the kept snapshot, marked.
    """
    named = sorted(
        {name for row in rows for name in row if "/" in name and not name.startswith("time/")}
    )
    metrics = list(dict.fromkeys(name.split("/", 1)[1] for name in named))
    metrics.sort(key=lambda metric: (metric != "loss", metric != "accuracy", metric))
    figure = Figure(figsize=(5.5 * len(metrics), 4), layout="constrained")
    for axes, metric in zip(np.atleast_1d(figure.subplots(1, len(metrics))), metrics, strict=True):
        for name in (name for name in named if name.split("/", 1)[1] == metric):
            source = name.split("/", 1)[0]
            points = [(row["epoch"], row[name]) for row in rows if name in row]
            axes.plot(
                *zip(*points, strict=True),
                label=f"{source} {points[-1][1]:.4g}",
                color=COLOURS.get(source),
                marker="o" if len(points) < 3 else None,
            )
        kept = next((row["epoch"] for row in rows if row["step"] == best), None)
        if kept is not None:
            axes.axvline(kept, color="grey", linestyle=":", label=f"kept: epoch {kept:g}")
        axes.set(xlabel="epoch", title=metric)
        axes.grid(alpha=0.3)
        if metric in ("loss", "gradient_norm") and axes.get_ylim()[0] > 0:
            axes.set_yscale("log")
        axes.legend()
    return figure


def confusion(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Counts [K, K], row the truth and column the prediction -> a map of them, coloured by row.

    Up to twenty classes the counts stand in it; above, the pairs confused most often are beside
    it, and above 120 every n-th class is named.
    """
    total, hits = counts.sum(), np.trace(counts)
    many = len(classes) > NUMBERED
    side = max(5.0, min(16.0, (0.17 if many else 0.5) * len(classes) + 2))
    figure = Figure(figsize=(side + (4.5 if many else 1), side), layout="constrained")
    if many:
        axes, beside = figure.subplots(1, 2, width_ratios=(side, 4.5))
        pairs_beside(beside, counts, classes, lines=min(60, int(6 * side) - 4))
    else:
        axes = figure.subplots()
    with np.errstate(invalid="ignore"):
        share = counts / counts.sum(1, keepdims=True)
    norm = PowerNorm(0.5, vmin=0, vmax=1)  # the root, so that one in a hundred is seen
    drawn = axes.imshow(np.where(np.isnan(share), 0, share), cmap="Blues", norm=norm)
    figure.colorbar(drawn, ax=axes, shrink=0.6, label="share of the true class")
    every = -(-len(classes) // NAMED)
    ticks = range(0, len(classes), every)
    names = [shortened(classes[tick]) for tick in ticks]
    size = 6 if many else 9
    axes.set_xticks(ticks, names, rotation=90, fontsize=size)
    axes.set_yticks(ticks, names, fontsize=size)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"{hits} of {total} right" + (f", {100 * hits / total:.2f} %" if total else ""))
    if not many:
        for row, column in np.argwhere(counts > 0):
            colour = "white" if share[row, column] > 0.4 else "black"
            number = str(counts[row, column])
            axes.text(column, row, number, ha="center", va="center", fontsize=8, color=colour)
    return figure


def pairs_beside(axes: Axes, counts: np.ndarray, classes: Sequence[str], *, lines: int) -> None:
    """Lists the pairs confused most often: how often, which share of the truth, what for what."""
    wrong = counts * (1 - np.eye(len(classes), dtype=counts.dtype))
    order = np.argsort(-wrong, axis=None, stable=True)[:lines]
    rows = [divmod(int(cell), len(classes)) for cell in order]
    names = [shortened(name) for name in classes]
    said = [
        f"{wrong[t, p]:5d}  {100 * wrong[t, p] / counts[t].sum():3.0f} %  {names[t]} as {names[p]}"
        for t, p in rows
        if wrong[t, p]
    ]
    axes.axis("off")
    text = "\n".join(["most often confused (share of the true class)", "", *(said or ["nothing"])])
    axes.text(0, 1, text, fontsize=8, family="monospace", va="top", transform=axes.transAxes)


def shortened(name: str, *, length: int = 18) -> str:
    """A class's name as a tick can carry it.

    >>> shortened("Chesapeake Bay retriever")
    'Chesapeake Bay re…'
    """
    return name if len(name) <= length else f"{name[: length - 1]}…"


def pictures(
    images: np.ndarray, titles: Sequence[str], *, wrong: Sequence[bool], columns: int = 10
) -> Figure:
    """Images [B, H, W, C] (uint8, or floats in [0, 1]) -> a grid, the wrong ones titled in red."""
    height, width, _ = images.shape[1:]
    strip, gap = round(0.3 * height) + 1, round(0.05 * width) + 1  # for two lines of title
    canvas, corners = tiles(images, columns=columns, strip=strip, gap=gap)
    figure = whole(canvas, inches=1.1 * columns)
    for (top, left), title, bad in zip(corners, titles, wrong, strict=True):
        place = (left + width / 2, top - 0.02 * height)
        colour = "red" if bad else "black"
        figure.axes[0].text(*place, title, fontsize=8, color=colour, ha="center", va="bottom")
    return figure


def strips(rows: Mapping[str, np.ndarray]) -> Figure:
    """{"image": [B, H, W, C], "reconstruction": ...} -> one named row of pictures each."""
    columns, height, width, _ = next(iter(rows.values())).shape
    strip, gap = round(0.2 * height) + 1, round(0.05 * width) + 1
    images = np.concatenate(list(rows.values()))
    canvas, corners = tiles(images, columns=columns, strip=strip, gap=gap)
    figure = whole(canvas, inches=1.1 * columns)
    for (top, left), name in zip(corners[::columns], rows, strict=True):
        figure.axes[0].text(left, top - 0.02 * height, name, fontsize=9, va="bottom")
    return figure


def tiles(
    images: np.ndarray, *, columns: int, strip: int, gap: int
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Images [B, H, W, C] -> canvas [.., .., C] uint8, and (top, left) of each on it.

    One canvas, because a matplotlib axes per image takes a second for forty.
    """
    if np.issubdtype(images.dtype, np.floating):
        images = np.round(255 * np.clip(images, 0, 1)).astype(np.uint8)
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    shape = (rows * (height + strip), columns * (width + gap), channels)
    canvas = np.full(shape, 255, np.uint8)
    corners = [
        (row * (height + strip) + strip, column * (width + gap))
        for row in range(rows)
        for column in range(columns)
    ][:count]
    for (top, left), image in zip(corners, images, strict=True):
        canvas[top : top + height, left : left + width] = image
    return canvas, corners


def whole(canvas: np.ndarray, *, inches: float) -> Figure:
    """Canvas [H, W, C] uint8 -> a figure so wide that shows nothing else."""
    height, width, channels = canvas.shape
    figure = Figure(figsize=(inches, inches * height / width + 0.3))
    axes = figure.add_axes((0.01, 0.0, 0.98, 1 - 0.3 / figure.get_figheight()))
    axes.axis("off")
    axes.imshow(canvas[..., 0] if channels == 1 else canvas, cmap="gray", vmin=0, vmax=255)
    return figure


def save(drawing: Figure | str, path: Path) -> None:
    """Writes a picture, or a text, whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    if isinstance(drawing, str):
        temporary.write_text(drawing, encoding="utf-8")
    else:
        drawing.savefig(temporary, dpi=120, format="png")
    temporary.replace(path)
