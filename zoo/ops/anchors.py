"""Anchor boxes: the reference boxes of region proposals."""

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
    """Returns the nine anchors of Faster R-CNN (2015) for the first cell of a feature map.

    The sides of the base box are rounded before they are scaled, so the aspect ratios are close to
    the requested ones, not equal. Widths follow the inclusive convention (`pixel_offset=1` in
    `zoo.ops.boxes`).

    Args:
        base: side of the base box in pixels, the stride of the feature map.
        ratios: aspect ratios, height / width.
        scales: factors on the base box.
        first: index of the first pixel. The published anchors use 1; boxes that count pixels from 0
            use 0, which shifts every coordinate by one.

    Returns:
        Anchors (x0, y0, x1, y1) [R * S, 4] float32; the ratio varies slowest.

    Source: Ren et al. 2015, Faster R-CNN, 3.1.1; generate_anchors.py of py-faster-rcnn lists the
    nine anchors of MATLAB (`first=1`) and computes the ones of `first=0`.

    >>> paper_anchors()[0].tolist()
    [-83.0, -39.0, 100.0, 56.0]
    """
    ratio, scale = (np.asarray(values, np.float64) for values in (ratios, scales))
    width = np.round(np.sqrt(base * base / ratio))
    height = np.round(width * ratio)
    sides = np.stack([width, height], -1)[:, None] * scale[None, :, None]
    half = (sides.reshape(-1, 2) - 1) / 2
    center = first + (base - 1) / 2
    return np.concatenate([center - half, center + half], -1).astype(np.float32)


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> np.ndarray:
    """Returns anchors centered at 0 for all sizes and aspect ratios.

    Args:
        sizes: S square roots of the anchor area, in pixels.
        ratios: R aspect ratios, height / width.

    Returns:
        Anchors (x0, y0, x1, y1) [R * S, 4] float32, rounded to whole pixels; the ratio varies
        slowest.

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
    """Shifts the anchors of one cell to every cell of a feature map.

    Args:
        cell: anchors of one cell [A, 4].
        shape: height and width (h, w) of the feature map.
        stride: distance of the cells (y, x) in pixels.

    Returns:
        Anchors [h * w * A, 4]: row by row, all A anchors of a cell together, which is the order of
        a head output [h, w, A, ...].

    Source: torchvision's AnchorGenerator.grid_anchors.

    >>> grid_anchors(np.array([[-1.0, -1.0, 1.0, 1.0]], np.float32), (1, 2), (8, 8)).tolist()
    [[-1.0, -1.0, 1.0, 1.0], [7.0, -1.0, 9.0, 1.0]]
    """
    cell = jnp.asarray(cell)
    row_offsets, column_offsets = (
        jnp.arange(count).astype(cell.dtype) * step
        for count, step in zip(shape, stride, strict=True)
    )
    y = jnp.broadcast_to(row_offsets[:, None], shape)
    x = jnp.broadcast_to(column_offsets[None], shape)
    shifts = jnp.stack([x, y, x, y], -1)
    return (shifts[:, :, None] + cell[None, None]).reshape(-1, 4)
