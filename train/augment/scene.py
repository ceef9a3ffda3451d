"""Augmentation of a scene: an image and all maps of its pixels.

A scene is a dict of one example: "image" [H, W, C] (uint8, or floats in [0, 1]), and optionally
"mask", "weight" and "instances" [H, W]. Other entries do not change. Image and weight are
interpolated bilinearly, mask and instances by the nearest pixel. Outside of the image, the mask is
255 (ignored), weight and instances are 0, and the image is black, or mirrored if `mode` is
"reflect".

"boxes" [N, 4] (x0, y0, x1, y1) with "box_valid" [N] become the bounding boxes of their transformed
corners, clipped to the image. A box is invalid if less than `visible` of its area remains. Mirrored
objects ("reflect") have no boxes. If there is a "size" [2], the image is the upper left part of the
canvas and stays there. It is transformed about its own center, and the rest of the canvas is black.

`augment.scenes(scene.flip, partial(scene.rotate, degrees=15.0))` augments a batch.
train.augment.zoom crops and zooms scenes with boxes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from train.augment import boxes, crops, geometry
from train.augment.sampling import FILL_VALUES, check_mode, sample_scene, scene_maps
from zoo.ops.boxes import box_area

MIN_VISIBLE = 0.25  # smallest visible share of the area of a box

Scene = dict[str, Any]


def image_only(function: Callable) -> Callable:
    """Converts a function of an image to one of a scene, for colors, noise, blur and erasing.

    Args:
        function: function of a key and an image [H, W, C].

    Returns:
        A function of a key and a scene.

    >>> brighter = image_only(lambda key, image: image + 1.0)
    >>> brighter(jax.random.key(0), {"image": jnp.zeros((1, 1, 1)), "label": 3})["label"]
    3
    """

    def colored(key: jax.Array, scene: Scene) -> Scene:
        return {**scene, "image": function(key, scene["image"])}

    return colored


def flip(
    key: jax.Array, scene: Scene, *, vertical: bool = False, probability: float = 0.5
) -> Scene:
    """Mirrors a scene horizontally, or vertically, with a probability.

    Args:
        key: random key [].
        scene: scene [H, W].
        vertical: mirror vertically.
        probability: probability of mirroring.

    Returns:
        The scene.

    >>> scene = {"image": jnp.zeros((1, 2, 3)), "mask": jnp.array([[4, 5]], jnp.uint8)}
    >>> flip(jax.random.key(0), scene, probability=1.0)["mask"].tolist()
    [[5, 4]]
    """
    size, axis = boxes.visible_extent(scene), 0 if vertical else 1
    if "size" in scene:  # only the image moves, and the rest of the canvas stays
        place = jnp.arange(scene["image"].shape[axis])
        length = scene["size"][axis]
        place = jnp.where(place < length, length - 1 - place, place)
        happens = jax.random.bernoulli(key, probability)

        def mirror(image: jax.Array) -> jax.Array:
            return jnp.where(happens, jnp.take(image, place, axis), image)
    else:
        mirror = partial(geometry.flip, key, vertical=vertical, probability=probability)
    moved = {**scene, **{name: mirror(value) for name, value in scene_maps(scene).items()}}
    if "boxes" in scene:
        turned = boxes.mirror_boxes(scene["boxes"], size, vertical=vertical)
        happens = jax.random.bernoulli(key, probability)
        turned = jnp.where(happens & scene["box_valid"][:, None], turned, scene["boxes"])
        moved["boxes"] = turned
    return moved


def translate(
    key: jax.Array,
    scene: Scene,
    *,
    share: float,
    mode: str = "constant",
    visible: float = MIN_VISIBLE,
) -> Scene:
    """Moves a scene by a random share of its height and width.

    Args:
        key: random key [].
        scene: scene [H, W].
        share: largest shift.
        mode: "constant" or "reflect" outside of the image.
        visible: smallest visible share of the area of a box.

    Returns:
        The scene.

    >>> translate(jax.random.key(0), {"image": jnp.ones((8, 8, 3))}, share=0.25)["image"].shape
    (8, 8, 3)
    """
    return affine(key, scene, translation=share, mode=mode, visible=visible)


def rotate(
    key: jax.Array,
    scene: Scene,
    *,
    degrees: float,
    mode: str = "constant",
    visible: float = MIN_VISIBLE,
) -> Scene:
    """Rotates a scene about its center by a random angle.

    Args:
        key: random key [].
        scene: scene [H, W].
        degrees: largest angle in degrees.
        mode: "constant" or "reflect" outside of the image.
        visible: smallest visible share of the area of a box.

    Returns:
        The scene.

    >>> rotate(jax.random.key(0), {"image": jnp.ones((8, 8, 3))}, degrees=9.0)["image"].shape
    (8, 8, 3)
    """
    return affine(key, scene, degrees=degrees, mode=mode, visible=visible)


def scale(
    key: jax.Array,
    scene: Scene,
    *,
    factors: tuple[float, float],
    mode: str = "constant",
    visible: float = MIN_VISIBLE,
) -> Scene:
    """Scales a scene about its center by a random factor.

    Args:
        key: random key [].
        scene: scene [H, W].
        factors: smallest and largest factor.
        mode: "constant" or "reflect" outside of the image.
        visible: smallest visible share of the area of a box.

    Returns:
        The scene.

    >>> scale(jax.random.key(0), {"image": jnp.ones((8, 8, 3))}, factors=(0.5, 2.0))["image"].shape
    (8, 8, 3)
    """
    return affine(key, scene, factors=factors, mode=mode, visible=visible)


def affine(
    key: jax.Array,
    scene: Scene,
    *,
    degrees: float = 0.0,
    translation: float = 0.0,
    factors: tuple[float, float] = (1.0, 1.0),
    shear: float = 0.0,
    mode: str = "constant",
    visible: float = MIN_VISIBLE,
) -> Scene:
    """Shears, scales, rotates and moves a scene with one interpolation.

    Options are those of `geometry.affine`.

    Args:
        key: random key [].
        scene: scene [H, W].
        degrees: largest angle in degrees.
        translation: largest shift as a share of height and width.
        factors: smallest and largest factor.
        shear: largest shear in degrees.
        mode: "constant" or "reflect" outside of the image.
        visible: smallest visible share of the area of a box.

    Returns:
        The scene.

    >>> affine(jax.random.key(0), {"image": jnp.ones((8, 8, 3))}, shear=5.0)["image"].shape
    (8, 8, 3)
    """
    matrix = geometry.draw_matrix(
        key,
        boxes.visible_extent(scene),
        degrees=degrees,
        translation=translation,
        factors=factors,
        shear=shear,
    )
    return warp(scene, matrix, mode=mode, visible=visible)


def warp(scene: Scene, matrix: jax.Array, *, mode: str, visible: float) -> Scene:
    """Transforms a scene: the pixel at (x, y) comes from matrix [2, 3] @ (x, y, 1)."""
    moved = sample_scene(
        scene, *geometry.source_points(matrix, scene["image"].shape[:2]), mode=mode
    )
    if "boxes" not in scene:
        return moved
    hulls = boxes.transform_hulls(scene["boxes"], matrix)
    return boxes.keep_visible_boxes(moved, hulls, boxes.visible_extent(scene), visible=visible)


def elastic(
    key: jax.Array,
    scene: Scene,
    *,
    deviation: float = 10.0,
    points: int = 3,
    mode: str = "constant",
    visible: float = MIN_VISIBLE,
) -> Scene:
    """Deforms a scene elastically.

    Random displacements on a grid of points x points, whose outermost points are on the outermost
    pixels, are interpolated by cubic splines. If `deviation` is an eighth of the distance of the
    points, the image hardly ever folds over itself. If it is a fifth, one in ten does.

    Args:
        key: random key [].
        scene: scene [H, W].
        deviation: standard deviation of the displacements along each axis in pixels.
        points: points along each side.
        mode: "constant" or "reflect" outside of the image.
        visible: smallest visible share of the area of a box.

    Returns:
        The scene.

    Raises:
        ValueError: if there are fewer than two points.

    Source: Ronneberger et al. 2015, section 3.1: 3 x 3 points, 10 pixels, bicubic; which cubic it
    is they do not say.

    >>> elastic(jax.random.key(0), {"image": jnp.ones((8, 8, 3))}, deviation=1.0)["image"].shape
    (8, 8, 3)
    """
    if points < 2:
        raise ValueError(f"an elastic grid has 2 points or more along each side, got {points}")
    height, width, _ = scene["image"].shape
    drawn = deviation * jax.random.normal(key, (2, points, points))
    down, right = jnp.einsum(
        "hp,apq,wq->ahw",
        jnp.asarray(spline_matrix(height, points)),
        drawn,
        jnp.asarray(spline_matrix(width, points)),
        precision="highest",
    )
    x, y = geometry.source_points(jnp.eye(2, 3), (height, width))
    x, y = x[:1] + right, y[:, :1] + down
    moved = sample_scene(scene, x, y, mode=mode)
    if "boxes" not in scene:
        return moved
    hulls, whole = boxes.deform_hulls(scene["boxes"], x, y), box_area(scene["boxes"])
    return boxes.keep_visible_boxes(
        moved, hulls, boxes.visible_extent(scene), visible=visible, whole=whole
    )


def crop(
    key: jax.Array,
    scene: Scene,
    *,
    size: tuple[int, int],
    mode: str = "constant",
    visible: float = MIN_VISIBLE,
) -> Scene:
    """Crops a random part of a scene.

    A side that is shorter than `size` is padded. If the image does not fill its canvas,
    `scaled_crop` crops the image only.

    Args:
        key: random key [].
        scene: scene [H, W].
        size: height and width.
        mode: "constant" or "reflect" outside of the image.
        visible: smallest visible share of the area of a box.

    Returns:
        The scene of `size`.

    >>> scene = {"image": jnp.ones((4, 8, 3)), "mask": jnp.zeros((4, 8), jnp.uint8)}
    >>> cut = crop(jax.random.key(0), scene, size=(6, 6))
    >>> cut["image"].shape, int(jnp.sum(cut["mask"] == 255))
    ((6, 6, 3), 12)
    """
    check_mode(mode)
    short = [max(0, new - old) for new, old in zip(size, scene["image"].shape, strict=False)]
    cut = {}
    for name, value in scene_maps(scene).items():
        value = value if name == "image" else value[..., None]
        widths = [(pad, pad) for pad in (*short, 0)]
        if name == "image" and mode == "reflect":
            value = jnp.pad(value, widths, mode="reflect")
        else:
            value = jnp.pad(value, widths, constant_values=FILL_VALUES.get(name, 0))
        value = crops.crop(key, value, size=size)
        cut[name] = value if name == "image" else value[..., 0]
    moved = {**scene, **cut}
    if "boxes" not in scene:
        return moved
    padded = [old + 2 * pad for old, pad in zip(scene["image"].shape, short, strict=False)]
    y, x = crops.random_corner(key, padded, size=size)
    offset = jnp.stack([x - short[1], y - short[0]] * 2).astype(jnp.float32)
    if "size" in scene:
        far = scene["size"] + jnp.array(short) - jnp.stack([y, x])
        moved["size"] = jnp.clip(far, 0, jnp.array(size)).astype(scene["size"].dtype)
    return boxes.keep_visible_boxes(
        moved, scene["boxes"] - offset[None], boxes.visible_extent(moved), visible=visible
    )


def scaled_crop(
    key: jax.Array,
    scene: Scene,
    *,
    size: tuple[int, int],
    factors: tuple[float, float] = (0.5, 2.0),
    mode: str = "constant",
    visible: float = MIN_VISIBLE,
) -> Scene:
    """Scales a scene by a random factor and crops a random part, with one interpolation.

    The factor is uniform in its logarithm. An image that does not fill its canvas fills the new
    one.

    Args:
        key: random key [].
        scene: scene [H, W].
        size: height and width.
        factors: smallest and largest factor.
        mode: "constant" or "reflect" outside of the image.
        visible: smallest visible share of the area of a box.

    Returns:
        The scene of `size`.

    Source: the random scale and crop of Chen et al. 2017, DeepLab, section 4.1, whose factors are
    uniform themselves.

    >>> scene = {"image": jnp.ones((8, 8, 3)), "mask": jnp.zeros((8, 8), jnp.uint8)}
    >>> scaled_crop(jax.random.key(0), scene, size=(6, 4))["mask"].shape
    (6, 4)
    """
    drawn = jax.random.uniform(key, (3,))
    low, high = jnp.log(jnp.asarray(factors, jnp.float32))
    factor = jnp.exp(low + drawn[0] * (high - low))
    x, y = geometry.source_points(jnp.eye(2, 3), size)
    # The surplus or the lack of the scaled image is distributed to both sides.
    height, width = boxes.visible_extent(scene)
    left, top = drawn[1] * (factor * width - size[1]), drawn[2] * (factor * height - size[0])
    moved = sample_scene(scene, (x + left) / factor, (y + top) / factor, mode=mode, whole=True)
    if "boxes" not in scene:
        return moved
    offset = jnp.stack([left, top] * 2)
    return boxes.keep_visible_boxes(
        moved, scene["boxes"] * factor - offset[None], size, visible=visible
    )


def spline_matrix(length: int, points: int) -> np.ndarray:
    """Returns the weights [length, points] float32 of cubic spline interpolation.

    The first and last points are on the first and last pixels, and the spline is mirrored there, as
    with order 3 and mode "mirror" in scipy.ndimage.

    >>> spline_matrix(5, 3)[::2].tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    eye = np.eye(points)
    after, before = np.eye(points, k=1), np.eye(points, k=-1)
    system, rise = before + 4 * eye + after, 3 * (after - before)
    system[[0, -1]], rise[[0, -1]] = (
        eye[[0, -1]],
        0.0,
    )  # the slope is 0 at both ends, since the spline is mirrored
    slopes = np.linalg.solve(system, rise)
    place = np.linspace(0, points - 1, length)
    left = np.minimum(place.astype(int), points - 2)
    t = (place - left)[:, None]
    matrix = (
        (1 + 2 * t) * (1 - t) ** 2 * eye[left]
        + t * (1 - t) ** 2 * slopes[left]
        + t**2 * (3 - 2 * t) * eye[left + 1]
        - t**2 * (1 - t) * slopes[left + 1]
    )
    return matrix.astype(np.float32)
