"""Counts on the device, figures on the host."""

import jax
import jax.numpy as jnp
import numpy as np


def confusion(
    predicted: jax.Array, label: jax.Array, valid: jax.Array, *, classes: int
) -> jax.Array:
    """[B], [B], [B] -> counts [K, K] int32: row the truth, column the prediction.

    >>> confusion(jnp.array([1, 0]), jnp.array([1, 1]), jnp.array([True, True]), classes=2)
    Array([[0, 0],
           [1, 1]], dtype=int32)
    """
    cells = jnp.zeros((classes, classes), jnp.int32)
    return cells.at[label, predicted].add(valid.astype(jnp.int32))


def top_k(logits: jax.Array, label: jax.Array, *, k: int) -> jax.Array:
    """[B, K], [B] -> [B] bool: the label is among the k highest; ties count for the label.

    >>> top_k(jnp.array([[0.1, 0.3, 0.2]]), jnp.array([2]), k=2)
    Array([ True], dtype=bool)
    """
    own = jnp.take_along_axis(logits, label[:, None], axis=1)
    return jnp.sum(~(logits <= own), axis=1) < k  # so written, a NaN is no hit


def recall(counts: np.ndarray) -> np.ndarray:
    """Confusion counts [K, K] -> share of each class found [K], nan for a class without examples.

    >>> recall(np.array([[3, 1], [0, 2]]))
    array([0.75, 1.  ])
    """
    with np.errstate(invalid="ignore"):
        return np.diag(counts) / counts.sum(1)
