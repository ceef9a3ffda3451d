"""Changes of 8-bit levels with lookup tables of 256 entries.

The functions are deterministic; the policies draw their strength. Images are uint8, or floats in
[0, 1], which are rounded to the nearest of 256 levels.
"""

import jax
import jax.numpy as jnp

from train.augment.pixels import from_unit, to_unit


def posterize(image: jax.Array, *, bits: int | jax.Array) -> jax.Array:
    """Keeps the upper `bits` of 8 bits of an image [H, W, C] and sets the others to 0.

    >>> posterize(jnp.array([[[255]]], jnp.uint8), bits=1).item()
    128
    """
    dropped = jnp.asarray(8 - bits, jnp.int32)
    return lookup_levels(image, (all_levels() >> dropped) << dropped)


def solarize(image: jax.Array, *, threshold: float | jax.Array) -> jax.Array:
    """Inverts the levels of an image [H, W, C] from `threshold` (0 to 256) on.

    >>> solarize(jnp.array([[[100], [200]]], jnp.uint8), threshold=128).ravel()
    Array([100,  55], dtype=uint8)
    """
    level = all_levels()
    below = level.astype(jnp.float32) < threshold
    return lookup_levels(image, jnp.where(below, level, 255 - level))


def invert(image: jax.Array) -> jax.Array:
    """Inverts all levels of an image [H, W, C].

    >>> invert(jnp.array([[[100]]], jnp.uint8)).item()
    155
    """
    return lookup_levels(image, 255 - all_levels())


def autocontrast(image: jax.Array) -> jax.Array:
    """Stretches each channel of an image [H, W, C] from black to white.

    A channel with one level does not change.

    >>> autocontrast(jnp.array([[[100], [150], [200]]], jnp.uint8)).ravel()
    Array([  0, 128, 255], dtype=uint8)
    """
    level, pixels = all_levels(), to_uint8(image).astype(jnp.int32)
    low, high = jnp.min(pixels, (0, 1))[None], jnp.max(pixels, (0, 1))[None]
    spread = jnp.maximum(high - low, 1)
    stretched = (2 * 255 * (level - low) + spread) // (2 * spread)  # to the nearest
    return lookup_levels(image, jnp.where(high > low, jnp.clip(stretched, 0, 255), level))


def equalize(image: jax.Array) -> jax.Array:
    """Equalizes the histogram of each channel of an image [H, W, C].

    Source: Pillow's ImageOps.equalize, to the level; so a channel is left as it is where fewer than
    255 of its pixels are below its highest level.

    >>> equalize(jnp.array([[[100], [150], [200]]], jnp.uint8)).ravel()
    Array([100, 150, 200], dtype=uint8)
    """
    level, pixels = all_levels(), to_uint8(image).astype(jnp.int32)
    channels = image.shape[-1]
    counts = jnp.zeros((256, channels), jnp.int32)
    counts = counts.at[pixels.reshape(-1, channels), jnp.arange(channels)].add(1)
    upto = jnp.cumsum(counts, 0)
    highest = jnp.max(pixels, (0, 1))[None]
    step = (upto[-1:] - jnp.take_along_axis(counts, highest, 0)) // 255
    # Pillow's running sum starts at half a step and stands before the level's own count.
    spread = (step // 2 + upto - counts) // jnp.maximum(step, 1)
    return lookup_levels(image, jnp.where(step > 0, jnp.clip(spread, 0, 255), level))


def lookup_levels(image: jax.Array, table: jax.Array) -> jax.Array:
    """Applies a table [256, C or 1] of levels to an image [H, W, C]."""
    channels = image.shape[-1]
    table = jnp.broadcast_to(table, (256, channels)).astype(jnp.uint8)
    found = table[to_uint8(image).astype(jnp.int32), jnp.arange(channels)]
    return found if image.dtype == jnp.uint8 else to_unit(found).astype(image.dtype)


def to_uint8(image: jax.Array) -> jax.Array:
    """Converts an image of uint8, or floats in [0, 1], to uint8."""
    return from_unit(to_unit(image), jnp.dtype(jnp.uint8))


def all_levels() -> jax.Array:
    """Returns the identity table [256, 1] int32."""
    return jnp.arange(256, dtype=jnp.int32)[:, None]
