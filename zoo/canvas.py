"""Resizes and pads (letterboxes) images and their boxes to a fixed size."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.preprocess import Preprocessing, preprocess


class Canvas(NamedTuple):
    """A fixed image size, and how images are fitted into it.

    Attributes:
        size: height and width of the canvas in pixels.
        fit: "stretch" resizes to the canvas and ignores the aspect ratio, as YOLO does. "short"
            resizes the short side to `short` pixels, or less so that the long side does not exceed
            `long`, keeps the aspect ratio and pads at the right and bottom, as Faster R-CNN does.
        short: target of the short side.
        long: limit of the long side.

    >>> Canvas((608, 1024), "short", short=600, long=1000).size
    (608, 1024)
    """

    size: tuple[int, int]
    fit: str = "stretch"
    short: int = 800
    long: int = 1333


def fit_size(size: Sequence[int], canvas: Canvas) -> tuple[int, int]:
    """Returns the size that an image has on a canvas.

    Args:
        size: height and width of the image.
        canvas: the canvas.

    Returns:
        Height and width on the canvas.

    Raises:
        ValueError: if the image does not fit or `fit` is unknown.

    Source: torchvision's GeneralizedRCNNTransform, which also rounds down.

    >>> fit_size((480, 640), Canvas((800, 1088), "short"))
    (800, 1066)
    """
    height, width = size
    if canvas.fit == "stretch":
        return canvas.size
    if canvas.fit != "short":
        raise ValueError(f"expected fit 'stretch' or 'short', got {canvas.fit!r}")
    factor = min(canvas.short / min(size), canvas.long / max(size))
    new = max(1, math.floor(height * factor)), max(1, math.floor(width * factor))
    if new[0] > canvas.size[0] or new[1] > canvas.size[1]:
        raise ValueError(
            f"expected a canvas of at least {new[1]} x {new[0]} for an image of {width} x {height} "
            f"pixels, got {canvas.size[1]} x {canvas.size[0]}; use a larger size, or reduce short "
            "and long"
        )
    return new


def letterbox(
    image: np.ndarray, canvas: Canvas, boxes: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]:
    """Resizes an image to its size on the canvas, pads with 0 and scales its boxes.

    The interpolation is bilinear without antialiasing, with pixel centers at halves. Floating-point
    images keep their dtype; uint8 is rounded.

    Args:
        image: image [h, w, C] of uint8 or floats.
        canvas: the canvas.
        boxes: boxes (x0, y0, x1, y1) in pixels [n, 4].

    Returns:
        The padded image [H, W, C], the scaled boxes [n, 4] float32 or None, the size of the image
        on the canvas [2] int32, and the scale along y and x [2] float32.

    Raises:
        ValueError: if rank or dtype is wrong, the image is empty, or it does not fit.

    Source: torch.nn.functional.interpolate, "bilinear", as torchvision's detectors call it.

    >>> image, boxes, size, scale = letterbox(
    ...     np.uint8([[[0], [200]]]), Canvas((1, 4)), np.array([[0, 0, 1, 1]])
    ... )
    >>> image.ravel().tolist(), boxes.tolist(), scale.tolist()
    ([0, 50, 150, 200], [[0.0, 0.0, 2.0, 1.0]], [1.0, 2.0])
    """
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"expected an image [h, w, C], got shape {image.shape}")
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"expected an image of uint8 or floats, got {image.dtype}")
    new = fit_size(image.shape[:2], canvas)
    scale = np.array(new, np.float32) / np.array(image.shape[:2], np.float32)
    if boxes is not None:
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4) * scale[[1, 0, 1, 0]]
    resized = resize_bilinear(image, new)
    if new != tuple(canvas.size):
        padded = np.zeros((*canvas.size, image.shape[2]), image.dtype)
        padded[: new[0], : new[1]] = resized
        resized = padded
    return resized, boxes, np.array(new, np.int32), scale


def resize_bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes an image by interpolation between the four nearest pixels.

    Args:
        image: image [h, w, C].
        size: target size (H, W).

    Returns:
        Image [H, W, C] of the same dtype.

    >>> resize_bilinear(np.float32([[[0.0], [1.0]]]), (1, 3)).ravel().tolist()
    [0.0, 0.5, 1.0]
    """
    if image.shape[:2] == size:
        return image
    kind = np.float32 if image.dtype == np.uint8 else image.dtype
    resized = image
    # Resize the axis first that reduces the work of the other one.
    for axis in sorted((0, 1), key=lambda axis: size[axis] / image.shape[axis]):
        resized = resize_axis(resized, axis, size[axis], np.dtype(kind))
    if image.dtype == np.uint8:
        return np.rint(resized).astype(np.uint8)
    return resized


def resize_axis(image: np.ndarray, axis: int, size: int, dtype: np.dtype) -> np.ndarray:
    """Resizes one axis of an image in the given floating-point dtype."""
    length = image.shape[axis]
    if length == size:
        return image.astype(dtype, copy=False)
    # In the image's precision, with one rounding of product and difference, as in torch.
    step = np.float64(dtype.type(length) / dtype.type(size))
    point = np.maximum(((np.arange(size) + 0.5) * step - 0.5).astype(dtype), 0)
    before = np.minimum(point.astype(np.int64), length - 1)
    after = np.minimum(before + 1, length - 1)
    share = (point - before.astype(dtype)).reshape(-1, *[1] * (2 - axis))
    first = image.take(before, axis).astype(dtype, copy=False)
    second = image.take(after, axis).astype(dtype, copy=False)
    second -= first
    second *= share
    second += first
    return second


def normalize_canvas(image: jax.Array, size: jax.Array, preprocessing: Preprocessing) -> jax.Array:
    """Normalizes padded images; the padding becomes 0, as in torchvision.

    Args:
        image: padded images [B, H, W, C] of uint8, or floats in [0, 1].
        size: size of each image on the canvas [B, 2].
        preprocessing: its mean and standard deviation are used.

    Returns:
        Normalized images [B, H, W, C] float32.

    Raises:
        ValueError: as in `zoo.preprocess.preprocess`.

    Source: torchvision's GeneralizedRCNNTransform, normalize and batch_images.

    >>> card = Preprocessing(mean=(0.5,), std=(0.5,), size=(2, 2))
    >>> canvas = jnp.zeros((1, 1, 3, 1), jnp.uint8)
    >>> normalize_canvas(canvas, jnp.array([[1, 2]]), card).ravel().tolist()
    [-1.0, -1.0, 0.0]
    """
    normalized = preprocess(image, preprocessing._replace(size=tuple(image.shape[1:3]), crop=1.0))
    rows = jnp.arange(image.shape[1])[None, :, None, None]
    columns = jnp.arange(image.shape[2])[None, None, :, None]
    height, width = size[:, 0, None, None, None], size[:, 1, None, None, None]
    return jnp.where((rows < height) & (columns < width), normalized, 0.0)


def create_canvas(preprocessing: Preprocessing) -> Canvas:
    """Returns the canvas of a detector's preprocessing.

    Args:
        preprocessing: the preprocessing; `sides` is (short, long).

    Returns:
        The canvas.

    >>> create_canvas(Preprocessing((0.5,), (0.5,), (800, 1344), sides=(800, 1333))).fit
    'short'
    """
    if preprocessing.sides is None:
        return Canvas(preprocessing.size)
    short, long = preprocessing.sides
    return Canvas(preprocessing.size, "short", short=short, long=long)
