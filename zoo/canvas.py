"""Pictures of any size on a canvas of one size, their boxes moved along: the one place."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.preprocess import Preprocessing, preprocess


class Canvas(NamedTuple):
    """The size (height, width) of the canvas, and how a picture is fitted into it.

    fit: "stretch", the whole picture to the whole canvas, whatever its shape, as YOLO does it; or
        "short", its short side to `short` pixels, or to as many as keep the long one at `long`,
        its shape kept, as Faster R-CNN does it. That lies in the upper left corner.

    >>> Canvas((608, 1024), "short", short=600, long=1000).size
    (608, 1024)
    """

    size: tuple[int, int]
    fit: str = "stretch"
    short: int = 800
    long: int = 1333


def fit_size(size: Sequence[int], canvas: Canvas) -> tuple[int, int]:
    """(height, width) of a picture -> those that it has on the canvas.

    ValueError where it does not fit, and for another `fit`.

    Source: torchvision's GeneralizedRCNNTransform, which rounds down as here.

    >>> fit_size((480, 640), Canvas((800, 1088), "short"))
    (800, 1066)
    """
    height, width = size
    if canvas.fit == "stretch":
        return canvas.size
    if canvas.fit != "short":
        raise ValueError(f"the fit of a canvas is 'stretch' or 'short', got {canvas.fit!r}")
    factor = min(canvas.short / min(size), canvas.long / max(size))
    new = max(1, math.floor(height * factor)), max(1, math.floor(width * factor))
    if new[0] > canvas.size[0] or new[1] > canvas.size[1]:
        raise ValueError(
            f"a picture of {width} x {height} pixels becomes {new[1]} x {new[0]}, more than its "
            f"canvas of {canvas.size[1]} x {canvas.size[0]}: choose a larger size, or less of short "
            "and long"
        )
    return new


def letterbox(
    image: np.ndarray, canvas: Canvas, boxes: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]:
    """Picture [h, w, C], boxes [n, 4] -> image [H, W, C], boxes [n, 4], size [2], scale [2].

    Bilinear, centers of pixels at halves, without antialiasing. The rest of the canvas is 0. Floats
    stay floats of their kind; uint8 is rounded. `size` int32 are height and width of the picture
    on the canvas; `scale` float32, along y and x, takes boxes of the picture (x0, y0, x1, y1,
    float32) to it: new size over old, as torchvision scales them.

    ValueError for another rank or dtype, an empty picture, and one that does not fit.

    Source: torch.nn.functional.interpolate, "bilinear", as torchvision's detectors call it.

    >>> image, boxes, size, scale = letterbox(
    ...     np.uint8([[[0], [200]]]), Canvas((1, 4)), np.array([[0, 0, 1, 1]])
    ... )
    >>> image.ravel().tolist(), boxes.tolist(), scale.tolist()
    ([0, 50, 150, 200], [[0.0, 0.0, 2.0, 1.0]], [1.0, 2.0])
    """
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"expected a picture [h, w, C], got shape {image.shape}")
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"expected a picture of uint8 or floats, got {image.dtype}")
    new = fit_size(image.shape[:2], canvas)
    scale = np.array(new, np.float32) / np.array(image.shape[:2], np.float32)
    if boxes is not None:
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4) * scale[[1, 0, 1, 0]]
    resized = resize_bilinear(image, new)
    if new != tuple(canvas.size):
        whole = np.zeros((*canvas.size, image.shape[2]), image.dtype)
        whole[: new[0], : new[1]] = resized
        resized = whole
    return resized, boxes, np.array(new, np.int32), scale


def resize_bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[h, w, C], (H, W) -> [H, W, C] of its dtype, between the four pixels next to each point.

    >>> resize_bilinear(np.float32([[[0.0], [1.0]]]), (1, 3)).ravel().tolist()
    [0.0, 0.5, 1.0]
    """
    if image.shape[:2] == size:
        return image
    kind = np.float32 if image.dtype == np.uint8 else image.dtype
    resized = image
    # First the axis that leaves less to do.
    for axis in sorted((0, 1), key=lambda axis: size[axis] / image.shape[axis]):
        resized = resize_axis(resized, axis, size[axis], np.dtype(kind))
    if image.dtype == np.uint8:
        return np.rint(resized).astype(np.uint8)
    return resized


def resize_axis(image: np.ndarray, axis: int, size: int, dtype: np.dtype) -> np.ndarray:
    """[h, w, C] -> [h, w, C] of floats of that kind, the axis now `size` long."""
    length = image.shape[axis]
    if length == size:
        return image.astype(dtype, copy=False)
    # In the picture's precision, product and difference in one rounding, as torch has it.
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
    """Canvases [B, H, W, C], sizes [B, 2] of the pictures -> [B, H, W, C] float32, normalized.

    0 outside of the pictures, as torchvision pads after normalizing. Of `preprocessing` mean and
    deviation count. Pure and jit-able; uint8, or floats in [0, 1]. ValueError as in `preprocess`.

    Source: torchvision's GeneralizedRCNNTransform, normalize and batch_images.

    >>> card = Preprocessing(mean=(0.5,), std=(0.5,), size=(2, 2))
    >>> canvas = jnp.zeros((1, 1, 3, 1), jnp.uint8)
    >>> normalize_canvas(canvas, jnp.array([[1, 2]]), card).ravel().tolist()
    [-1.0, -1.0, 0.0]
    """
    whole = preprocess(image, preprocessing._replace(size=tuple(image.shape[1:3]), crop=1.0))
    rows = jnp.arange(image.shape[1])[None, :, None, None]
    columns = jnp.arange(image.shape[2])[None, None, :, None]
    height, width = size[:, 0, None, None, None], size[:, 1, None, None, None]
    return jnp.where((rows < height) & (columns < width), whole, 0.0)


def create_canvas(preprocessing: Preprocessing) -> Canvas:
    """-> the canvas that a detector's preprocessing tells, as a file of weights holds it.

    >>> create_canvas(Preprocessing((0.5,), (0.5,), (800, 1344), sides=(800, 1333))).fit
    'short'
    """
    if preprocessing.sides is None:
        return Canvas(preprocessing.size)
    short, long = preprocessing.sides
    return Canvas(preprocessing.size, "short", short=short, long=long)
