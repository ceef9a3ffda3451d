"""Augmentation that moves a whole scene: the image and all that is known pixel by pixel.

A scene is one example's dict: "image" [H, W, C] (uint8, or floats in [0, 1]) and any of "mask"
[H, W], "weight" [H, W] and "instances" [H, W]; other entries stay as they are. Image and weight are
sampled bilinearly, mask and instances at the nearest pixel. Where a pixel comes from outside of
the image, the mask is 255 (ignored), weight and instances are 0, and the image is black, or itself
mirrored where `mode` is "reflect".

`augment.scenes(scene.flip, partial(scene.rotate, degrees=15.0))` makes them one of a batch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from train.augment import crops, geometry
from train.augment.pixels import from_unit, to_unit

OUTSIDE = {"mask": 255, "weight": 0, "instances": 0}  # what stands where nothing is known
MODES = ("constant", "reflect")

Scene = dict[str, Any]


def image_alone(function: Callable) -> Callable:
    """function(key, image [H, W, C]) -> image, to one of scenes: of colours, noise, blur, erasing.

    >>> brighter = image_alone(lambda key, image: image + 1.0)
    >>> brighter(jax.random.key(0), {"image": jnp.zeros((1, 1, 1)), "label": 3})["label"]
    3
    """

    def coloured(key: jax.Array, scene: Scene) -> Scene:
        return {**scene, "image": function(key, scene["image"])}

    return coloured


def flip(
    key: jax.Array, scene: Scene, *, vertical: bool = False, probability: float = 0.5
) -> Scene:
    """Key [], scene [H, W] -> scene [H, W], mirrored left to right, upside down where `vertical`.

    >>> scene = {"image": jnp.zeros((1, 2, 3)), "mask": jnp.array([[4, 5]], jnp.uint8)}
    >>> flip(jax.random.key(0), scene, probability=1.0)["mask"].tolist()
    [[5, 4]]
    """
    mirror = partial(geometry.flip, key, vertical=vertical, probability=probability)
    return {**scene, **{name: mirror(value) for name, value in maps(scene).items()}}


def translate(key: jax.Array, scene: Scene, *, share: float, mode: str = "constant") -> Scene:
    """Key [], scene [H, W] -> scene [H, W], moved by up to `share` of its height and of its width.

    >>> translate(jax.random.key(0), {"image": jnp.ones((8, 8, 3))}, share=0.25)["image"].shape
    (8, 8, 3)
    """
    return affine(key, scene, translation=share, mode=mode)


def rotate(key: jax.Array, scene: Scene, *, degrees: float, mode: str = "constant") -> Scene:
    """Key [], scene [H, W] -> scene [H, W], turned about its centre by up to `degrees` either way.

    >>> rotate(jax.random.key(0), {"image": jnp.ones((8, 8, 3))}, degrees=9.0)["image"].shape
    (8, 8, 3)
    """
    return affine(key, scene, degrees=degrees, mode=mode)


def scale(
    key: jax.Array, scene: Scene, *, factors: tuple[float, float], mode: str = "constant"
) -> Scene:
    """Key [], scene [H, W] -> scene [H, W], enlarged about its centre by one of `factors`.

    >>> scale(jax.random.key(0), {"image": jnp.ones((8, 8, 3))}, factors=(0.5, 2.0))["image"].shape
    (8, 8, 3)
    """
    return affine(key, scene, factors=factors, mode=mode)


def affine(
    key: jax.Array,
    scene: Scene,
    *,
    degrees: float = 0.0,
    translation: float = 0.0,
    factors: tuple[float, float] = (1.0, 1.0),
    shear: float = 0.0,
    mode: str = "constant",
) -> Scene:
    """Key [], scene [H, W] -> scene [H, W]: sheared, enlarged, turned and moved in one sampling.

    The draws are those of geometry.affine.

    >>> affine(jax.random.key(0), {"image": jnp.ones((8, 8, 3))}, shear=5.0)["image"].shape
    (8, 8, 3)
    """
    size = scene["image"].shape[:2]
    matrix = geometry.draw_matrix(
        key, size, degrees=degrees, translation=translation, factors=factors, shear=shear
    )
    return sample(scene, *geometry.points(matrix, size), mode=mode)


def elastic(
    key: jax.Array,
    scene: Scene,
    *,
    deviation: float = 10.0,
    points: int = 3,
    mode: str = "constant",
) -> Scene:
    """Key [], scene [H, W] -> scene [H, W], bent as rubber is.

    Displacements of `deviation` pixels (their standard deviation along each axis) are drawn on a
    grid of points x points, the outermost on the outermost pixels, and interpolated between by
    cubic splines. With a `deviation` of an eighth of the distance between the points next to no draw
    folds the image over itself, with a fifth one in ten does.
    Errors: ValueError where there are less than two points.

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
    x, y = geometry.points(jnp.eye(2, 3), (height, width))
    return sample(scene, x[:1] + right, y[:, :1] + down, mode=mode)


