"""Figures of clips as strips of frames."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from train.plots.grids import figure_of_canvas, tile_images

FRAMES = 8  # frames per clip


def plot_clips(videos: np.ndarray, titles: Sequence[str], *, wrong: Sequence[bool]) -> Figure:
    """Plots a strip of at most eight evenly spaced frames of each clip.

    Args:
        videos: clips [B, T, H, W, C] uint8, or floats in [0, 1].
        titles: title of each clip.
        wrong: whether the prediction is wrong, which makes the title red.

    Returns:
        The figure.
    """
    time, height, width = videos.shape[1:4]
    shown = np.linspace(0, time - 1, min(FRAMES, time)).round().astype(int)
    images = videos[:, shown].reshape(-1, *videos.shape[2:])
    strip, gap = round(0.25 * height) + 1, round(0.03 * width) + 1
    canvas, corners = tile_images(images, columns=len(shown), strip=strip, gap=gap)
    figure = figure_of_canvas(canvas, inches=max(4.0, 1.1 * len(shown)))
    for (top, left), title, bad in zip(corners[:: len(shown)], titles, wrong, strict=True):
        color = "red" if bad else "black"
        place = (left, top - 0.02 * height)
        figure.axes[0].text(*place, title, fontsize=8, color=color, va="bottom")
    return figure
