"""Sampling of a scene at points: the image and all maps of its pixels."""

from typing import Any

import jax
import jax.numpy as jnp

from train.augment import boxes, geometry
from train.augment.pixels import from_unit, to_unit

FILL_VALUES = {"mask": 255, "weight": 0, "instances": 0}  # values outside of the image
MODES = ("constant", "reflect")

Scene = dict[str, Any]


def scene_maps(scene: Scene) -> dict[str, jax.Array]:
    """Returns the entries of a scene that move with its pixels."""
    return {name: scene[name] for name in ("image", *FILL_VALUES) if name in scene}


def sample_scene(
    scene: Scene, x: jax.Array, y: jax.Array, *, mode: str, whole: bool = False
) -> Scene:
    """Samples a scene at points.

    Points are as in `geometry.warp`, so that pixel 0 has its center at 0.5. Boxes do not change.

    Args:
        scene: scene [H, W].
        x: x [h, w] of the source of each pixel.
        y: y [h, w] of the source of each pixel.
        mode: "constant" or "reflect" outside of the image.
        whole: the image fills the whole result, even if it did not fill its canvas.

    Returns:
        The scene [h, w].
    """
    check_mode(mode)
    image, size = scene["image"], boxes.visible_extent(scene)
    inside, shown = geometry.is_inside(x, y, size), jnp.ones((), bool)
    if mode == "reflect":
        x_in, y_in = fold_index(x, size[1]), fold_index(y, size[0])
    elif "size" in scene:  # the last pixels of the image are repeated, not mixed with the canvas
        x_in, y_in = jnp.minimum(x, size[1] - 0.5), jnp.minimum(y, size[0] - 0.5)
    else:
        x_in, y_in = x, y
    moved = {**scene}
    if "size" in scene:
        new = jnp.array(x.shape, scene["size"].dtype)
        moved["size"] = new if whole else scene["size"]
        height, width = boxes.visible_extent({**moved, "image": x})
        shown = geometry.is_inside(*geometry.source_points(jnp.eye(2, 3), x.shape), (height, width))
    mixed = from_unit(geometry.sample_bilinear(image, x_in, y_in, read=to_unit), image.dtype)
    seen = shown if mode == "reflect" else inside & shown
    moved["image"] = jnp.where(seen[..., None], mixed, jnp.zeros((), image.dtype))
    for name, value in scene_maps(scene).items():
        if name == "image":
            continue
        if name == "weight":
            taken = geometry.sample_bilinear(value[..., None], x, y, read=as_float).astype(
                value.dtype
            )
        else:
            taken = geometry.sample_nearest(value[..., None], x, y)
        fill = jnp.asarray(FILL_VALUES[name], value.dtype)
        moved[name] = jnp.where(inside & shown, taken[..., 0], fill)
    return moved


def as_float(value: jax.Array) -> jax.Array:
    """Converts an array to float32."""
    return value.astype(jnp.float32)


def check_mode(mode: str) -> None:
    """Raises ValueError if the mode is unknown."""
    if mode not in MODES:
        raise ValueError(f"mode is one of {', '.join(MODES)}, got {mode!r}")


def fold_index(place: jax.Array, length: Any) -> jax.Array:
    """Mirrors coordinates at the centers of the first and last pixel, as jnp.pad's "reflect" does.

    Args:
        place: coordinates [...].
        length: number of pixels of the axis.

    Returns:
        Coordinates inside the axis [...].

    >>> fold_index(jnp.array([-0.5, 0.5, 2.5, 3.5, 4.5]), 3).tolist()
    [1.5, 0.5, 2.5, 1.5, 0.5]
    """
    last = jnp.maximum(jnp.asarray(length, jnp.float32) - 1.0, 1.0)
    return 0.5 + last - jnp.abs(jnp.mod(place - 0.5, 2.0 * last) - last)
