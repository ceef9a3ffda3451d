"""Pictures of a run, drawn without a display."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

COLOURS = {"train": "tab:blue", "val": "tab:orange", "test": "tab:green"}


def curves(rows: Sequence[Mapping[str, float]], *, best: int | None = None) -> Figure:
    """Rows of metrics.jsonl -> one panel per metric over epochs, every source in it.

    `best`: the step of the kept snapshot, marked.
    """
    named = sorted(
        {name for row in rows for name in row if "/" in name and "per_second" not in name}
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


def pictures(
    images: np.ndarray, titles: Sequence[str], *, wrong: Sequence[bool], columns: int = 10
) -> Figure:
    """Images [B, H, W, C] (uint8, or floats in [0, 1]) -> a grid, the wrong ones titled in red."""
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.1 * columns, 1.35 * rows), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, image, title, bad in zip(figure.axes, images, titles, wrong, strict=False):
        axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray")
        axes.set_title(title, fontsize=8, color="red" if bad else "black")
    return figure


def triptychs(rows: Mapping[str, np.ndarray]) -> Figure:
    """{"input": [B, H, W, C], "reconstruction": ...} -> one row of pictures per name."""
    columns = len(next(iter(rows.values())))
    figure = Figure(figsize=(1.1 * columns, 1.2 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, images) in zip(grid, rows.items(), strict=True):
        for axes, image in zip(line, images, strict=True):
            axes.imshow(image.squeeze(-1), cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes the picture whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, dpi=120, format="png")
    temporary.replace(path)
