"""Regression losses against numpy, and where their gradients change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.losses import regression

RANDOM = np.random.default_rng(0)
OUTPUTS = RANDOM.normal(0, 2, (5, 4, 3)).astype(np.float32)
TARGETS = RANDOM.normal(0, 2, (5, 4, 3)).astype(np.float32)
R = np.abs(OUTPUTS - TARGETS).astype(np.float64)

CASES = {
    "squared_error": ({}, R**2),
    "absolute_error": ({}, R),
    "huber": (dict(delta=0.7), np.where(R <= 0.7, R**2 / 2, 0.7 * R - 0.7**2 / 2)),
    "smooth_l1": (dict(beta=0.7), np.where(R < 0.7, R**2 / 1.4, R - 0.35)),
}


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.mark.parametrize("name", CASES)
def test_values(name):
    fields, expected = CASES[name]
    loss = getattr(regression, name)(jnp.asarray(OUTPUTS), jnp.asarray(TARGETS), **fields)
    assert loss.shape == (5,)
    np.testing.assert_allclose(loss, expected.reshape(5, -1).mean(1), rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_jit_vmap_and_gradient(name):
    fields, _ = CASES[name]
    loss = lambda o, t: getattr(regression, name)(o, t, **fields)
    whole = loss(OUTPUTS, TARGETS)
    np.testing.assert_allclose(jax.jit(loss)(OUTPUTS, TARGETS), whole, rtol=1e-6)
    one = jax.vmap(lambda o, t: loss(o[None], t[None])[0])(OUTPUTS, TARGETS)
    np.testing.assert_allclose(one, whole, rtol=1e-6)
    at_target = jax.grad(lambda o: loss(o, TARGETS).sum())(TARGETS)
    assert np.abs(at_target).max() == 0, "no gradient where the output is right, and no NaN"


def test_huber_gradient_is_clipped():
    x = jnp.array([-3.0, -0.5, 0.2, 9.0])[:, None]
    grad = jax.grad(lambda o: regression.huber(o, jnp.zeros((4, 1)), delta=0.5).sum())(x)
    np.testing.assert_allclose(grad[:, 0], [-0.5, -0.5, 0.2, 0.5], rtol=1e-6)


def test_other_shapes():
    with pytest.raises(AssertionError):
        regression.squared_error(jnp.zeros((3, 1)), jnp.zeros((3,)))
