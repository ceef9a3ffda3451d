"""YOLO's grid: which channels of a cell are what, and the boxes that they tell."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from zoo.ops.boxes import from_center_form


class GridOutputs(NamedTuple):
    """`[..., 5 P + K] -> [..., K], [..., P], [..., P, 4]`: the parts of a grid of P boxes a cell.

    `classes` are the K classes' probabilities where there is an object, `confidence` is each box's
    that there is one, times its IoU with it, and `boxes` are its center (x, y), counted in cells
    from the cell's top left corner, and the square roots of its width and height, as parts of the
    image's.

    Source: Redmon et al. 2016, You Only Look Once, section 2; darknet's detection_layer.c, whose
    three parts these are, there one after the other for all cells.

    >>> GridOutputs(jnp.zeros((7, 7, 20)), jnp.zeros((7, 7, 2)), jnp.zeros((7, 7, 2, 4))).boxes.shape
    (7, 7, 2, 4)
    """

    classes: jax.Array
    confidence: jax.Array
    boxes: jax.Array


def split_grid(grid: jax.Array, *, classes: int) -> GridOutputs:
    """`[..., 5 P + K] -> [..., K], [..., P], [..., P, 4]`: a grid taken apart, in this order.

    ValueError where the channels are none of any P.

    Source: see Cells.

    >>> split_grid(jnp.arange(13.0), classes=3).boxes.tolist()
    [[5.0, 6.0, 7.0, 8.0], [9.0, 10.0, 11.0, 12.0]]
    """
    count, rest = divmod(grid.shape[-1] - classes, 5)
    if rest or count < 1 or classes < 1:
        raise ValueError(
            f"a grid of {classes} classes has {classes} + 5 channels for each box of a cell, "
            f"got {grid.shape[-1]}"
        )
    places = grid[..., classes + count :].reshape(*grid.shape[:-1], count, 4)
    return GridOutputs(grid[..., :classes], grid[..., classes : classes + count], places)


def decode_grid_boxes(offsets: jax.Array) -> jax.Array:
    """`[H, W, P, 4] -> [H, W, P, 4]`: places of cells to boxes (x0, y0, x1, y1) in a unit square.

    Source: get_detection_boxes of darknet's detection_layer.c.

    >>> decode_grid_boxes(jnp.array([[[[0.5, 0.5, 0.5, 1.0]], [[0.0, 1.0, 0.0, 0.5]]]])).tolist()
    [[[[0.125, 0.0, 0.375, 1.0]], [[0.5, 0.875, 0.5, 1.125]]]]
    """
    height, width = offsets.shape[:2]
    column = jnp.arange(width, dtype=offsets.dtype).reshape(1, width, 1)
    row = jnp.arange(height, dtype=offsets.dtype).reshape(height, 1, 1)
    x = (offsets[..., 0] + column) / width
    y = (offsets[..., 1] + row) / height
    sides = jnp.square(offsets[..., 2:])
    return from_center_form(jnp.concatenate([x[..., None], y[..., None], sides], -1))
