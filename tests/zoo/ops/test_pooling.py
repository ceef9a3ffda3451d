"""Pooling against the definition, place by place, and against XLA's own with its gradients."""

import functools
import inspect
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.ops.pooling import adaptive_avg_pool, avg_pool, max_pool

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


# Map [B, ..., C], window, strides, padding.
WINDOWS = {
    "2x2 stride 2": ((2, 6, 8, 3), (2, 2), (2, 2), "VALID"),
    "2x2 stride 2, odd": ((1, 7, 5, 3), (2, 2), (2, 2), "VALID"),
    "3x3 stride 2": ((2, 9, 8, 3), (3, 3), (2, 2), ((1, 1), (1, 1))),
    "3x3 stride 2 VALID": ((1, 8, 9, 3), (3, 3), (2, 2), "VALID"),
    "3x3 stride 2 SAME": ((1, 8, 9, 3), (3, 3), (2, 2), "SAME"),
    "2x2 stride 1": ((1, 5, 6, 3), (2, 2), None, "SAME"),
    "1x3 stride 1, 3": ((1, 5, 11, 3), (1, 3), (1, 3), ((0, 0), (2, 1))),
    "stride above window": ((1, 9, 9, 2), (2, 2), (3, 3), "VALID"),
    "3-D": ((2, 4, 6, 5, 2), (2, 3, 3), (2, 2, 2), ((0, 0), (1, 1), (1, 1))),
}


def flax_avg_pool(x, window_shape, strides=None, padding="VALID"):
    with jax.numpy_dtype_promotion("standard"):  # it divides by an integer
        return nn.avg_pool(x, window_shape, strides, padding)


POOLS = {"max": (max_pool, nn.max_pool), "avg": (avg_pool, flax_avg_pool)}


def cases(pool, window, dtype=jnp.float32):
    """A map with many ties, as after a ReLU of few levels, slopes, ours and flax's."""
    shape, sizes, strides, padding = WINDOWS[window]
    x = jnp.asarray(RANDOM.integers(-3, 3, shape).clip(0), dtype)
    ours, flax = (
        functools.partial(f, window_shape=sizes, strides=strides, padding=padding)
        for f in POOLS[pool]
    )
    y = jax.eval_shape(flax, x)
    return x, jnp.asarray(RANDOM.normal(size=y.shape), dtype), ours, flax


def both_ways(pool, x, g):
    y, backward = jax.vjp(pool, x)
    return y, backward(g)[0]


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("window", WINDOWS)
def test_values_and_gradients_are_those_of_flax(pool, window):
    x, g, ours, flax = cases(pool, window)
    found, expected = (jax.jit(functools.partial(both_ways, f))(x, g) for f in (ours, flax))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pool", POOLS)
def test_vmap_and_forward_mode(pool):
    x, _, ours, flax = cases(pool, "3x3 stride 2")
    x = jnp.asarray(RANDOM.permutation(x.size).reshape(x.shape), jnp.float32)  # no ties
    many = jnp.stack([x, -x])
    found, expected = (
        jax.jit(jax.vmap(lambda x, f=f: jax.jvp(f, (x,), (jnp.sin(x),))))(many)
        for f in (ours, flax)
    )
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pool", POOLS)
def test_gradients_of_gradients(pool):
    x, g, ours, flax = cases(pool, "3x3 stride 2")

    def slope(f, x):
        return jax.grad(lambda x: jnp.sum(jnp.sin(both_ways(f, x, g * f(x))[1])))(x)

    np.testing.assert_allclose(
        *(jax.jit(slope, static_argnums=0)(f, x) for f in (ours, flax)), 1e-4, 1e-4
    )


@pytest.mark.parametrize("pool", POOLS)
def test_other_types(pool):
    x, g, ours, flax = cases(pool, "3x3 stride 2", jnp.bfloat16)
    (y, slopes), exact = both_ways(ours, x, g), flax(x.astype(jnp.float32))
    assert y.dtype == slopes.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=1e-2)


def test_not_a_number_stays():
    x = jnp.zeros((1, 4, 4, 1)).at[0, 1, 2, 0].set(jnp.nan)
    y = max_pool(x, (2, 2), (2, 2))[0, :, :, 0]
    assert jnp.isnan(y).tolist() == [[False, True], [False, False]]


def test_the_signatures_are_flaxs():
    for ours, flax in ((max_pool, nn.max_pool), (avg_pool, nn.avg_pool)):
        theirs = list(inspect.signature(flax).parameters)
        assert list(inspect.signature(ours).parameters) == theirs[:4]
