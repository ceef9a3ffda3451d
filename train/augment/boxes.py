"""Transformation of boxes together with the pixels of one scene.

A scene of detection has "boxes" [N, 4] (x0, y0, x1, y1) in pixels, "box_valid" [N] and, if the
image fills only the upper left of its canvas, "size" [2] (height, width).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from zoo.ops.boxes import box_area

Scene = dict[str, Any]
VisibleExtent = tuple[
    Any, Any
]  # height and width: numbers, or float32 [] where the scene says its size


def visible_extent(scene: Scene) -> VisibleExtent:
    """Returns height and width of the image, which is in the upper left of the canvas."""
    if "size" not in scene:
        return scene["image"].shape[:2]
    height, width = scene["size"].astype(jnp.float32)
    return height, width


def keep_visible_boxes(
    scene: Scene,
    boxes: jax.Array,
    size: VisibleExtent,
    *,
    visible: float,
    whole: jax.Array | None = None,
) -> Scene:
    """Clips transformed boxes to the image and removes those that are hardly visible.

    Args:
        scene: the scene.
        boxes: transformed boxes [N, 4].
        size: height and width of the image.
        visible: smallest visible share of the area. Boxes with less are invalid and become 0.
        whole: areas [N] of the complete boxes; those of `boxes` if not given.

    Returns:
        The scene with clipped boxes.
    """
    height, width = size
    ends = jnp.stack([jnp.asarray(end, jnp.float32) for end in (width, height, width, height)])
    cut = jnp.clip(boxes, 0.0, ends[None])
    left, whole = box_area(cut), box_area(boxes) if whole is None else whole
    valid = scene["box_valid"] & (left > 0) & (left >= visible * whole)
    return {**scene, "boxes": jnp.where(valid[:, None], cut, 0.0), "box_valid": valid}


def with_proposals(function: Callable) -> Callable:
    """Extends a function of scenes to "proposals" [P, 4], which move like boxes.

    Proposals that are hardly visible lose their "proposal_valid" [P].

    Args:
        function: function of a key and a scene.

    Returns:
        A function of a key and a scene with proposals.

    >>> def moved(key, scene):
    ...     return {**scene, "boxes": scene["boxes"] + 1.0}
    >>> scene = {"boxes": jnp.zeros((1, 4)), "box_valid": jnp.array([True])}
    >>> scene |= {"proposals": jnp.ones((2, 4)), "proposal_valid": jnp.array([True, True])}
    >>> with_proposals(moved)(jax.random.key(0), scene)["proposals"][:, 0].tolist()
    [2.0, 2.0]
    """
    rows = {"boxes": "proposals", "box_valid": "proposal_valid"}

    def together(key: jax.Array, scene: Scene) -> Scene:
        both = {name: jnp.concatenate([scene[name], scene[other]]) for name, other in rows.items()}
        moved = function(key, {**scene, **both})
        count = len(scene["boxes"])
        own = {name: moved[name][:count] for name in rows}
        return {**moved, **own, **{other: moved[name][count:] for name, other in rows.items()}}

    return together


def transform_hulls(boxes: jax.Array, matrix: jax.Array) -> jax.Array:
    """Returns the bounding boxes of transformed corners.

    Args:
        boxes: boxes [N, 4].
        matrix: matrix [2, 3] as for `geometry.warp`, which maps output to input; corners move by
            its inverse.

    Returns:
        Boxes [N, 4].

    >>> half = jnp.array([[2.0, 0.0, 0.0], [0.0, 1.0, -3.0]])  # comes from twice as far right
    >>> transform_hulls(jnp.array([[2.0, 0.0, 8.0, 4.0]]), half).tolist()
    [[1.0, 3.0, 4.0, 7.0]]
    """
    (a, b, e), (c, d, f) = matrix
    corners_x = boxes[:, jnp.array([0, 2, 0, 2])] - e
    corners_y = boxes[:, jnp.array([1, 1, 3, 3])] - f
    # The inverse is written out, since default matrix products of GPUs are too imprecise.
    determinant = a * d - b * c
    x = (d * corners_x - b * corners_y) / determinant
    y = (a * corners_y - c * corners_x) / determinant
    return jnp.stack([jnp.min(x, 1), jnp.min(y, 1), jnp.max(x, 1), jnp.max(y, 1)], 1)


def deform_hulls(boxes: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the bounding boxes of the pixels that come from each box.

    Args:
        boxes: boxes [N, 4].
        x: source x [h, w] of each pixel.
        y: source y [h, w] of each pixel.

    Returns:
        Boxes [N, 4].
    """
    height, width = x.shape
    rows, columns = jnp.arange(height), jnp.arange(width)

    def one(box: jax.Array) -> jax.Array:
        inside = (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])
        down, across = jnp.any(inside, 1), jnp.any(inside, 0)
        first = jnp.argmax(across), jnp.argmax(down)
        last = jnp.max(jnp.where(across, columns + 1, 0)), jnp.max(jnp.where(down, rows + 1, 0))
        return jnp.stack([*first, *last]).astype(jnp.float32)

    return jax.vmap(one)(boxes)


def mirror_boxes(boxes: jax.Array, size: VisibleExtent, *, vertical: bool) -> jax.Array:
    """Mirrors boxes [N, 4] horizontally, or vertically, in an image of `size`.

    >>> mirror_boxes(jnp.array([[1.0, 0.0, 3.0, 2.0]]), (5, 10), vertical=False).tolist()
    [[7.0, 0.0, 9.0, 2.0]]
    """
    length = jnp.asarray(size[0] if vertical else size[1], jnp.float32)
    x0, y0, x1, y1 = jnp.split(boxes, 4, axis=1)
    turned = (x0, length - y1, x1, length - y0) if vertical else (length - x1, y0, length - x0, y1)
    return jnp.concatenate(turned, 1)
