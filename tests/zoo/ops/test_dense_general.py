"""What a token goes through, against jax's own: values and gradients of every order."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from zoo.ops.attention import dot_product_attention
from zoo.ops.dense_general import dot_general, gelu
from zoo.ops.fusion import fusion_barrier

RANDOM = np.random.default_rng(0)
LAST = (((2,), (0,)), ((), ()))
CASES = {  # shapes of the arguments, ours, jax's
    "dense": (
        ((2, 5, 3), (3, 4)),
        lambda x, w: dot_general(x, w, LAST),
        lambda x, w: lax.dot_general(x, w, LAST),
    ),
    "attention": (((2, 5, 3, 8), (2, 7, 3, 8), (2, 7, 3, 8)), dot_product_attention, None),
    "gelu": (((3, 9),), gelu, functools.partial(jax.nn.gelu, approximate=False)),
    "once": (((3, 9),), fusion_barrier, lambda x: x),
}


def slopes(f, *arrays):
    places = tuple(range(len(arrays)))
    first = jax.grad(lambda *a: jnp.sum(jnp.sin(f(*a))), argnums=places)
    second = jax.grad(lambda *a: sum(jnp.sum(jnp.cos(g)) for g in first(*a)), argnums=places)
    return f(*arrays), first(*arrays), second(*arrays), jax.jvp(f, arrays, arrays)[1]


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case):
    shapes, ours, usual = CASES[case]
    arrays = [jnp.asarray(RANDOM.normal(size=(2, *shape)), jnp.float32) for shape in shapes]
    both = (
        jax.jit(jax.vmap(functools.partial(slopes, f)))(*arrays)
        for f in (ours, usual or jax.nn.dot_product_attention)
    )
    for a, b in zip(*map(jax.tree.leaves, both), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_bfloat16(case):
    shapes, ours, _ = CASES[case]
    exact = [jnp.asarray(RANDOM.normal(size=shape), jnp.float32) for shape in shapes]
    y = ours(*(x.astype(jnp.bfloat16) for x in exact))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), ours(*exact), rtol=0.05, atol=0.05)


def test_gelu_far_out():
    x = jnp.array([-1e4, -30.0, 30.0, jnp.inf, jnp.nan])
    np.testing.assert_array_equal(gelu(x), [0.0, 0.0, 30.0, jnp.inf, jnp.nan])


def test_other_products_are_left_to_xla():
    x, w = jnp.ones((2, 5, 3)), jnp.ones((2, 3, 4))
    numbers = (((2,), (1,)), ((0,), (0,)))
    assert dot_general(x, w, numbers).shape == lax.dot_general(x, w, numbers).shape
    names = list(inspect.signature(lax.dot_general).parameters)
    assert list(inspect.signature(dot_general).parameters) == names
