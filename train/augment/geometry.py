"""Augmentation that moves pixels: one key and one image at a time, to be vmapped."""

import jax
import jax.numpy as jnp


def shift(key: jax.Array, image: jax.Array, *, pixels: int) -> jax.Array:
    """Key [], [H, W, C] -> [H, W, C], moved by up to `pixels` along each axis, zeros moving in.

    Every whole shift is equally likely.

    Source: the translations of LeCun et al. 1998, section III.C.

    >>> image = jnp.arange(9.0).reshape(3, 3, 1)
    >>> shift(jax.random.key(0), image, pixels=1).shape
    (3, 3, 1)
    """
    padded = jnp.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)))
    y, x = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
    return jax.lax.dynamic_slice(padded, (y, x, 0), image.shape)
