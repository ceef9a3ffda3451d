"""Sums over pixels against numpy, and what BatchNorm makes of them against its plain formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.ops.channels import channel_sum, standardize

SHAPES = [(5, 3), (2, 7, 7, 4), (2, 14, 14, 3), (1, 31, 29, 2), (3, 2, 16, 17, 5), (1, 53, 53, 1)]


def drawn(shape, seed=0):
    return np.random.default_rng(seed).normal(2.0, 3.0, shape).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_sum(shape):
    x = drawn(shape)
    expected = x.astype(np.float64).reshape(-1, shape[-1]).sum(0)
    found = jax.jit(channel_sum)(x)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    slope = jax.grad(lambda x: jnp.sum(channel_sum(x) * jnp.arange(1.0, 1 + shape[-1])))(x)
    np.testing.assert_allclose(slope, np.broadcast_to(np.arange(1.0, 1 + shape[-1]), shape))


def test_sum_by_vmap_and_forward():
    x = drawn((3, 2, 15, 15, 4))
    mapped = jax.vmap(channel_sum)(x)
    np.testing.assert_allclose(mapped, x.sum((1, 2, 3)), rtol=1e-5)
    value, slope = jax.jvp(channel_sum, (x[0],), (x[1],))
    np.testing.assert_allclose(value, x[0].sum((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(slope, x[1].sum((0, 1, 2)), rtol=1e-5)


def plain(x, *each):
    mean, slope, bias = (jnp.broadcast_to(a, x.shape) for a in each)
    return (x - mean) * slope + bias


@pytest.mark.parametrize("shape", [(4, 3), (2, 16, 15, 3)])
def test_standardize(shape):
    arguments = drawn(shape), *drawn((3, 3), 1)

    def everything(f):
        def loss(*arguments):
            return jnp.sum(jnp.sin(f(*arguments)))

        def slopes(*arguments):
            return jax.grad(loss, (0, 1, 2, 3))(*arguments)

        def bent(*arguments):
            return sum(jnp.sum(jnp.cos(s)) for s in slopes(*arguments))

        many = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), arguments)
        second = jax.grad(bent, (0, 1, 2, 3))
        return jax.jit(lambda a: (f(*a), slopes(*a), second(*a), jax.vmap(slopes)(*many)))(
            arguments
        )

    for a, b in zip(*map(jax.tree.leaves, map(everything, (standardize, plain))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


def test_forward_mode_says_so():
    x = drawn((2, 3))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: standardize(x, *drawn((3, 3))), (x,), (x,))
