"""Augmentation that crops one image."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from train.augment.pixels import from_unit, to_unit

ATTEMPTS = 10  # as in torchvision


def crop(key: jax.Array, image: jax.Array, *, size: tuple[int, int]) -> jax.Array:
    """Crops a random part of an image.

    Args:
        key: random key [].
        image: image [H, W, C].
        size: height and width.

    Returns:
        The image [*size, C].

    Raises:
        ValueError: if the image is smaller than `size`.

    >>> crop(jax.random.key(0), jnp.ones((8, 8, 3)), size=(4, 4)).shape
    (4, 4, 3)
    """
    height, width, channels = image.shape
    if height < size[0] or width < size[1]:
        raise ValueError(f"cannot cut {size} out of an image of {(height, width)}; pad it first")
    y, x = random_corner(key, (height, width), size=size)
    return jax.lax.dynamic_slice(image, (y, x, 0), (*size, channels))


def random_corner(key: jax.Array, whole: Sequence[int], *, size: tuple[int, int]) -> jax.Array:
    """Draws the corner y, x [2] of a part of `size` in an image of (height, width) `whole`."""
    last = jnp.array([whole[0] - size[0], whole[1] - size[1]])
    return jax.random.randint(key, (2,), 0, last + 1)


def pad_crop(
    key: jax.Array, image: jax.Array, *, pixels: int = 4, mode: str = "constant"
) -> jax.Array:
    """Pads an image and crops a random part of the original size.

    Args:
        key: random key [].
        image: image [H, W, C].
        pixels: padding on every side.
        mode: mode of jnp.pad, such as "constant" for black or "reflect".

    Returns:
        The image [H, W, C].

    Source: He et al. 2016, section 4.2 (CIFAR-10).

    >>> pad_crop(jax.random.key(0), jnp.ones((8, 8, 3))).shape
    (8, 8, 3)
    """
    padded = jnp.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)), mode=mode)
    height, width, _ = image.shape
    return crop(key, padded, size=(height, width))


def resized_crop(
    key: jax.Array,
    image: jax.Array,
    *,
    size: tuple[int, int],
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> jax.Array:
    """Crops a part of random area and aspect ratio, and resizes it.

    Resizing is linear with antialiasing, as in Pillow's resize with a `box`. This is for data sets
    with images of one size; the loader crops files of many sizes while decoding.

    Args:
        key: random key [].
        image: image [H, W, C].
        size: height and width.
        area: smallest and largest share of the area.
        ratio: smallest and largest ratio of width to height, uniform in its logarithm.

    Returns:
        The image [*size, C].

    Source: Szegedy et al. 2015, section 6; torchvision's RandomResizedCrop, which differs in that
    the resize does not see the pixels next to the part.

    >>> resized_crop(jax.random.key(0), jnp.ones((8, 8, 3)), size=(6, 6)).shape
    (6, 6, 3)
    """
    box = sample_crop_box(key, image.shape[0], image.shape[1], area=area, ratio=ratio)
    factor = jnp.array(size, jnp.float32) / jnp.stack([box.height, box.width]).astype(jnp.float32)
    corner = jnp.stack([box.y, box.x]).astype(jnp.float32)
    resized = jax.image.scale_and_translate(
        to_unit(image),
        (*size, image.shape[-1]),
        (0, 1),
        factor,
        -corner * factor,
        method="linear",
        antialias=True,
    )
    return from_unit(resized, image.dtype)


class CropBox(NamedTuple):
    """A part of an image in pixels; `accepted` is False if no random draw was valid."""

    y: jax.Array
    x: jax.Array
    height: jax.Array
    width: jax.Array
    accepted: jax.Array


def sample_crop_box(
    key: jax.Array,
    height: int,
    width: int,
    *,
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> CropBox:
    """Draws a part of an image: the first of ten draws that fits.

    If none fits, it is the largest part in the center with an allowed ratio.

    Args:
        key: random key [].
        height: height of the image.
        width: width of the image.
        area: smallest and largest share of the area.
        ratio: smallest and largest ratio of width to height.

    Returns:
        The part.

    >>> box = sample_crop_box(jax.random.key(0), 32, 32, area=(0.25, 0.25), ratio=(1.0, 1.0))
    >>> int(box.height), int(box.width)
    (16, 16)
    """
    # All numbers are drawn in one call, since each call takes half a second to compile on a CPU.
    draws = jax.random.uniform(key, (2 * ATTEMPTS + 2,))
    areas = height * width * (area[0] + (area[1] - area[0]) * draws[:ATTEMPTS])
    low, high = jnp.log(jnp.asarray(ratio, jnp.float32))
    ratios = jnp.exp(low + (high - low) * draws[ATTEMPTS:-2])
    heights = jnp.round(jnp.sqrt(areas / ratios)).astype(jnp.int32)
    widths = jnp.round(jnp.sqrt(areas * ratios)).astype(jnp.int32)
    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    first, drawn = jnp.argmax(fits), jnp.any(fits)

    widest = min(width, round(height * ratio[1]))
    tallest = min(height, round(width / ratio[0]))
    box_height = jnp.where(drawn, heights[first], tallest)
    box_width = jnp.where(drawn, widths[first], widest)
    y_share, x_share = jnp.where(drawn, draws[-2:], 0.5)
    return CropBox(
        y=(y_share * (height - box_height + 1).astype(jnp.float32)).astype(jnp.int32),
        x=(x_share * (width - box_width + 1).astype(jnp.float32)).astype(jnp.int32),
        height=box_height,
        width=box_width,
        accepted=drawn,
    )
