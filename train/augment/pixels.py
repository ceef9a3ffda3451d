"""Conversion of images to float32 in [0, 1] and back."""

import jax
import jax.numpy as jnp


def to_unit(image: jax.Array) -> jax.Array:
    """Converts an image of uint8, or floats in [0, 1], to float32 in [0, 1].

    Args:
        image: image [...].

    Returns:
        Values [...] float32.

    Raises:
        ValueError: if the dtype is another.

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
    """Converts float32 values to the dtype of an image, clipped to [0, 1].

    uint8 values are rounded to the nearest level. Pillow and torchvision truncate, which darkens an
    image by half a level for each operation, so results differ from theirs by at most one level.

    Args:
        value: values [...] float32.
        dtype: uint8, or a float dtype.

    Returns:
        The image [...].

    >>> from_unit(jnp.array([-1.0, 0.2001, 2.0]), jnp.uint8)
    Array([  0,  51, 255], dtype=uint8)
    """
    value = jnp.clip(value, 0.0, 1.0)
    return (jnp.round(value * 255) if dtype == jnp.uint8 else value).astype(dtype)
