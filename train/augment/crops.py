"""Augmentation that cuts out a part: one key and one image at a time, to be vmapped."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from train.augment.pixels import from_unit, to_unit

ATTEMPTS = 10  # as in torchvision


def crop(key: jax.Array, image: jax.Array, *, size: tuple[int, int]) -> jax.Array:
    """Key [], [H, W, C] -> [*size, C], every place equally likely.

    Errors: ValueError where the image is smaller than `size` (height, width).

    >>> crop(jax.random.key(0), jnp.ones((8, 8, 3)), size=(4, 4)).shape
    (4, 4, 3)
    """
    height, width, channels = image.shape
    if height < size[0] or width < size[1]:
        raise ValueError(f"cannot cut {size} out of an image of {(height, width)}; pad it first")
    y, x = random_corner(key, (height, width), size=size)
    return jax.lax.dynamic_slice(image, (y, x, 0), (*size, channels))


def random_corner(key: jax.Array, whole: Sequence[int], *, size: tuple[int, int]) -> jax.Array:
    """Key [], (height, width) -> y, x [2]: where `crop` cuts `size` out of an image as large."""
    last = jnp.array([whole[0] - size[0], whole[1] - size[1]])
    return jax.random.randint(key, (2,), 0, last + 1)


def pad_crop(
    key: jax.Array, image: jax.Array, *, pixels: int = 4, mode: str = "constant"
) -> jax.Array:
    """Key [], [H, W, C] -> [H, W, C], cut from the image with `pixels` more on every side.

    mode: of jnp.pad; "constant" pads with black, "reflect" with the mirrored image.

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
    """Key [], [H, W, C] -> [*size, C]: a part of random area and shape, resized.

    For sets of one image size; ragged photographs are cut on the host, while decoding.
    area: between which shares of the image. ratio: of width to height, uniform in its logarithm.
    Linear with antialiasing, as in Pillow's resize with a `box`.

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
    """A part of an image in whole pixels; `accepted` is False where no draw had fitted."""

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
    """Key [] -> a Box in an image of height x width: the first of ten draws that fits.

    Where none fits, the largest box in the middle whose ratio is allowed.

    >>> box = sample_crop_box(jax.random.key(0), 32, 32, area=(0.25, 0.25), ratio=(1.0, 1.0))
    >>> int(box.height), int(box.width)
    (16, 16)
    """
    # One call for all draws: every further one is half a second of compiling on a CPU.
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
