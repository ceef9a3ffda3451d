"""Initializers by name, with those that jax lacks."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer, Shape

from zoo.lookup import lookup


def fan_in_uniform(key: jax.Array, shape: Shape, dtype: Dtype = jnp.float32) -> jax.Array:
    """Draws uniformly from -2.4 / F to 2.4 / F, with F inputs per unit.

    Args:
        key: random key.
        shape: shape of the kernel [..., in, out].
        dtype: dtype of the kernel.

    Returns:
        Kernel [..., in, out].

    Source: LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition, appendix A.

    >>> bool(abs(fan_in_uniform(jax.random.key(0), (24, 5))).max() <= 0.1)
    True
    """
    limit = 2.4 / math.prod(shape[:-1])
    return jax.random.uniform(key, shape, dtype, -limit, limit)


def sparse_normal(key: jax.Array, shape: Shape, dtype: Dtype = jnp.float32) -> jax.Array:
    """Draws fifteen inputs of each unit from N(0, 1) and sets the others to 0.

    Deep sigmoid networks learn from it, where Xavier initialization leaves them on a plateau.

    Args:
        key: random key.
        shape: shape of the kernel [..., in, out].
        dtype: dtype of the kernel.

    Returns:
        Kernel [..., in, out].

    Source: Martens 2010, Deep Learning via Hessian-Free Optimization, section 5; Caffe's MNIST
    auto-encoder.

    >>> (sparse_normal(jax.random.key(0), (100, 3)) != 0).sum(0).tolist()
    [15, 15, 15]
    """
    inputs, unit = math.prod(shape[:-1]), shape[-1]
    position_key, value_key = jax.random.split(key)
    order = jax.random.uniform(position_key, (inputs, unit)).argsort(0).argsort(0)
    kernel = jnp.where(order < 15, jax.random.normal(value_key, (inputs, unit), dtype), 0)
    return kernel.reshape(shape)


INITIALIZERS: dict[str, Initializer] = {
    "zeros": nn.initializers.zeros,
    "small_normal": nn.initializers.normal(0.01),
    "xavier": nn.initializers.xavier_uniform(),
    "he": nn.initializers.he_normal(),
    "he_fan_out": nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
    "torch": nn.initializers.variance_scaling(
        1 / 3, "fan_in", "uniform"
    ),  # the default of torch's layers
    "fan_in_uniform": fan_in_uniform,
    "sparse_normal": sparse_normal,
}


def lookup_initializer(name: str) -> Initializer:
    """Returns an initializer by name.

    Args:
        name: a key of INITIALIZERS.

    Returns:
        A function (key, shape, dtype) -> array.

    Raises:
        ValueError: if the name is unknown; the message suggests the nearest names.

    >>> float(lookup_initializer("zeros")(jax.random.key(0), (2, 3), jnp.float32).sum())
    0.0
    """
    return lookup(INITIALIZERS, name, kind="initializer")
