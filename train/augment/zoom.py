"""Augmentation that enlarges a part of a scene, for detection.

Functions take one key and one scene, as in train.augment.scene. The scene keeps its shape, and the
part is stretched over the image, so that its aspect ratio changes.
"""

import jax
import jax.numpy as jnp

from train.augment import boxes
from train.augment.scene import MIN_VISIBLE, Scene, warp
from zoo.ops.boxes import box_iou

PATCH_ATTEMPTS = 40  # as in torchvision's RandomIoUCrop


def jitter_crop(
    key: jax.Array,
    scene: Scene,
    *,
    share: float = 0.2,
    mode: str = "constant",
    visible: float = MIN_VISIBLE,
) -> Scene:
    """Moves each edge of the image by a random share.

    Inward moves enlarge the image. Outward moves shrink it and add black.

    Args:
        key: random key [].
        scene: scene [H, W].
        share: largest shift of an edge.
        mode: "constant" or "reflect" outside of the image.
        visible: smallest visible share of the area of a box.

    Returns:
        The scene.

    Source: Redmon et al. 2016, section 2.2; darknet's load_data_detection, which repeats the
    border's pixels where ours are black.

    >>> jitter_crop(jax.random.key(0), {"image": jnp.ones((8, 8, 3))})["image"].shape
    (8, 8, 3)
    """
    height, width = (jnp.asarray(side, jnp.float32) for side in boxes.visible_extent(scene))
    left, top, right, bottom = jax.random.uniform(key, (4,), minval=-share, maxval=share)
    part = jnp.stack([left * width, top * height, (1 + right) * width, (1 + bottom) * height])
    return show_region(scene, part, mode=mode, visible=visible)


def random_patch(
    key: jax.Array,
    scene: Scene,
    *,
    overlaps: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9),
    scales: tuple[float, float] = (0.3, 1.0),
    ratios: tuple[float, float] = (0.5, 2.0),
    probability: float = 6 / 7,
) -> Scene:
    """Crops a random part that overlaps an object, or keeps the image.

    A draw is valid if the IoU of the part with an object is at least a random value of `overlaps`,
    and the center of an object is in the part. The first of 40 valid draws is used, or the whole
    image if there is none. Objects whose center is outside are removed. Any part is valid for
    images without objects. Crowds do not count as objects.

    Args:
        key: random key [].
        scene: scene [H, W] with boxes.
        overlaps: smallest IoU, of which one is drawn.
        scales: smallest and largest share of width and height.
        ratios: smallest and largest ratio of these shares.
        probability: probability of a part.

    Returns:
        The scene.

    Raises:
        ValueError: if the scene has no boxes.

    Source: Liu et al. 2016 (SSD), section 2.2; torchvision's RandomIoUCrop, whose law this is.

    >>> scene = {"image": jnp.ones((8, 8, 3)), "boxes": jnp.array([[2.0, 2.0, 6.0, 6.0]])}
    >>> scene["box_valid"] = jnp.array([True])
    >>> jax.eval_shape(random_patch, jax.random.key(0), scene)["boxes"].shape
    (1, 4)
    """
    if "boxes" not in scene:
        raise ValueError("a patch is chosen by its overlap with boxes: the scene has none")
    height, width = (jnp.asarray(side, jnp.float32) for side in boxes.visible_extent(scene))
    draws = jax.random.uniform(key, (4 * PATCH_ATTEMPTS + 2,))
    sides = scales[0] + (scales[1] - scales[0]) * draws[: 2 * PATCH_ATTEMPTS].reshape(
        2, PATCH_ATTEMPTS
    )
    starts = draws[2 * PATCH_ATTEMPTS : -2].reshape(2, PATCH_ATTEMPTS) * (1 - sides)
    ratio = sides[0] / sides[1]
    edges = jnp.stack([width, height])[:, None]
    parts = jnp.concatenate([starts * edges, (starts + sides) * edges]).T

    objects = scene["box_valid"] & ~scene.get("crowd", jnp.zeros_like(scene["box_valid"]))
    overlap, central = overlap_shares(parts, scene["boxes"], objects)
    wanted = jnp.array(overlaps)[(draws[-2] * len(overlaps)).astype(jnp.int32)]
    fits = (ratio >= ratios[0]) & (ratio <= ratios[1])
    fits &= ((overlap >= wanted) & central) | ~jnp.any(objects)
    cut = jnp.any(fits) & (draws[-1] < probability)
    whole = jnp.stack([jnp.zeros(()), jnp.zeros(()), width, height])
    part = jnp.where(cut, parts[jnp.argmax(fits)], whole)
    valid = scene["box_valid"] & (centers_inside(part[None], scene["boxes"])[0] | ~cut)
    return show_region({**scene, "box_valid": valid}, part, mode="constant", visible=0.0)


def show_region(scene: Scene, part: jax.Array, *, mode: str, visible: float) -> Scene:
    """Stretches a part [4] (x0, y0, x1, y1) of a scene over its image."""
    height, width = (jnp.asarray(side, jnp.float32) for side in boxes.visible_extent(scene))
    across, down = (part[2] - part[0]) / width, (part[3] - part[1]) / height
    nought = jnp.zeros(())
    matrix = jnp.stack([across, nought, part[0], nought, down, part[1]]).reshape(2, 3)
    return warp(scene, matrix, mode=mode, visible=visible)


def centers_inside(parts: jax.Array, objects: jax.Array) -> jax.Array:
    """Returns whether the center of each of N boxes is inside each of P parts [P, N]."""
    x, y = (objects[:, 0] + objects[:, 2]) / 2, (objects[:, 1] + objects[:, 3]) / 2
    x0, y0, x1, y1 = jnp.split(parts, 4, 1)
    return (x[None] > x0) & (x[None] < x1) & (y[None] > y0) & (y[None] < y1)


def overlap_shares(
    parts: jax.Array, objects: jax.Array, valid: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the largest IoU [P] of parts with an object, and whether a center is inside [P]."""
    iou = jnp.where(valid[None], box_iou(parts, objects), 0.0)
    return jnp.max(iou, 1, initial=0.0), jnp.any(centers_inside(parts, objects) & valid[None], 1)
