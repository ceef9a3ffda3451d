"""Pooling against the definition, place by place."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.ops.pooling import adaptive_avg_pool

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("before", "after"),
    [((14, 14), (7, 7)), ((9, 13), (6, 6)), ((2, 3), (7, 7)), ((1, 1), (6, 6)), ((5, 8), (1, 3))],
)
def test_adaptive_avg_pool(before, after):
    x = RANDOM.normal(size=(2, *before, 3)).astype(np.float32)
    expected = np.empty((2, *after, 3))
    for i in range(after[0]):
        for j in range(after[1]):
            top, bottom = math.floor(i * before[0] / after[0]), (i + 1) * before[0] / after[0]
            left, right = math.floor(j * before[1] / after[1]), (j + 1) * before[1] / after[1]
            part = x[:, top : math.ceil(bottom), left : math.ceil(right)]
            expected[:, i, j] = part.astype(np.float64).mean((1, 2))
    y = jax.jit(lambda x: adaptive_avg_pool(x, size=after))(x)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    one = jax.vmap(lambda x: adaptive_avg_pool(x[None], size=after)[0])(x)
    np.testing.assert_allclose(one, y, rtol=1e-6, atol=1e-6)


def test_a_map_that_has_the_size():
    x = jnp.asarray(RANDOM.normal(size=(1, 6, 6, 2)), jnp.bfloat16)
    assert adaptive_avg_pool(x, size=(6, 6)) is x
    assert adaptive_avg_pool(x, size=(3, 6)).dtype == jnp.bfloat16


def test_gradient_spreads_evenly():
    """Parts that tile the map hand each of their pixels its share."""
    weights = jnp.arange(6.0).reshape(1, 2, 3, 1)

    def loss(x):
        return (adaptive_avg_pool(x, size=(2, 3)) * weights).sum()

    grad = jax.grad(loss)(jnp.zeros((1, 4, 9, 1)))
    expected = np.arange(6.0).reshape(2, 3).repeat(2, 0).repeat(3, 1) / 6
    np.testing.assert_allclose(grad[0, :, :, 0], expected, rtol=1e-6)
