"""Figures of confusion matrices."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

MAX_NUMBERED = 20  # classes up to which a map of confusions carries its counts
MAX_NAME_LENGTH = 10_000  # counts from which on a share is what fits into a cell
MAX_NAMED = 120  # classes up to which it names every one


def plot_confusion(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Plots a confusion matrix, with colors normalized by row.

    Up to twenty classes, cells contain counts, or shares for pixels. Above, the most frequent
    confusions are listed at the side. Above 120 classes, only every n-th class has a name.

    Args:
        counts: confusion matrix [K, K] with a row per true class.
        classes: class names.

    Returns:
        The figure.
    """
    total, hits = counts.sum(), np.trace(counts)
    many = len(classes) > MAX_NUMBERED
    side = max(5.0, min(16.0, (0.17 if many else 0.5) * len(classes) + 2))
    figure = Figure(figsize=(side + (4.5 if many else 1), side), layout="constrained")
    if many:
        axes, beside = figure.subplots(1, 2, width_ratios=(side, 4.5))
        list_confused_pairs(beside, counts, classes, lines=min(60, int(6 * side) - 4))
    else:
        axes = figure.subplots()
    with np.errstate(invalid="ignore"):
        share = counts / counts.sum(1, keepdims=True)
    norm = PowerNorm(0.5, vmin=0, vmax=1)  # the square root makes one in a hundred visible
    drawn = axes.imshow(np.where(np.isnan(share), 0, share), cmap="Blues", norm=norm)
    figure.colorbar(drawn, ax=axes, shrink=0.6, label="share of the true class")
    every = -(-len(classes) // MAX_NAMED)
    ticks = range(0, len(classes), every)
    names = [shorten_name(classes[tick]) for tick in ticks]
    size = 6 if many else 9
    axes.set_xticks(ticks, names, rotation=90, fontsize=size)
    axes.set_yticks(ticks, names, fontsize=size)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"{hits} of {total} right" + (f", {100 * hits / total:.2f} %" if total else ""))
    if not many:
        for row, column in np.argwhere(counts > 0):
            color = "white" if share[row, column] > 0.4 else "black"
            number = str(counts[row, column])
            if counts.max() >= MAX_NAME_LENGTH:
                number = f"{100 * share[row, column]:.1f}%"
            axes.text(column, row, number, ha="center", va="center", fontsize=8, color=color)
    return figure


def list_confused_pairs(
    axes: Axes, counts: np.ndarray, classes: Sequence[str], *, lines: int
) -> None:
    """Lists the most frequent confusions with their count and their share of the true class."""
    wrong = counts * (1 - np.eye(len(classes), dtype=counts.dtype))
    order = np.argsort(-wrong, axis=None, stable=True)[:lines]
    rows = [divmod(int(cell), len(classes)) for cell in order]
    names = [shorten_name(name) for name in classes]
    said = [
        f"{wrong[t, p]:5d}  {100 * wrong[t, p] / counts[t].sum():3.0f} %  {names[t]} as {names[p]}"
        for t, p in rows
        if wrong[t, p]
    ]
    axes.axis("off")
    text = "\n".join(["most often confused (share of the true class)", "", *(said or ["nothing"])])
    axes.text(0, 1, text, fontsize=8, family="monospace", va="top", transform=axes.transAxes)


def shorten_name(name: str, *, length: int = 18) -> str:
    """Shortens a class name for a tick label.

    >>> shorten_name("Chesapeake Bay retriever")
    'Chesapeake Bay re…'
    """
    return name if len(name) <= length else f"{name[: length - 1]}…"
