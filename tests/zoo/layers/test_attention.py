"""Attention against plain numpy, with its maps and without."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.layers.attention import DotProductAttention

RANDOM = np.random.default_rng(0)
QUERY = RANDOM.normal(size=(2, 5, 3, 8)).astype(np.float32)
KEY, VALUE = RANDOM.normal(size=(2, 2, 7, 3, 8)).astype(np.float32)


def by_hand():
    """Equation 1, one query at a time."""
    outputs, maps = np.zeros(QUERY.shape), np.zeros((2, 3, 5, 7))
    for b, q, h in np.ndindex(2, 5, 3):
        weights = np.exp(KEY[b, :, h].astype(np.float64) @ QUERY[b, q, h] / np.sqrt(8))
        maps[b, h, q] = weights / weights.sum()
        outputs[b, q, h] = maps[b, h, q] @ VALUE[b, :, h]
    return outputs, maps


@pytest.mark.parametrize("asked", [False, True])
def test_attention(asked):
    y, maps = jax.jit(DotProductAttention(asked).apply)({}, QUERY, KEY, VALUE)
    expected, weights = by_hand()
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    if asked:
        np.testing.assert_allclose(maps, weights, rtol=1e-5, atol=1e-6)
    else:
        assert maps is None


def test_bfloat16():
    """The softmax is float32's on either way."""
    arrays = [jnp.asarray(x, jnp.bfloat16) for x in (QUERY, KEY, VALUE)]
    fused, _ = DotProductAttention().apply({}, *arrays)
    y, maps = DotProductAttention(maps=True).apply({}, *arrays)
    assert (fused.dtype, y.dtype, maps.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    for each in (fused, y):
        np.testing.assert_allclose(np.float32(each), by_hand()[0], rtol=0.02, atol=0.02)


@pytest.fixture
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def test_float64(float64):
    """Beyond what jax.nn's own, whose softmax is float32's, can do."""
    arrays = [jnp.asarray(x, jnp.float64) for x in (QUERY, KEY, VALUE)]
    y, _ = DotProductAttention().apply({}, *arrays)
    np.testing.assert_allclose(y, by_hand()[0], rtol=1e-12)


def test_macs_by_hand():
    """3 heads, each 5 x 7 products of 8 numbers, twice."""
    assert DotProductAttention.macs(QUERY, KEY, VALUE) == 3 * 5 * 7 * 8 * 2
