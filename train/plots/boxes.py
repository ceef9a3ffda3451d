"""Figures of images with boxes, and of precision over recall."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from train.plots.confused import shorten_name
from train.plots.grids import figure_of_canvas, tile_images
from train.plots.scenes import TILE_SIDE, downsample_mean, to_displayable

FIGURE_COLUMNS = 2  # images in a row, each of two tiles
INCHES = 2.9  # width of a tile
MAX_NAMED = 20  # classes up to which every curve has a color and a name
BRIGHT_LUMA = 140  # of 255, from which on words are black


class Frame(NamedTuple):
    """A box with a label.

    Attributes:
        box: box (x0, y0, x1, y1) in pixels.
        words: the label.
        color: color of three values up to 255.
        dashed: draw a dashed line.
    """

    box: Sequence[float]
    words: str
    color: Sequence[int]
    dashed: bool


def plot_boxes(
    images: np.ndarray,
    truth: Sequence[Sequence[Frame]],
    predicted: Sequence[Sequence[Frame]],
    titles: Sequence[str],
    *,
    note: str,
) -> Figure:
    """Plots each image twice, with the ground truth at the left and the predictions at the right.

    Args:
        images: images [B, H, W, C] uint8, or floats in [0, 1].
        truth: boxes of the ground truth of each image.
        predicted: predicted boxes of each image.
        titles: title of each image.
        note: text at the top.

    Returns:
        The figure.
    """
    step = max(1, -(-max(images.shape[1:3]) // TILE_SIDE))
    small = downsample_mean(np.stack([to_displayable(image) for image in images]), step)
    height, width = small.shape[1:3]
    strip, gap = round(0.2 * width / INCHES) + 1, round(0.03 * width) + 1
    pairs = small.repeat(2, axis=0)
    canvas, corners = tile_images(pairs, columns=2 * FIGURE_COLUMNS, strip=strip, gap=gap)
    figure = figure_of_canvas(canvas, inches=INCHES * 2 * FIGURE_COLUMNS)
    axes = figure.axes[0]
    sides = [frames for pair in zip(truth, predicted, strict=True) for frames in pair]
    for corner, frames in zip(corners, sides, strict=True):
        for frame in frames:
            draw_frame(axes, frame, corner, (height, width), step)
    for (top, left), title in zip(corners[::2], titles, strict=True):
        axes.text(left, top - 0.2 * strip, title, fontsize=8, va="bottom")
    figure.text(0.01, 1 - 0.06 / figure.get_figheight(), note, fontsize=9, va="top")
    return figure


def draw_frame(
    axes: Axes, frame: Frame, corner: tuple[int, int], size: tuple[int, int], step: int
) -> None:
    """Draws a box on a tile and clips it to the tile."""
    (top, left), (height, width) = corner, size
    limits = np.array([width, height, width, height])
    x0, y0, x1, y1 = (np.clip(np.asarray(frame.box) / step, 0, limits) - 0.5).tolist()
    color = [channel / 255 for channel in frame.color]
    style: dict[str, Any] = dict(linewidth=1.3, linestyle="--" if frame.dashed else "-")
    place = (left + x0, top + y0)
    axes.add_patch(Rectangle(place, x1 - x0, y1 - y0, fill=False, edgecolor=color, **style))
    right = x0 + x1 > width  # the label then ends at the right edge of the box
    axes.text(
        left + (x1 if right else x0),
        top + y0,
        frame.words,
        fontsize=5,
        color="black" if np.mean(frame.color) > BRIGHT_LUMA else "white",
        ha="right" if right else "left",
        va="bottom" if y0 > 0.06 * height else "top",
        bbox=dict(facecolor=color, edgecolor="none", pad=0.6),
    )


def plot_precision_recall(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], figures: Sequence[float], *, title: str
) -> Figure:
    """Plots one precision-recall curve for each class.

    Up to twenty classes have a color and a name; more classes are gray.

    Args:
        curves: recall [D] and precision [D] by class.
        figures: average precision of each class.
        title: title of the figure.

    Returns:
        The figure.
    """
    many = len(curves) > MAX_NAMED
    figure = Figure(figsize=(7.5 if many else 9.5, 6), layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(color=colormaps["tab20"](range(MAX_NAMED)))
    for (name, (recall, precision)), share in zip(curves.items(), figures, strict=True):
        kind: dict[str, Any] = dict(color="gray", alpha=0.4, linewidth=0.8) if many else {}
        axes.plot(recall, precision, label=f"{shorten_name(name)} {share:.3f}", **kind)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title=title)
    axes.grid(alpha=0.3)
    if curves and not many:
        figure.legend(loc="outside right upper", fontsize=9, title="average precision")
    return figure
