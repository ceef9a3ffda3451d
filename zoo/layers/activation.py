"""Activation functions by name."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.lookup import lookup


def scaled_tanh(x: jax.Array) -> jax.Array:
    """Computes 1.7159 tanh(2x / 3), which is 1 at 1 and -1 at -1.

    Args:
        x: any array [...].

    Returns:
        Array [...].

    Source: LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition, equation 6
    and appendix A.

    >>> bool(abs(scaled_tanh(jnp.float32(1.0)) - 1) < 1e-4)
    True
    """
    return 1.7159 * jnp.tanh(2 / 3 * x)


def identity(x: jax.Array) -> jax.Array:
    """Returns x; papers call it the linear activation.

    Args:
        x: any array [...].

    Returns:
        The same array.

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
    """Returns an activation function by name.

    Args:
        name: a key of ACTIVATIONS.

    Returns:
        A function [...] -> [...].

    Raises:
        ValueError: if the name is unknown; the message suggests the nearest names.

    >>> float(lookup_activation("leaky_relu")(jnp.float32(-100.0)))
    -1.0
    """
    return lookup(ACTIVATIONS, name, kind="activation")