def crop(key: jax.Array, scene: Scene, *, size: tuple[int, int], mode: str = "constant") -> Scene:
    """Key [], scene [H, W] -> scene [*size], every place equally likely.

    A side that is shorter than `size` (height, width) is padded, all of the image being in it.

    >>> scene = {"image": jnp.ones((4, 8, 3)), "mask": jnp.zeros((4, 8), jnp.uint8)}
    >>> cut = crop(jax.random.key(0), scene, size=(6, 6))
    >>> cut["image"].shape, int(jnp.sum(cut["mask"] == 255))
    ((6, 6, 3), 12)
    """
    known(mode)
    short = [max(0, new - old) for new, old in zip(size, scene["image"].shape, strict=False)]
    cut = {}
    for name, value in maps(scene).items():
        value = value if name == "image" else value[..., None]
        widths = [(pad, pad) for pad in (*short, 0)]
        if name == "image" and mode == "reflect":
            value = jnp.pad(value, widths, mode="reflect")
        else:
            value = jnp.pad(value, widths, constant_values=OUTSIDE.get(name, 0))
        value = crops.crop(key, value, size=size)
        cut[name] = value if name == "image" else value[..., 0]
    return {**scene, **cut}


def scaled_crop(
    key: jax.Array,
    scene: Scene,
    *,
    size: tuple[int, int],
    factors: tuple[float, float] = (0.5, 2.0),
    mode: str = "constant",
) -> Scene:
    """Key [], scene [H, W] -> scene [*size], enlarged by one of `factors`, then cut as by `crop`.

    In one sampling. The factor is uniform in its logarithm, the aspect stays.

    Source: the random scale and crop of Chen et al. 2017, DeepLab, section 4.1, whose factors are
    uniform themselves.

    >>> scene = {"image": jnp.ones((8, 8, 3)), "mask": jnp.zeros((8, 8), jnp.uint8)}
    >>> scaled_crop(jax.random.key(0), scene, size=(6, 4))["mask"].shape
    (6, 4)
    """
    drawn = jax.random.uniform(key, (3,))
    low, high = jnp.log(jnp.asarray(factors, jnp.float32))
    factor = jnp.exp(low + drawn[0] * (high - low))
    x, y = geometry.points(jnp.eye(2, 3), size)
    # What the enlarged image has too much, or too little, of the size goes to both sides of it.
    height, width, _ = scene["image"].shape
    left, top = drawn[1] * (factor * width - size[1]), drawn[2] * (factor * height - size[0])
    return sample(scene, (x + left) / factor, (y + top) / factor, mode=mode)


def maps(scene: Scene) -> dict[str, jax.Array]:
    """The entries of a scene that move with its pixels."""
    return {name: scene[name] for name in ("image", *OUTSIDE) if name in scene}


def sample(scene: Scene, x: jax.Array, y: jax.Array, *, mode: str) -> Scene:
    """Scene [H, W], x, y [h, w] -> scene [h, w]: each pixel comes from the point there.

    Points as in geometry.warp: pixel 0 has its centre at 0.5.
    """
    known(mode)
    image = scene["image"]
    size = image.shape[:2]
    inside = geometry.inside(x, y, size)
    if mode == "reflect":
        folded = fold(x, size[1]), fold(y, size[0])
        mixed = from_unit(geometry.bilinear(image, *folded, read=to_unit), image.dtype)
    else:
        mixed = from_unit(geometry.bilinear(image, x, y, read=to_unit), image.dtype)
        mixed = jnp.where(inside[..., None], mixed, jnp.zeros((), image.dtype))
    moved = {**scene, "image": mixed}
    for name, value in maps(scene).items():
        if name == "image":
            continue
        if name == "weight":
            taken = geometry.bilinear(value[..., None], x, y, read=as_float).astype(value.dtype)
        else:
            taken = geometry.nearest(value[..., None], x, y)
        moved[name] = jnp.where(inside, taken[..., 0], jnp.asarray(OUTSIDE[name], value.dtype))
    return moved


def as_float(value: jax.Array) -> jax.Array:
    """[...] -> [...] float32."""
    return value.astype(jnp.float32)


def known(mode: str) -> None:
    """ValueError where a mode is none."""
    if mode not in MODES:
        raise ValueError(f"mode is one of {', '.join(MODES)}, got {mode!r}")


def fold(place: jax.Array, length: int) -> jax.Array:
    """[...] along an axis of `length` pixels -> [...] in it, mirrored at the outermost centres.

    As jnp.pad's "reflect", which does not repeat the border.

    >>> fold(jnp.array([-0.5, 0.5, 2.5, 3.5, 4.5]), 3).tolist()
    [1.5, 0.5, 2.5, 1.5, 0.5]
    """
    last = max(length - 1, 1)
    return 0.5 + last - jnp.abs(jnp.mod(place - 0.5, 2.0 * last) - last)


def spline_matrix(length: int, points: int) -> np.ndarray:
    """-> [length, points] float32, row i the weights of the grid's points in pixel i.

    The cubic spline through the points, the first on the first pixel and the last on the last,
    mirrored at both: as scipy.ndimage's of order 3 in mode "mirror".

    >>> spline_matrix(5, 3)[::2].tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    eye = np.eye(points)
    after, before = np.eye(points, k=1), np.eye(points, k=-1)
    system, rise = before + 4 * eye + after, 3 * (after - before)
    system[[0, -1]], rise[[0, -1]] = eye[[0, -1]], 0.0  # flat at both ends, for it is mirrored
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
