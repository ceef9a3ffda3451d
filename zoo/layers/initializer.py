"""Initialisers by name; those that jax lacks are written here."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer, Shape

from zoo.choice import choose


def fan_in_uniform(key: jax.Array, shape: Shape, dtype: Dtype = jnp.float32) -> jax.Array:
    """`-> [..., in, out]`, uniform from -2.4 / F to 2.4 / F, F the number of inputs of a unit.

    Source: LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition, appendix A.

    >>> bool(abs(fan_in_uniform(jax.random.key(0), (24, 5))).max() <= 0.1)
    True
    """
    limit = 2.4 / math.prod(shape[:-1])
    return jax.random.uniform(key, shape, dtype, -limit, limit)


INITIALIZERS: dict[str, Initializer] = {
    "zeros": nn.initializers.zeros,
    "small_normal": nn.initializers.normal(0.01),
    "xavier": nn.initializers.xavier_uniform(),
    "he": nn.initializers.he_normal(),
    "he_fan_out": nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
    "torch": nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),  # its layers' default
    "fan_in_uniform": fan_in_uniform,
}


def initializer(name: str) -> Initializer:
    """Name of a function `key, shape -> [..., in, out]` to it; ValueError if none is so called.

    Source: the table INITIALIZERS; all but fan_in_uniform are jax.nn.initializers'.

    >>> float(initializer("zeros")(jax.random.key(0), (2, 3), jnp.float32).sum())
    0.0
    """
    return choose(INITIALIZERS, name, what="initialiser")
