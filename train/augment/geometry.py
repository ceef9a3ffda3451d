"""Augmentation that moves the pixels of one image."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from train.augment.pixels import from_unit, to_unit


def flip(
    key: jax.Array, image: jax.Array, *, vertical: bool = False, probability: float = 0.5
) -> jax.Array:
    """Mirrors an image horizontally, or vertically, with a probability.

    Args:
        key: random key [].
        image: image [H, W, C].
        vertical: mirror vertically.
        probability: probability of mirroring.

    Returns:
        The image.

    >>> image = jnp.arange(6.0).reshape(2, 3, 1)
    >>> flip(jax.random.key(0), image, probability=1.0)[..., 0]
    Array([[2., 1., 0.],
           [5., 4., 3.]], dtype=float32)
    """
    mirrored = jnp.flip(image, 0 if vertical else 1)
    return jnp.where(jax.random.bernoulli(key, probability), mirrored, image)


def shift(key: jax.Array, image: jax.Array, *, pixels: int) -> jax.Array:
    """Moves an image by a random number of pixels along each axis, and fills with zeros.

    Args:
        key: random key [].
        image: image [H, W, C].
        pixels: largest shift in pixels.

    Returns:
        The image.

    Source: the translations of LeCun et al. 1998, section III.C.

    >>> image = jnp.arange(9.0).reshape(3, 3, 1)
    >>> shift(jax.random.key(0), image, pixels=1).shape
    (3, 3, 1)
    """
    padded = jnp.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)))
    y, x = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
    return jax.lax.dynamic_slice(padded, (y, x, 0), image.shape)


def translate(
    key: jax.Array,
    image: jax.Array,
    *,
    share: float,
    method: str = "bilinear",
    fill: float = 0.0,
) -> jax.Array:
    """Moves an image by a random share of its height and width.

    Args:
        key: random key [].
        image: image [H, W, C].
        share: largest shift.
        method: interpolation as in `warp`.
        fill: value outside of the image as in `warp`.

    Returns:
        The image.

    >>> translate(jax.random.key(0), jnp.ones((8, 8, 3)), share=0.25).shape
    (8, 8, 3)
    """
    return affine(key, image, translation=share, method=method, fill=fill)


def rotate(
    key: jax.Array,
    image: jax.Array,
    *,
    degrees: float,
    method: str = "bilinear",
    fill: float = 0.0,
) -> jax.Array:
    """Rotates an image about its center by a random angle.

    Args:
        key: random key [].
        image: image [H, W, C].
        degrees: largest angle in degrees.
        method: interpolation as in `warp`.
        fill: value outside of the image as in `warp`.

    Returns:
        The image.

    >>> rotate(jax.random.key(0), jnp.ones((8, 8, 3)), degrees=30.0).shape
    (8, 8, 3)
    """
    return affine(key, image, degrees=degrees, method=method, fill=fill)


def scale(
    key: jax.Array,
    image: jax.Array,
    *,
    factors: tuple[float, float],
    method: str = "bilinear",
    fill: float = 0.0,
) -> jax.Array:
    """Scales an image about its center by a random factor.

    Args:
        key: random key [].
        image: image [H, W, C].
        factors: smallest and largest factor.
        method: interpolation as in `warp`.
        fill: value outside of the image as in `warp`.

    Returns:
        The image.

    >>> scale(jax.random.key(0), jnp.ones((8, 8, 3)), factors=(0.8, 1.2)).shape
    (8, 8, 3)
    """
    return affine(key, image, factors=factors, method=method, fill=fill)


def affine(
    key: jax.Array,
    image: jax.Array,
    *,
    degrees: float = 0.0,
    translation: float = 0.0,
    factors: tuple[float, float] = (1.0, 1.0),
    shear: float = 0.0,
    method: str = "bilinear",
    fill: float = 0.0,
) -> jax.Array:
    """Shears, scales, rotates and moves an image with one interpolation.

    Args:
        key: random key [].
        image: image [H, W, C].
        degrees: largest angle in degrees.
        translation: largest shift as a share of height and width.
        factors: smallest and largest factor, uniform in its logarithm.
        shear: largest shear along x and y in degrees.
        method: interpolation as in `warp`.
        fill: value outside of the image as in `warp`.

    Returns:
        The image.

    Source: torchvision's RandomAffine, whose factor is uniform itself.

    >>> affine(jax.random.key(0), jnp.ones((8, 8, 3)), degrees=9.0, shear=5.0).shape
    (8, 8, 3)
    """
    matrix = draw_matrix(
        key,
        image.shape[:2],
        degrees=degrees,
        translation=translation,
        factors=factors,
        shear=shear,
    )
    return warp(image, matrix, method=method, fill=fill)


def draw_matrix(
    key: jax.Array,
    size: Sequence[Any],
    *,
    degrees: float = 0.0,
    translation: float = 0.0,
    factors: tuple[float, float] = (1.0, 1.0),
    shear: float = 0.0,
) -> jax.Array:
    """Draws a random matrix [2, 3] for `warp` with the options of `affine`."""
    height, width = size
    turn, x, y, shear_x, shear_y, growth = jax.random.uniform(key, (6,), minval=-1.0)
    low, high = jnp.log(jnp.asarray(factors, jnp.float32))
    factor = jnp.exp((low + high) / 2 + growth * (high - low) / 2)
    linear = rotation_matrix(turn * jnp.deg2rad(degrees)) @ jnp.array(
        [[1.0, jnp.tan(shear_x * jnp.deg2rad(shear))], [jnp.tan(shear_y * jnp.deg2rad(shear)), 1.0]]
    )
    move = translation * jnp.array([x * width, y * height])
    return inverse_about_center(factor * linear, move, height=height, width=width)


def rotation_matrix(angle: jax.Array) -> jax.Array:
    """Returns a counterclockwise rotation [2, 2] by an angle in radians, where y points down."""
    return jnp.array([[jnp.cos(angle), jnp.sin(angle)], [-jnp.sin(angle), jnp.cos(angle)]])


def inverse_about_center(
    linear: jax.Array, move: jax.Array, *, height: Any, width: Any
) -> jax.Array:
    """Returns the matrix [2, 3] for `warp` of a linear map about the center and a shift.

    Args:
        linear: linear map [2, 2].
        move: shift [2] of (x, y) in pixels.
        height: height of the image.
        width: width of the image.

    Returns:
        The matrix.
    """
    (a, b), (c, d) = linear
    inverse = jnp.array([[d, -b], [-c, a]]) / (a * d - b * c)
    center = jnp.array([width / 2, height / 2])
    # Products are written out, since default matrix products of TPUs and GPUs are too imprecise.
    offset = center - jnp.sum(inverse * (center + move)[None], -1)
    return jnp.concatenate([inverse, offset[:, None]], -1)


def warp(
    image: jax.Array, matrix: jax.Array, *, method: str = "bilinear", fill: float = 0.0
) -> jax.Array:
    """Transforms an image: the pixel at (x, y) comes from matrix @ (x, y, 1).

    Coordinates start at the upper left corner, so that pixel 0 has its center at 0.5, as in
    Pillow's Image.transform. Four gathers take 10 ms for 32 images of 224x224 on a CPU, where
    map_coordinates takes 130.

    Args:
        image: image [H, W, C].
        matrix: matrix [2, 3].
        method: "bilinear" (the border is repeated) or "nearest".
        fill: value outside of the image, in [0, 1] for every dtype.

    Returns:
        The image.

    Raises:
        ValueError: if the method is unknown.

    >>> image = jnp.arange(6.0).reshape(2, 3, 1) / 10
    >>> warp(image, jnp.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]), method="nearest")[..., 0]
    Array([[0.1, 0.2, 0. ],
           [0.4, 0.5, 0. ]], dtype=float32)
    """
    if method not in ("bilinear", "nearest"):
        raise ValueError(f"method is 'bilinear' or 'nearest', got {method!r}")
    x, y = source_points(matrix, image.shape[:2])
    outside = from_unit(jnp.asarray(fill, jnp.float32), image.dtype)
    if method == "nearest":
        sampled = sample_nearest(image, x, y)
    else:
        sampled = from_unit(sample_bilinear(image, x, y, read=to_unit), image.dtype)
    return jnp.where(is_inside(x, y, image.shape[:2])[..., None], sampled, outside)


def source_points(matrix: jax.Array, size: Sequence[int]) -> tuple[jax.Array, jax.Array]:
    """Returns the source x, y [height, width] of the center of each pixel for a matrix [2, 3]."""
    height, width = size
    column = jnp.arange(width, dtype=jnp.float32)[None] + 0.5
    row = jnp.arange(height, dtype=jnp.float32)[:, None] + 0.5
    x = matrix[0, 0] * column + (matrix[0, 1] * row + matrix[0, 2])
    y = matrix[1, 0] * column + (matrix[1, 1] * row + matrix[1, 2])
    return x, y


def is_inside(x: jax.Array, y: jax.Array, size: Sequence[Any]) -> jax.Array:
    """Returns whether points x, y [h, w] are inside an image of (height, width)."""
    height, width = size
    return (x >= 0) & (x < width) & (y >= 0) & (y < height)


def sample_nearest(image: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the pixels [h, w, C] of an image [H, W, C] that contain points x, y [h, w]."""
    return read_pixel(image, jnp.floor(y).astype(jnp.int32), jnp.floor(x).astype(jnp.int32))


def sample_bilinear(image: jax.Array, x: jax.Array, y: jax.Array, *, read: Callable) -> jax.Array:
    """Interpolates an image between the four pixels next to each point.

    Args:
        image: image [H, W, C].
        x: x [h, w] of the points.
        y: y [h, w] of the points.
        read: function that converts pixels to float32 after they are gathered, since bytes need a
            quarter of the memory traffic.

    Returns:
        Values [h, w, C] float32.
    """
    left, above = jnp.floor(x - 0.5), jnp.floor(y - 0.5)
    right_share, below_share = (x - 0.5 - left)[..., None], (y - 0.5 - above)[..., None]
    left, above = left.astype(jnp.int32), above.astype(jnp.int32)

    def between(row: jax.Array) -> jax.Array:
        one, two = read(read_pixel(image, row, left)), read(read_pixel(image, row, left + 1))
        return one + right_share * (two - one)

    upper, lower = between(above), between(above + 1)
    return upper + below_share * (lower - upper)


def read_pixel(image: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
    """Returns the pixels [h, w, C] at rows and columns [h, w] int32, clipped to the image."""
    height, width, _ = image.shape
    return image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
