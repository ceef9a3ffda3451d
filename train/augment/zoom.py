"""Augmentation that shows a part of a scene in the place of the whole: for detection.

Functions of one key and one scene, as in train.augment.scene; the scene keeps its shape. A part is
stretched over the picture, so that its aspect changes.
"""

import jax
import jax.numpy as jnp

from train.augment import boxes
from train.augment.scene import MIN_VISIBLE, Scene, warp
from zoo.ops.boxes import box_iou

PATCH_ATTEMPTS = 40  # at a part, as in torchvision's RandomIoUCrop


def jitter_crop(
    key: jax.Array,
    scene: Scene,
    *,
    share: float = 0.2,
    mode: str = "constant",
    visible: float = MIN_VISIBLE,
) -> Scene:
    """Key [], scene [H, W] -> scene [H, W]: each edge of the picture moved by up to `share` of it.

    Inwards, which enlarges, or outwards, which shrinks and shows black; so the picture is scaled
    and moved by up to `share`, along each axis by itself.

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
    """Key [], scene [H, W] -> scene [H, W]: the whole of it, or a part that overlaps an object.

    With `probability` a part, by one of `overlaps`, each as likely: the intersection over union of
    the part and of one of the objects at least. Its width and height are between `scales` of the
    picture's, width to height between `ratios` (of these shares). An object counts as long as its
    center is in the part, and one must. The first of 40 draws that does all this; else the whole.
    In a picture without objects any part will do. Crowds are no objects, but move.

    Errors: ValueError without boxes.

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
    """Scene [H, W], part [4] (x0, y0, x1, y1) -> scene [H, W], the part in place of its picture."""
    height, width = (jnp.asarray(side, jnp.float32) for side in boxes.visible_extent(scene))
    across, down = (part[2] - part[0]) / width, (part[3] - part[1]) / height
    nought = jnp.zeros(())
    matrix = jnp.stack([across, nought, part[0], nought, down, part[1]]).reshape(2, 3)
    return warp(scene, matrix, mode=mode, visible=visible)


def centers_inside(parts: jax.Array, objects: jax.Array) -> jax.Array:
    """[P, 4], [N, 4] -> [P, N] bool: whether the center of an object lies in a part."""
    x, y = (objects[:, 0] + objects[:, 2]) / 2, (objects[:, 1] + objects[:, 3]) / 2
    x0, y0, x1, y1 = jnp.split(parts, 4, 1)
    return (x[None] > x0) & (x[None] < x1) & (y[None] > y0) & (y[None] < y1)


def overlap_shares(
    parts: jax.Array, objects: jax.Array, valid: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """[P, 4], [N, 4], [N] -> each part's greatest IoU with an object [P], if one's center is in it."""
    iou = jnp.where(valid[None], box_iou(parts, objects), 0.0)
    return jnp.max(iou, 1, initial=0.0), jnp.any(centers_inside(parts, objects) & valid[None], 1)
