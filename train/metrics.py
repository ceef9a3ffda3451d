"""Hits on the device, counts and figures on the host."""

import jax
import jax.numpy as jnp
import numpy as np


def top_k(logits: jax.Array, label: jax.Array, *, k: int) -> jax.Array:
    """[B, K], [B] -> [B] bool: the label is among the k highest; ties count for the label.

    >>> top_k(jnp.array([[0.1, 0.3, 0.2]]), jnp.array([2]), k=2)
    Array([ True], dtype=bool)
    """
    own = jnp.take_along_axis(logits, label[:, None], axis=1)
    return jnp.sum(~(logits <= own), axis=1) < k  # so written, a NaN is no hit


def confusion(predicted: np.ndarray, label: np.ndarray, *, classes: int) -> np.ndarray:
    """[N], [N] -> counts [K, K]: row the truth, column the prediction; a label of -1 is left out.

    >>> confusion(np.array([1, 0, 0]), np.array([1, 1, -1]), classes=2)
    array([[0, 0],
           [1, 1]])
    """
    kept = label >= 0
    cells = np.int64(classes) * label[kept] + predicted[kept]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def per_class(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Confusion counts [K, K] -> {"precision", "recall", "f1"} [K], nan where it is 0 / 0.

    F1 is 2 hits / (examples + predictions): 0 for a class that is there and never found.

    >>> {name: share.round(2).tolist() for name, share in per_class(np.array([[3, 1], [0, 2]])).items()}
    {'precision': [1.0, 0.67], 'recall': [0.75, 1.0], 'f1': [0.86, 0.8]}
    """
    hits, there, said = np.diag(counts), counts.sum(1), counts.sum(0)
    with np.errstate(invalid="ignore"):
        return {
            "precision": hits / said,
            "recall": hits / there,
            "f1": 2 * hits / (there + said),
        }
