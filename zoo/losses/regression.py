"""Regression losses, one number per example: the mean over all that an example holds."""

import chex
import jax
import jax.numpy as jnp


def sum_per_example(values: jax.Array) -> jax.Array:
    """`[B, ...] -> [B]`: the mean over every axis but the first.

    Source: so that a loss does not grow with the image, as torch's reduction "mean".

    >>> sum_per_example(jnp.array([[1.0, 3.0], [5.0, 5.0]])).tolist()
    [2.0, 5.0]
    """
    return values.reshape(values.shape[0], -1).mean(1)


def squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """`[B, ...], [B, ...] -> [B]`: mean of (output - target)^2, without a half.

    Source: Legendre 1805; optax's has this value per element.

    >>> squared_error(jnp.array([[3.0, 1.0]]), jnp.array([[1.0, 1.0]])).tolist()
    [2.0]
    """
    chex.assert_equal_shape([outputs, targets])
    return sum_per_example(jnp.square(outputs - targets))


def absolute_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """`[B, ...], [B, ...] -> [B]`: mean of |output - target|, of gradient 0 where they are equal.

    Source: Boscovich 1757, least absolute deviations; jnp.abs has gradient 1 at 0.

    >>> absolute_error(jnp.array([[3.0, 1.0]]), jnp.array([[1.0, 1.0]])).tolist()
    [1.0]
    """
    chex.assert_equal_shape([outputs, targets])
    error = outputs - targets
    return sum_per_example(error * jnp.sign(error))


def huber(outputs: jax.Array, targets: jax.Array, *, delta: float = 1.0) -> jax.Array:
    """`[B, ...], [B, ...] -> [B]`: mean of r^2 / 2 up to |r| = delta, delta |r| - delta^2 / 2 past.

    Source: Huber 1964, Robust Estimation of a Location Parameter.

    >>> huber(jnp.array([[3.0, 1.0]]), jnp.array([[1.0, 0.0]]), delta=1.0).tolist()
    [1.0]
    """
    chex.assert_equal_shape([outputs, targets])
    error = jnp.abs(outputs - targets)
    near = jnp.minimum(error, delta)
    return sum_per_example(near * (error - near / 2))


def smooth_l1(outputs: jax.Array, targets: jax.Array, *, beta: float = 1.0) -> jax.Array:
    """`[B, ...], [B, ...] -> [B]`: mean of r^2 / (2 beta) up to |r| = beta, |r| - beta / 2 past it.

    huber over delta: the slope far away is 1 whatever beta is. Fast R-CNN's sigma is beta^(-1/2).

    Source: Girshick 2015, Fast R-CNN, equation 3.

    >>> smooth_l1(jnp.array([[3.0, 1.0]]), jnp.array([[1.0, 0.0]]), beta=2.0).tolist()
    [0.625]
    """
    return huber(outputs, targets, delta=beta) / beta
