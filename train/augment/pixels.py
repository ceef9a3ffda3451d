"""The one convention of color arithmetic: float32 in [0, 1], then the image's own dtype again."""

import jax
import jax.numpy as jnp


def to_unit(image: jax.Array) -> jax.Array:
    """[...] uint8, or floats in [0, 1] -> [...] float32 in [0, 1].

    Errors: ValueError for other dtypes.

    >>> to_unit(jnp.array([0, 255], jnp.uint8))
    Array([0., 1.], dtype=float32)
    """
    if image.dtype == jnp.uint8:
        return image.astype(jnp.float32) / 255
    if jnp.issubdtype(image.dtype, jnp.floating):
        return image.astype(jnp.float32)
    raise ValueError(
        f"expected an image of uint8 or of floats in [0, 1], got {image.dtype}; convert it first"
    )


def from_unit(value: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """[...] float32 -> [...] of dtype: clipped to [0, 1]; to the nearest of 256 levels for uint8.

    Rounds where Pillow and torchvision cut off: a chain of cut-offs darkens the image by half a
    level per link. So ours are within one level of theirs.

    >>> from_unit(jnp.array([-1.0, 0.2001, 2.0]), jnp.uint8)
    Array([  0,  51, 255], dtype=uint8)
    """
    value = jnp.clip(value, 0.0, 1.0)
    return (jnp.round(value * 255) if dtype == jnp.uint8 else value).astype(dtype)
