"""Pooling that flax lacks."""

import jax
import jax.numpy as jnp
import numpy as np


def averaging_matrix(length: int, bins: int) -> np.ndarray:
    """`-> [bins, length]`, row i the mean over places floor(i L / bins) to ceil((i + 1) L / bins).

    Source: torch.nn.AdaptiveAvgPool1d.

    >>> averaging_matrix(3, 2).tolist()
    [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]
    """
    matrix = np.zeros((bins, length))
    for i in range(bins):
        start, stop = i * length // bins, -(-(i + 1) * length // bins)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix


def adaptive_avg_pool(x: jax.Array, *, size: tuple[int, int]) -> jax.Array:
    """`[B, H, W, C] -> [B, h, w, C]`, (h, w) = `size`: means over equal parts of the map.

    Parts overlap by a pixel where H is no multiple of h, and repeat pixels where H is less than h.
    A map that has the size comes back as it is.

    Source: torch.nn.AdaptiveAvgPool2d.

    >>> adaptive_avg_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), size=(2, 2))[0, :, :, 0].tolist()
    [[2.5, 4.5], [10.5, 12.5]]
    """
    if x.shape[1:3] == size:
        return x
    rows = jnp.asarray(averaging_matrix(x.shape[1], size[0]), x.dtype)
    columns = jnp.asarray(averaging_matrix(x.shape[2], size[1]), x.dtype)
    return jnp.einsum("bhwc,ih,jw->bijc", x, rows, columns, precision="highest")
