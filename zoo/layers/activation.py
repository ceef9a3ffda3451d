"""Activation functions by name."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.lookup import lookup


def scaled_tanh(x: jax.Array) -> jax.Array:
    """`[...] -> [...]`: 1.7159 tanh(2x/3), which is 1 at 1 and -1 at -1.

    Source: LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition, equation 6
    and appendix A.

    >>> bool(abs(scaled_tanh(jnp.float32(1.0)) - 1) < 1e-4)
    True
    """
    return 1.7159 * jnp.tanh(2 / 3 * x)


def identity(x: jax.Array) -> jax.Array:
    """`[...] -> [...]`: x itself.

    Source: the identity, by the name that papers give it.

    >>> float(identity(jnp.float32(3.0)))
    3.0
    """
    return x


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "elu": nn.elu,
    "gelu": nn.gelu,
    "leaky_relu": nn.leaky_relu,  # slope 0.01 below zero
    "linear": identity,
    "relu": nn.relu,
    "relu6": nn.relu6,
    "scaled_tanh": scaled_tanh,
    "sigmoid": nn.sigmoid,
    "silu": nn.silu,
    "softplus": nn.softplus,
    "tanh": nn.tanh,
}


def lookup_activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """Name of a function `[...] -> [...]` to it; ValueError if none is so called.

    Source: the table ACTIVATIONS; all but scaled_tanh and linear are jax.nn's.

    >>> float(lookup_activation("leaky_relu")(jnp.float32(-100.0)))
    -1.0
    """
    return lookup(ACTIVATIONS, name, kind="activation")
