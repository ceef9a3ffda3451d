"""The output grid of YOLO: its channels, and the boxes that it encodes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from zoo.ops.boxes import from_center_form


class GridOutputs(NamedTuple):
    """The channels of a grid with P boxes per cell and K classes.

    Attributes:
        classes: class probabilities given an object [..., K].
        confidence: probability of an object times the IoU of the box [..., P].
        boxes: box center (x, y) in cells from the top left corner of the cell, and the square roots
            of width and height as fractions of the image [..., P, 4].

    Source: Redmon et al. 2016, You Only Look Once, section 2; darknet's detection_layer.c, which
    stores the three groups one after the other for all cells.

    >>> classes, confidence = jnp.zeros((7, 7, 20)), jnp.zeros((7, 7, 2))
    >>> GridOutputs(classes, confidence, boxes=jnp.zeros((7, 7, 2, 4))).boxes.shape
    (7, 7, 2, 4)
    """

    classes: jax.Array
    confidence: jax.Array
    boxes: jax.Array


def split_grid(grid: jax.Array, *, classes: int) -> GridOutputs:
    """Splits the channels of a grid into classes, confidences and boxes.

    Args:
        grid: network output [..., 5 P + K].
        classes: number of classes K.

    Returns:
        Classes [..., K], confidences [..., P] and boxes [..., P, 4].

    Raises:
        ValueError: if the number of channels is not 5 P + K for any P.

    >>> split_grid(jnp.arange(13.0), classes=3).boxes.tolist()
    [[5.0, 6.0, 7.0, 8.0], [9.0, 10.0, 11.0, 12.0]]
    """
    count, remainder = divmod(grid.shape[-1] - classes, 5)
    if remainder or count < 1 or classes < 1:
        raise ValueError(
            f"expected {classes} + 5 P channels for {classes} classes and P boxes per cell, "
            f"got {grid.shape[-1]}"
        )
    boxes = grid[..., classes + count :].reshape(*grid.shape[:-1], count, 4)
    return GridOutputs(grid[..., :classes], grid[..., classes : classes + count], boxes)


def decode_grid_boxes(offsets: jax.Array) -> jax.Array:
    """Decodes the boxes of a grid to (x0, y0, x1, y1) in a unit square.

    Args:
        offsets: encoded boxes [H, W, P, 4], see `GridOutputs`.

    Returns:
        Boxes [H, W, P, 4].

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
