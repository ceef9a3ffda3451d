"""Figures of images and their masks."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from train.plots.grids import figure_of_canvas, tile_images

COLUMNS = ("image", "truth", "prediction", "error")
TILE_SIDE = 384  # pixels of a tile, about: larger images are averaged down to it
INCHES = 2.6  # width of a tile
IGNORE_LABEL = (224, 224, 192)  # as in Pascal VOC's masks
ERROR_COLOR = (230, 30, 30)
MAX_LISTED = 40  # classes in the legend


def plot_masks(
    images: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    titles: Sequence[str],
    *,
    classes: Sequence[str],
    palette: np.ndarray,
) -> Figure:
    """Plots image, ground truth, prediction and errors of each example.

    Wrong pixels are red, and ignored pixels of the ground truth are pale. A legend names the
    classes in the figure.

    Args:
        images: images [B, H, W, C] uint8, or floats in [0, 1].
        truth: ground truth [B, H, W].
        predicted: predictions [B, H, W].
        titles: title of each example.
        classes: class names.
        palette: colors [K, 3] uint8.

    Returns:
        The figure.
    """
    images = np.stack([to_displayable(image) for image in images])
    step = max(1, -(-max(truth.shape[1:]) // TILE_SIDE))
    images, truth, predicted = (
        downsample_mean(images, step),
        downsample_nearest(truth, step),
        downsample_nearest(predicted, step),
    )
    present = np.union1d(np.unique(truth), np.unique(predicted))
    present = present[present < len(classes)]
    rows = np.stack(
        [
            images,
            colorize_mask(truth, palette),
            colorize_mask(predicted, palette),
            error_map(images, truth, predicted),
        ],
        axis=1,
    )
    _, _, height, width, _ = rows.shape
    strip, gap = round(0.28 * width / INCHES) + 1, round(0.03 * width) + 1
    canvas, corners = tile_images(
        rows.reshape(-1, height, width, 3), columns=len(COLUMNS), strip=strip, gap=gap
    )
    figure = figure_of_canvas(canvas, inches=INCHES * len(COLUMNS))
    axes = figure.axes[0]
    for (top, left), title in zip(corners[:: len(COLUMNS)], titles, strict=True):
        axes.text(left, top - 0.15 * strip, title, fontsize=9, va="bottom")
    for (_, left), name in zip(corners, COLUMNS, strict=False):
        place = (left + width / 2, -0.02 * strip)
        axes.text(*place, name, fontsize=10, weight="bold", ha="center", va="bottom")
    draw_legend(figure, present, classes, palette, is_faded=bool((truth >= len(classes)).any()))
    return figure


def to_displayable(image: np.ndarray) -> np.ndarray:
    """Converts an image [H, W, C] to [H, W, 3] uint8; the mean if C is neither 1 nor 3."""
    if np.issubdtype(image.dtype, np.floating):
        image = np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
    if image.shape[-1] != 3:
        image = image.mean(-1, keepdims=True).astype(np.uint8)
    return np.broadcast_to(image, (*image.shape[:2], 3))


def downsample_mean(images: np.ndarray, step: int) -> np.ndarray:
    """Averages blocks of step x step pixels of images [B, H, W, 3] uint8."""
    if step == 1:
        return images
    more = [(0, 0), *[(0, -side % step) for side in images.shape[1:3]], (0, 0)]
    images = np.pad(images, more, mode="edge")
    count, height, width, channels = images.shape
    blocks = images.reshape(count, height // step, step, width // step, step, channels)
    return blocks.mean((2, 4)).astype(np.uint8)


def downsample_nearest(masks: np.ndarray, step: int) -> np.ndarray:
    """Returns every step-th row and column of masks [B, H, W]."""
    return masks[:, ::step, ::step]


def colorize_mask(masks: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Colors masks [B, H, W] with a palette [K, 3]; values that are no class are pale.

    >>> colorize_mask(np.array([[[0, 255]]]), np.array([[0, 0, 9]])).tolist()
    [[[[0, 0, 9], [224, 224, 192]]]]
    """
    colors = np.concatenate([palette, [IGNORE_LABEL]]).astype(np.uint8)
    return colors[np.minimum(masks, len(palette))]


def error_map(images: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Returns pale images [B, H, W, 3] with wrong pixels in red."""
    pale = (255 - (255 - images.mean(-1, keepdims=True)) * 0.6).astype(np.uint8)
    wrong = (truth != predicted) & (truth != 255)
    return np.where(wrong[..., None], np.array(ERROR_COLOR, np.uint8), pale)


def draw_legend(
    figure: Figure,
    present: np.ndarray,
    classes: Sequence[str],
    palette: np.ndarray,
    *,
    is_faded: bool,
) -> None:
    """Draws a legend of classes below the images."""
    names = {classes[number]: palette[number] for number in present[:MAX_LISTED]}
    if len(present) > MAX_LISTED:
        names[f"and {len(present) - MAX_LISTED} more"] = np.full(3, 255)
    names |= {"wrong": ERROR_COLOR} | ({"ignored": IGNORE_LABEL} if is_faded else {})
    patches = []
    for name, color in names.items():
        red, green, blue = (float(value) / 255 for value in color)
        patches.append(Patch(facecolor=(red, green, blue), edgecolor="gray", label=name))
    columns = min(len(patches), 6)
    lines = -(-len(patches) // columns)
    width, height = figure.get_size_inches()
    room = 0.22 * lines + 0.15
    figure.set_size_inches(width, height + room)
    axes = figure.axes[0]
    axes.set_position((0.01, room / (height + room), 0.98, (height - 0.5) / (height + room)))
    figure.legend(handles=patches, loc="lower center", ncols=columns, fontsize=9, frameon=False)
