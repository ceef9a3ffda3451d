"""Initializers by name; those that jax lacks are written here."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer, Shape

from zoo.lookup import lookup


def fan_in_uniform(key: jax.Array, shape: Shape, dtype: Dtype = jnp.float32) -> jax.Array:
    """`-> [..., in, out]`, uniform from -2.4 / F to 2.4 / F, F the number of inputs of a unit.

    Source: LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition, appendix A.

    >>> bool(abs(fan_in_uniform(jax.random.key(0), (24, 5))).max() <= 0.1)
    True
    """
    limit = 2.4 / math.prod(shape[:-1])
    return jax.random.uniform(key, shape, dtype, -limit, limit)


def sparse_normal(key: jax.Array, shape: Shape, dtype: Dtype = jnp.float32) -> jax.Array:
    """`-> [..., in, out]`: fifteen inputs of each unit drawn from N(0, 1), the others 0.

    Deep sigmoid nets start to learn from it, where xavier leaves them on a plateau.

    Source: Martens 2010, Deep Learning via Hessian-Free Optimization, section 5; Caffe's MNIST
    auto-encoder starts so.

    >>> (sparse_normal(jax.random.key(0), (100, 3)) != 0).sum(0).tolist()
    [15, 15, 15]
    """
    inputs, unit = math.prod(shape[:-1]), shape[-1]
    where, values = jax.random.split(key)
    order = jax.random.uniform(where, (inputs, unit)).argsort(0).argsort(0)
    kernel = jnp.where(order < 15, jax.random.normal(values, (inputs, unit), dtype), 0)
    return kernel.reshape(shape)


INITIALIZERS: dict[str, Initializer] = {
    "zeros": nn.initializers.zeros,
    "small_normal": nn.initializers.normal(0.01),
    "xavier": nn.initializers.xavier_uniform(),
    "he": nn.initializers.he_normal(),
    "he_fan_out": nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
    "torch": nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),  # its layers' default
    "fan_in_uniform": fan_in_uniform,
    "sparse_normal": sparse_normal,
}


def lookup_initializer(name: str) -> Initializer:
    """Name of a function `key, shape -> [..., in, out]` to it; ValueError if none is so called.

    Source: the table INITIALIZERS; all but the two above are jax.nn.initializers'.

    >>> float(lookup_initializer("zeros")(jax.random.key(0), (2, 3), jnp.float32).sum())
    0.0
    """
    return lookup(INITIALIZERS, name, kind="initializer")
