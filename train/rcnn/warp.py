"""A region of a picture, whatever its shape, as the image of one size that a classifier takes."""

from collections.abc import Sequence

import numpy as np


def warp_region(
    image: np.ndarray,
    box: np.ndarray | Sequence[float],
    *,
    size: int = 227,
    context: int = 16,
    fill: Sequence[int],
) -> np.ndarray:
    """Picture [h, w, C] uint8, box [4] -> [size, size, C]: the box, stretched, with its surroundings.

    `context` pixels of the result on every side show what is around the box; beyond the picture
    they are `fill` [C], the mean that the CNN subtracts. Bilinear, without antialiasing.

    Source: Girshick et al. 2014, R-CNN, appendix A, figure 7 column (d); rcnn_im_crop.m of the
    authors' code, whose window lies half a pixel further to the right and below.

    >>> warp_region(np.full((8, 8, 1), 9, np.uint8), (0, 2, 4, 6), size=6, context=1, fill=[0])[..., 0]
    array([[0, 9, 9, 9, 9, 9],
           [0, 9, 9, 9, 9, 9],
           [0, 9, 9, 9, 9, 9],
           [0, 9, 9, 9, 9, 9],
           [0, 9, 9, 9, 9, 9],
           [0, 9, 9, 9, 9, 9]], dtype=uint8)
    """
    import cv2  # of all recipes this one alone needs it

    height, width, channels = image.shape
    edges = np.asarray(box, np.float64).reshape(2, 2)
    half = (edges[1] - edges[0]) / 2 * size / (size - 2 * context)
    middle = edges.mean(0)
    first, last = np.rint(middle - half).astype(int), np.rint(middle + half).astype(int)
    last = np.maximum(last, first + 1)
    first = np.minimum(first, [width - 1, height - 1])
    last = np.maximum(last, 1)
    inside, end = np.maximum(first, 0), np.minimum(last, [width, height])
    scale = size / (last - first)
    before = np.minimum(np.rint((inside - first) * scale).astype(int), size - 1)
    after = np.clip(before + np.rint((end - inside) * scale).astype(int), before + 1, size)
    part = image[inside[1] : end[1], inside[0] : end[0]]
    resized = cv2.resize(part, tuple((after - before).tolist()), interpolation=cv2.INTER_LINEAR)
    whole = np.empty((size, size, channels), np.uint8)
    whole[:] = fill
    window = (slice(before[1], after[1]), slice(before[0], after[0]))
    whole[window] = resized.reshape(*(after - before)[::-1], channels)
    return whole


def mean_color(mean: Sequence[float]) -> list[int]:
    """The mean [C] of a preprocessing, of pixels in [0, 1], as a color [C] of uint8.

    >>> mean_color((0.485, 0.5))
    [124, 128]
    """
    return [round(255 * channel) for channel in mean]
