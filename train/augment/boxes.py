"""How the boxes of a scene move with its pixels: one scene at a time, to be vmapped.

A scene of detection holds "boxes" [N, 4] (x0, y0, x1, y1) in pixels of the image, "box_valid" [N]
and, where the picture fills only the upper left of its canvas, its "size" [2] (height, width).
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
    """Scene -> height and width of its picture, which lies in the upper left of the canvas."""
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
    """Scene, its boxes [N, 4] where they have moved -> scene with what is left of them.

    Cut at the border of a picture of `size`. A box of which less than `visible` of the area, or of
    the `whole` [N], is left is no longer valid, nor is one without any; these become 0.
    """
    height, width = size
    ends = jnp.stack([jnp.asarray(end, jnp.float32) for end in (width, height, width, height)])
    cut = jnp.clip(boxes, 0.0, ends[None])
    left, whole = box_area(cut), box_area(boxes) if whole is None else whole
    valid = scene["box_valid"] & (left > 0) & (left >= visible * whole)
    return {**scene, "boxes": jnp.where(valid[:, None], cut, 0.0), "box_valid": valid}


def with_proposals(function: Callable) -> Callable:
    """function(key, scene) -> scene, to one whose "proposals" [P, 4] move as its boxes do.

    A proposal that a box in its place would not outlast loses its "proposal_valid" [P].

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
    """[N, 4], [2, 3] as for geometry.warp -> [N, 4], around the corners, which move against it.

    >>> half = jnp.array([[2.0, 0.0, 0.0], [0.0, 1.0, -3.0]])  # comes from twice as far right
    >>> transform_hulls(jnp.array([[2.0, 0.0, 8.0, 4.0]]), half).tolist()
    [[1.0, 3.0, 4.0, 7.0]]
    """
    (a, b, e), (c, d, f) = matrix
    corners_x = boxes[:, jnp.array([0, 2, 0, 2])] - e
    corners_y = boxes[:, jnp.array([1, 1, 3, 3])] - f
    # The inverse written out: a GPU's default matrix product is too coarse for pixels.
    determinant = a * d - b * c
    x = (d * corners_x - b * corners_y) / determinant
    y = (a * corners_y - c * corners_x) / determinant
    return jnp.stack([jnp.min(x, 1), jnp.min(y, 1), jnp.max(x, 1), jnp.max(y, 1)], 1)


def deform_hulls(boxes: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """[N, 4], x, y [h, w] where pixels come from -> [N, 4], around the pixels that come from each."""
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
    """[N, 4] -> [N, 4], left to right in a picture of `size`, or upside down.

    >>> mirror_boxes(jnp.array([[1.0, 0.0, 3.0, 2.0]]), (5, 10), vertical=False).tolist()
    [[7.0, 0.0, 9.0, 2.0]]
    """
    length = jnp.asarray(size[0] if vertical else size[1], jnp.float32)
    x0, y0, x1, y1 = jnp.split(boxes, 4, axis=1)
    turned = (x0, length - y1, x1, length - y0) if vertical else (length - x1, y0, length - x0, y1)
    return jnp.concatenate(turned, 1)
