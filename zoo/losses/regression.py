"""Regression losses: the mean over all values of an example."""

import chex
import jax
import jax.numpy as jnp


def mean_per_example(values: jax.Array) -> jax.Array:
    """Averages over every axis but the first.

    Args:
        values: values [B, ...].

    Returns:
        Means [B].

    >>> mean_per_example(jnp.array([[1.0, 3.0], [5.0, 5.0]])).tolist()
    [2.0, 5.0]
    """
    return values.reshape(values.shape[0], -1).mean(1)


def squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Computes the mean of (output - target)², without a factor of one half.

    Args:
        outputs: predictions [B, ...].
        targets: targets [B, ...].

    Returns:
        Losses [B].

    >>> squared_error(jnp.array([[3.0, 1.0]]), jnp.array([[1.0, 1.0]])).tolist()
    [2.0]
    """
    chex.assert_equal_shape([outputs, targets])
    return mean_per_example(jnp.square(outputs - targets))


def absolute_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Computes the mean of |output - target|, with gradient 0 where they are equal.

    `jnp.abs` has gradient 1 at 0.

    Args:
        outputs: predictions [B, ...].
        targets: targets [B, ...].

    Returns:
        Losses [B].

    >>> absolute_error(jnp.array([[3.0, 1.0]]), jnp.array([[1.0, 1.0]])).tolist()
    [1.0]
    """
    chex.assert_equal_shape([outputs, targets])
    error = outputs - targets
    return mean_per_example(error * jnp.sign(error))


def huber(outputs: jax.Array, targets: jax.Array, *, delta: float = 1.0) -> jax.Array:
    """Computes the mean Huber loss: r² / 2 up to |r| = delta, then delta |r| - delta² / 2.

    Args:
        outputs: predictions [B, ...].
        targets: targets [B, ...].
        delta: where the loss becomes linear.

    Returns:
        Losses [B].

    Source: Huber 1964, Robust Estimation of a Location Parameter.

    >>> huber(jnp.array([[3.0, 1.0]]), jnp.array([[1.0, 0.0]]), delta=1.0).tolist()
    [1.0]
    """
    chex.assert_equal_shape([outputs, targets])
    error = jnp.abs(outputs - targets)
    near = jnp.minimum(error, delta)
    return mean_per_example(near * (error - near / 2))


def smooth_l1(outputs: jax.Array, targets: jax.Array, *, beta: float = 1.0) -> jax.Array:
    """Computes the mean of r² / (2 beta) up to |r| = beta, then |r| - beta / 2.

    It is `huber` divided by delta: the slope far away is 1 for every beta. Fast R-CNN's sigma is
    beta^(-1/2).

    Args:
        outputs: predictions [B, ...].
        targets: targets [B, ...].
        beta: where the loss becomes linear.

    Returns:
        Losses [B].

    Source: Girshick 2015, Fast R-CNN, equation 3.

    >>> smooth_l1(jnp.array([[3.0, 1.0]]), jnp.array([[1.0, 0.0]]), beta=2.0).tolist()
    [0.625]
    """
    return huber(outputs, targets, delta=beta) / beta
