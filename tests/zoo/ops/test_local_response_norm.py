"""Local response normalization against the paper's sum, channel by channel."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.ops.local_response_norm import local_response_norm

RANDOM = np.random.default_rng(0)


def as_published(x: np.ndarray, *, n: int, alpha: float, beta: float, k: float) -> np.ndarray:
    """Krizhevsky et al. 2012, section 3.3: alpha times the sum, from i - n/2 to i + n/2."""
    y = np.empty(x.shape)
    for i in range(x.shape[-1]):
        low, high = max(0, i - n // 2), min(x.shape[-1] - 1, i + n // 2)
        window = x[..., low : high + 1].astype(np.float64)
        y[..., i] = x[..., i] / (k + alpha * np.square(window).sum(-1)) ** beta
    return y


@pytest.mark.parametrize(
    ("channels", "n", "alpha", "beta", "k"),
    [
        (16, 5, 1e-4, 0.75, 2.0),
        (7, 3, 0.5, 0.5, 1.0),
        (3, 5, 1.0, 0.75, 1.0),
        (4, 1, 2.0, 1.0, 0.1),
    ],
)
def test_as_published(channels, n, alpha, beta, k):
    x = 50 * RANDOM.normal(size=(2, 3, 4, channels)).astype(np.float32)
    expected = as_published(x, n=n, alpha=alpha, beta=beta, k=k)
    y = jax.jit(lambda x: local_response_norm(x, size=n, alpha=alpha * n, beta=beta, k=k))(x)
    np.testing.assert_allclose(y, expected, rtol=1e-5)


def test_an_even_window_reaches_further_back():
    """As torch's: with two channels it is the one before and the channel itself."""
    x = jnp.array([3.0, 4.0, 1.0])
    y = local_response_norm(x, size=2, alpha=2.0, beta=1.0, k=0.0)
    np.testing.assert_allclose(y, [3 / 9, 4 / 25, 1 / 17], rtol=1e-6)


def test_bfloat16():
    x = jnp.ones((2, 8), jnp.bfloat16)
    assert local_response_norm(x, size=5, alpha=1e-4, beta=0.75, k=1.0).dtype == jnp.bfloat16


@pytest.mark.parametrize(("size", "beta"), [(5, 0.75), (4, 0.75), (3, 0.5), (5, 0.6)])
def test_gradients(size, beta):
    """Against the definition's own, of first and second order, forwards and by vmap."""
    x, g = jnp.asarray(RANDOM.normal(size=(2, 3, 2, 9)), jnp.float32)

    def plain(x):
        places = jnp.arange(x.shape[-1])
        ahead = places[:, None] - places[None]
        near = (ahead <= (size - 1) // 2) & (ahead >= (size - 1) // 2 + 1 - size)
        return x / (0.5 + 2.0 / size * (jnp.square(x) @ near.astype(x.dtype))) ** beta

    def ours(x):
        return local_response_norm(x, size=size, alpha=2.0, beta=beta, k=0.5)

    def slopes(f, x, g):
        first = jax.grad(lambda x: jnp.sum(f(x) * g))
        second = jax.grad(lambda x: jnp.sum(jnp.sin(first(x))))
        return f(x), first(x), second(x), jax.jvp(f, (x,), (g,))[1]

    found, expected = (jax.jit(jax.vmap(functools.partial(slopes, f)))(x, g) for f in (ours, plain))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
