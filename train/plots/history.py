"""Figures of the metrics of a run over its epochs."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

COLORS = {"train": "tab:blue", "val": "tab:orange", "test": "tab:green"}
FIGURE_COLUMNS = 4  # panels in a row


def plot_curves(rows: Sequence[Mapping[str, float]], *, best: int | None = None) -> Figure:
    """Plots one panel per metric over the epochs, with a curve for each source.

    Args:
        rows: rows of metrics.jsonl.
        best: step of the exported snapshot, which is marked.

    Returns:
        The figure.
    """
    named = sorted(
        {name for row in rows for name in row if "/" in name and not name.startswith("time/")}
    )
    metrics = list(dict.fromkeys(name.split("/", 1)[1] for name in named))
    metrics.sort(key=lambda metric: (metric != "loss", metric != "accuracy", metric))
    lines, columns = -(-len(metrics) // FIGURE_COLUMNS), min(len(metrics), FIGURE_COLUMNS)
    figure = Figure(figsize=(5.5 * columns, 4 * lines), layout="constrained")
    panels = np.ravel(figure.subplots(lines, columns))
    for empty in panels[len(metrics) :]:
        empty.remove()
    for axes, metric in zip(panels[: len(metrics)], metrics, strict=True):
        for name in (name for name in named if name.split("/", 1)[1] == metric):
            source = name.split("/", 1)[0]
            points = [(row["epoch"], row[name]) for row in rows if name in row]
            axes.plot(
                *zip(*points, strict=True),
                label=f"{source} {points[-1][1]:.4g}",
                color=COLORS.get(source),
                marker="o" if len(points) < 3 else None,
            )
        kept = next((row["epoch"] for row in rows if row["step"] == best), None)
        if kept is not None:
            axes.axvline(kept, color="gray", linestyle=":", label=f"kept: epoch {kept:g}")
        axes.set(xlabel="epoch", title=metric)
        axes.grid(alpha=0.3)
        if metric in ("loss", "gradient_norm") and axes.get_ylim()[0] > 0:
            axes.set_yscale("log")
        axes.legend()
    return figure
