"""Mosaic augmentation, which joins four examples in one."""

from typing import Any

import jax
import jax.numpy as jnp

from train.augment import geometry
from train.augment.pixels import from_unit, to_unit
from train.augment.scene import MIN_VISIBLE
from zoo.ops.boxes import box_area

MOSAIC_ROWS = ("labels", "crowd")  # in addition to boxes and box_valid
UNSUPPORTED_KEYS = ("mask", "weight", "instances", "label")


def mosaic(
    keys: jax.Array,
    batch: Any,
    *,
    probability: float = 1.0,
    objects: int | None = None,
    center: tuple[float, float] = (0.25, 0.75),
    visible: float = MIN_VISIBLE,
) -> Any:
    """Joins each example with the three before it in the batch about a random point.

    Each image is resized, with its aspect ratio, until it covers its quarter, and placed there at
    random. The rest is cropped. Boxes move with the images. "size" becomes that of the canvas, and
    "scale" stays that of the example.

    Args:
        keys: random keys [B].
        batch: batch [B, ...] with boxes.
        probability: probability of a mosaic for each example.
        objects: rows of boxes in the result, of which the largest are kept; the number of rows of
            an example if not given.
        center: smallest and largest position of the point, as a share of height and width.
        visible: smallest visible share of the area of a box.

    Returns:
        The batch.

    Raises:
        ValueError: if the batch has no boxes, or has masks or image labels, or `objects` is too
            small.

    Source: Bochkovskiy et al. 2020 (YOLOv4), section 3.4 and figure 3, which has no formula; the
    point's range is of darknet's kind (0.2 to 0.8 there).

    >>> batch = {"image": jnp.ones((4, 8, 8, 3)), "boxes": jnp.ones((4, 5, 4))}
    >>> batch |= {"box_valid": jnp.ones((4, 5), bool), "labels": jnp.ones((4, 5), jnp.int32)}
    >>> keys = jax.random.split(jax.random.key(0), 4)
    >>> jax.eval_shape(mosaic, keys, batch)["boxes"].shape
    (4, 5, 4)
    """
    if "boxes" not in batch or "box_valid" not in batch:
        raise ValueError("a mosaic is of scenes with boxes and box_valid: the batch has none")
    if there := [name for name in UNSUPPORTED_KEYS if name in batch]:
        raise ValueError(f"a mosaic has boxes alone, it cannot tell the {there[0]} of four scenes")
    names = [
        name for name in ("image", "boxes", "box_valid", "size", *MOSAIC_ROWS) if name in batch
    ]
    own = {name: batch[name] for name in names}
    count = own["boxes"].shape[1]
    if objects is not None and objects < count:
        raise ValueError(f"a mosaic of {count} rows of boxes has as many or more, got {objects}")
    for name in (name for name in ("boxes", "box_valid", *MOSAIC_ROWS) if name in own):
        empty = [(0, 0), (0, (objects or count) - count), *[(0, 0)] * (own[name].ndim - 2)]
        own[name] = jnp.pad(own[name], empty)
    four = {name: jnp.stack([jnp.roll(x, n, 0) for n in range(4)], 1) for name, x in own.items()}
    fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
    happens = jax.vmap(lambda key: jax.random.bernoulli(key, probability))(fold(keys, 1))
    mixed = jax.vmap(lambda key, four: compose_mosaic(key, four, center=center, visible=visible))(
        fold(keys, 0), four
    )

    def chosen(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(happens.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    return {**batch, **{name: chosen(mixed[name], own[name]) for name in names}}


def compose_mosaic(
    key: jax.Array, four: Any, *, center: tuple[float, float], visible: float
) -> Any:
    """Joins four scenes [4, ...] to one."""
    height, width = four["image"].shape[1:3]
    draws = jax.random.uniform(key, (10,))
    point = center[0] + (center[1] - center[0]) * draws[:2]
    x, y = jnp.round(point[0] * width), jnp.round(point[1] * height)
    nought, far_x, far_y = jnp.zeros(()), jnp.full((), float(width)), jnp.full((), float(height))
    quarters = jnp.stack(
        [
            jnp.stack([nought, nought, x, y]),
            jnp.stack([x, nought, far_x, y]),
            jnp.stack([nought, y, x, far_y]),
            jnp.stack([x, y, far_x, far_y]),
        ]
    )
    if "size" in four:
        sizes = four["size"].astype(jnp.float32)[:, ::-1]
    else:
        sizes = jnp.broadcast_to(jnp.array([width, height], jnp.float32)[None], (4, 2))
    room = quarters[:, 2:] - quarters[:, :2]
    factor = jnp.max(room / sizes, 1)[:, None]
    # The corner of the image in the mosaic: its surplus is on both sides of the quarter.
    corner = quarters[:, :2] - draws[2:].reshape(4, 2) * (factor * sizes - room)
    one = {"image": paint_quarters(four["image"], quarters, factor, corner, sizes)}
    moved = four["boxes"] * factor[:, :, None] + jnp.tile(corner, (1, 2))[:, None]
    return {**one, **gather_boxes(four, moved, quarters, visible=visible)}


def paint_quarters(
    images: jax.Array, quarters: jax.Array, factor: jax.Array, corner: jax.Array, sizes: jax.Array
) -> jax.Array:
    """Draws each pixel [H, W, C] from the image [4, H, W, C] in whose quarter it is."""
    height, width, channels = images.shape[1:]
    x, y = geometry.source_points(jnp.eye(2, 3), (height, width))
    split = quarters[3, :2]
    which = (x >= split[0]).astype(jnp.int32) + 2 * (y >= split[1]).astype(jnp.int32)
    places = [(at - corner[which, axis]) / factor[which, 0] for axis, at in ((0, x), (1, y))]
    # Clipped to the centers of the outermost pixels, so that no pixel comes from another image.
    x, y = (jnp.clip(at, 0.5, sizes[which, axis] - 0.5) for axis, at in enumerate(places))
    tall = images.reshape(4 * height, width, channels)
    below = y + (which * height).astype(jnp.float32)
    return from_unit(geometry.sample_bilinear(tall, x, below, read=to_unit), images.dtype)


def gather_boxes(four: Any, moved: jax.Array, quarters: jax.Array, *, visible: float) -> Any:
    """Returns the N largest valid boxes of four scenes [4, N, ...]."""
    cut = jnp.clip(
        moved,
        jnp.tile(quarters[:, :2], (1, 2))[:, None],
        jnp.tile(quarters[:, 2:], (1, 2))[:, None],
    )
    left = box_area(cut)
    valid = four["box_valid"] & (left > 0) & (left >= visible * box_area(moved))
    rows = valid.shape[1]
    # Crowds are dropped first, since they are not trained on.
    crowd = four.get("crowd", jnp.zeros_like(valid))
    keys = (-left, crowd, ~valid)  # the last key has priority
    order = jnp.lexsort([key.reshape(-1) for key in keys])[:rows]
    there = valid.reshape(-1)[order]
    result = {
        "boxes": jnp.where(there[:, None], cut.reshape(-1, 4)[order], 0.0),
        "box_valid": there,
    }
    for name in (name for name in MOSAIC_ROWS if name in four):
        values = four[name].reshape(-1)[order]
        result[name] = jnp.where(there, values, jnp.zeros((), values.dtype))
    if "size" in four:
        result["size"] = quarters[3, 2:][::-1].astype(four["size"].dtype)
    return result
