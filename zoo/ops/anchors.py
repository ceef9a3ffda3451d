"""Anchors: the boxes that proposals start from, and that truth is matched to."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def paper_anchors(
    *,
    base: float = 16,
    ratios: Sequence[float] = (0.5, 1.0, 2.0),
    scales: Sequence[float] = (8.0, 16.0, 32.0),
    first: float = 1,
) -> np.ndarray:
    """`-> [9, 4]`: the nine of Faster R-CNN at the first cell of the map, ratios slowest.

    The last pixel counts in (`pixel_offset` = 1 of zoo.ops.boxes), and the sides of the `base` are rounded
    before they are scaled: ratios of height to width are near to, not equal to those asked for.
    Their center is that of the base's pixels, of which the `first` has the number 1, as published;
    where pixels count from 0, as in these boxes, `first` = 0 is the same place, one less in all.

    Source: Ren et al. 2015, Faster R-CNN, 3.1.1; the nine numbers stand in generate_anchors.py of
    py-faster-rcnn, out of MATLAB, while that file itself computes those of `first` = 0.

    >>> paper_anchors()[0].tolist()
    [-83.0, -39.0, 100.0, 56.0]
    """
    ratio, scale = (np.asarray(each, np.float64) for each in (ratios, scales))
    width = np.round(np.sqrt(base * base / ratio))
    height = np.round(width * ratio)
    sides = np.stack([width, height], -1)[:, None] * scale[None, :, None]
    half = (sides.reshape(-1, 2) - 1) / 2
    center = first + (base - 1) / 2
    return np.concatenate([center - half, center + half], -1).astype(np.float32)


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> np.ndarray:
    """`(S sizes, R ratios) -> [R S, 4]` around 0, ratios slowest, corners at whole pixels.

    A size is the root of the area, a ratio height by width.

    Source: torchvision's AnchorGenerator.generate_anchors.

    >>> cell_anchors([32], [0.5, 1.0]).tolist()
    [[-23.0, -11.0, 23.0, 11.0], [-16.0, -16.0, 16.0, 16.0]]
    """
    size, ratio = np.asarray(sizes, np.float32), np.asarray(ratios, np.float32)
    tall = np.sqrt(ratio)  # all in float32, as torch rounds it
    height = (tall[:, None] * size[None]).reshape(-1)
    width = ((np.float32(1) / tall)[:, None] * size[None]).reshape(-1)
    return np.round(np.stack([-width, -height, width, height], 1) / np.float32(2))


def grid_anchors(
    cell: np.ndarray | jax.Array, shape: tuple[int, int], stride: tuple[int, int]
) -> jax.Array:
    """`[A, 4], (h, w), (y, x) -> [h w A, 4]`: the cell's anchors at every place of a map.

    Places by rows, at each all of the cell's, which is the order of a head's output [h, w, A, ...].

    Source: torchvision's AnchorGenerator.grid_anchors.

    >>> grid_anchors(np.array([[-1.0, -1.0, 1.0, 1.0]], np.float32), (1, 2), (8, 8)).tolist()
    [[-1.0, -1.0, 1.0, 1.0], [7.0, -1.0, 9.0, 1.0]]
    """
    cell = jnp.asarray(cell)
    down, along = (
        jnp.arange(count).astype(cell.dtype) * step
        for count, step in zip(shape, stride, strict=True)
    )
    y, x = jnp.broadcast_to(down[:, None], shape), jnp.broadcast_to(along[None], shape)
    shifts = jnp.stack([x, y, x, y], -1)
    return (shifts[:, :, None] + cell[None, None]).reshape(-1, 4)
