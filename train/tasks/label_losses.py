"""Losses of labels, and of the soft labels that mixing and smoothing create."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from zoo import losses
from zoo.lookup import lookup

LossName = Literal["softmax", "binary", "svm", "hinge"]


class Loss(NamedTuple):
    """A loss of classification.

    Attributes:
        hard: function of logits [B, K] and labels [B] that returns [B].
        soft: function of logits and soft labels [B, K] that returns [B], or None.
    """

    hard: Callable
    soft: Callable | None = None


def binary_loss(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Computes the binary cross-entropy [B] over the classes, of logits [B, K] and labels [B]."""
    return losses.binary_cross_entropy(logits, jax.nn.one_hot(label, logits.shape[-1]))


LOSSES = {
    "softmax": Loss(optax.softmax_cross_entropy_with_integer_labels, optax.softmax_cross_entropy),
    "binary": Loss(binary_loss, losses.binary_cross_entropy),
    "svm": Loss(losses.multiclass_svm),
    "hinge": Loss(optax.losses.multiclass_hinge_loss),
}


def lookup_loss(loss: str | Loss | Callable) -> Loss:
    """Returns the `Loss` of a name or a function; functions in the table have their soft form."""
    if isinstance(loss, str):
        return lookup(LOSSES, loss, kind="loss")
    if isinstance(loss, Loss):
        return loss
    return next((known for known in LOSSES.values() if loss is known.hard), Loss(loss))


def weighted_loss(
    law: Loss,
    logits: jax.Array,
    label: jax.Array,
    target: jax.Array | None,
    *,
    smoothing: float,
    weights: Sequence[float] | np.ndarray | None,
) -> tuple[jax.Array, jax.Array]:
    """Computes weighted losses, and the weights that divide their sum.

    Args:
        law: the loss.
        logits: logits [B, K].
        label: labels [B].
        target: soft labels [B, K], or None.
        smoothing: label smoothing.
        weights: class weights [K], or None.

    Returns:
        Losses [B] and weights [B].

    Raises:
        ValueError: if soft labels are given and the loss has no form for them.
    """
    one = jnp.ones(len(label), jnp.float32)
    by_class = None if weights is None else jnp.asarray(weights, jnp.float32)
    own = one if by_class is None else by_class[label]
    if target is None and not smoothing:
        return own * law.hard(logits, label), own
    if law.soft is None:
        raise ValueError(
            "mixed or smoothed labels need a loss that takes shares of classes: softmax or binary "
            "(or a Loss with `soft`); or leave mixup, cutmix and label_smoothing out"
        )
    soft = jax.nn.one_hot(label, logits.shape[-1]) if target is None else target
    soft = optax.smooth_labels(soft, smoothing)
    if by_class is None:
        return law.soft(logits, soft), one
    # The mean over classes drawn by their shares: w_c t_c as shares, times what they sum to.
    shares = soft * by_class[None]
    scale = jnp.sum(shares, 1)
    each = scale * law.soft(logits, shares / jnp.where(scale > 0, scale, 1.0)[:, None])
    return each, own if target is None else one
