"""Activations and initializers by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.layers.activation import ACTIVATIONS, lookup_activation
from zoo.layers.initializer import INITIALIZERS, lookup_initializer

X = np.linspace(-3, 9, 25)

CURVES = {
    "elu": np.where(X > 0, X, np.exp(X) - 1),
    "gelu": 0.5 * X * (1 + np.tanh(np.sqrt(2 / np.pi) * (X + 0.044715 * X**3))),
    "leaky_relu": np.where(X > 0, X, 0.01 * X),
    "linear": X,
    "relu": np.maximum(X, 0),
    "relu6": np.clip(X, 0, 6),
    "scaled_tanh": 1.7159 * np.tanh(2 * X / 3),
    "sigmoid": 1 / (1 + np.exp(-X)),
    "silu": X / (1 + np.exp(-X)),
    "softplus": np.log1p(np.exp(X)),
    "tanh": np.tanh(X),
}

DEVIATIONS = {  # of a kernel [3, 3, 40, 60]
    "zeros": 0.0,
    "small_normal": 0.01,
    "xavier": np.sqrt(2 / (9 * 40 + 9 * 60)),
    "he": np.sqrt(2 / (9 * 40)),
    "he_fan_out": np.sqrt(2 / (9 * 60)),
    "fan_in_uniform": 2.4 / (9 * 40) / np.sqrt(3),
    "torch": np.sqrt(1 / (3 * 9 * 40)),  # uniform up to the root of 1 / fan in
    "sparse_normal": np.sqrt(15 / (9 * 40)),
}


def test_each_is_tested():
    assert set(CURVES) == set(ACTIVATIONS)
    assert set(DEVIATIONS) == set(INITIALIZERS)


@pytest.mark.parametrize("name", CURVES)
def test_activations(name):
    y = lookup_activation(name)(jnp.asarray(X, jnp.float32))
    np.testing.assert_allclose(y, CURVES[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", DEVIATIONS)
def test_initializers(name):
    kernel = lookup_initializer(name)(jax.random.key(0), (3, 3, 40, 60), jnp.float32)
    assert abs(kernel.mean()) <= 0.02 * DEVIATIONS[name]
    np.testing.assert_allclose(kernel.std(), DEVIATIONS[name], rtol=0.04)


def test_unknown_names():
    with pytest.raises(ValueError, match="unknown activation 'tahn': did you mean tanh"):
        lookup_activation("tahn")
    with pytest.raises(ValueError, match="unknown initializer 'glorot': expected .*xavier"):
        lookup_initializer("glorot")
