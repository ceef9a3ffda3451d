"""Figures of many small images."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure


def plot_images(
    images: np.ndarray, titles: Sequence[str], *, wrong: Sequence[bool], columns: int = 10
) -> Figure:
    """Plots a grid of images with titles.

    Args:
        images: images [B, H, W, C] uint8, or floats in [0, 1].
        titles: title of each image.
        wrong: whether the prediction is wrong, which makes the title red.
        columns: number of columns.

    Returns:
        The figure.
    """
    height, width, _ = images.shape[1:]
    strip, gap = round(0.3 * height) + 1, round(0.05 * width) + 1  # for two lines of title
    canvas, corners = tile_images(images, columns=columns, strip=strip, gap=gap)
    figure = figure_of_canvas(canvas, inches=1.1 * columns)
    for (top, left), title, bad in zip(corners, titles, wrong, strict=True):
        place = (left + width / 2, top - 0.02 * height)
        color = "red" if bad else "black"
        figure.axes[0].text(*place, title, fontsize=8, color=color, ha="center", va="bottom")
    return figure


def plot_strips(rows: Mapping[str, np.ndarray]) -> Figure:
    """Plots one row of images [B, H, W, C] for each name."""
    columns, height, width, _ = next(iter(rows.values())).shape
    strip, gap = round(0.2 * height) + 1, round(0.05 * width) + 1
    images = np.concatenate(list(rows.values()))
    canvas, corners = tile_images(images, columns=columns, strip=strip, gap=gap)
    figure = figure_of_canvas(canvas, inches=1.1 * columns)
    for (top, left), name in zip(corners[::columns], rows, strict=True):
        figure.axes[0].text(left, top - 0.02 * height, name, fontsize=9, va="bottom")
    return figure


def tile_images(
    images: np.ndarray, *, columns: int, strip: int, gap: int
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Places images [B, H, W, C] on one canvas, since matplotlib takes a second for forty axes.

    Returns:
        The canvas [..., ..., C] uint8, and (top, left) of each image.
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


def figure_of_canvas(canvas: np.ndarray, *, inches: float) -> Figure:
    """Creates a figure that shows a canvas [H, W, C] uint8 only."""
    height, width, channels = canvas.shape
    figure = Figure(figsize=(inches, inches * height / width + 0.3))
    axes = figure.add_axes((0.01, 0.0, 0.98, 1 - 0.3 / figure.get_figheight()))
    axes.axis("off")
    axes.imshow(canvas[..., 0] if channels == 1 else canvas, cmap="gray", vmin=0, vmax=255)
    return figure
