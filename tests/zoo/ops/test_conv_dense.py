"""The kernel's gradient by products against XLA's own convolution, and who takes it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.zoo.ops.assertions import close, gradients
from zoo.ops.conv_dense import conv_dense, convolve_by_matmul, exceeds_cache
from zoo.ops.conv_spec import NHWC, ConvSpec

# Image [B, H, W, C], kernel [h, w, C, D], padding, dilation.
CASES = {
    "3x3": ((2, 7, 9, 3), (3, 3, 3, 4), ((1, 1), (1, 1)), (1, 1)),
    "one image": ((1, 6, 6, 5), (3, 3, 5, 2), ((1, 1), (1, 1)), (1, 1)),
    "more than the blocks": ((12, 5, 4, 2), (3, 3, 2, 3), ((1, 1), (1, 1)), (1, 1)),
    "5x5": ((3, 9, 8, 3), (5, 5, 3, 4), ((2, 2), (2, 2)), (1, 1)),
    "even, uneven padding": ((2, 7, 9, 3), (2, 4, 3, 4), ((0, 1), (2, 0)), (1, 1)),
    "no padding": ((2, 7, 9, 3), (3, 3, 3, 4), ((0, 0), (0, 0)), (1, 1)),
    "dilated": ((2, 9, 9, 3), (3, 3, 3, 4), ((2, 2), (2, 2)), (2, 2)),
    "a column": ((1, 9, 8, 3), (5, 1, 3, 4), ((1, 2), (0, 0)), (1, 1)),
    "a row": ((3, 9, 8, 3), (1, 4, 3, 4), ((0, 0), (0, 3)), (1, 2)),
}  # fmt: skip


def case(name):
    image, kernel, padding, dilation = CASES[name]
    random = np.random.default_rng(0)
    x, w = (jnp.asarray(random.normal(size=size), jnp.float32) for size in (image, kernel))
    xla = functools.partial(
        lax.conv_general_dilated,
        window_strides=(1, 1),
        padding=padding,
        rhs_dilation=dilation,
        dimension_numbers=NHWC,
    )
    return x, w, ConvSpec((1, 1), padding, dilation, 1), xla


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name):
    x, w, shape, xla = case(name)
    ours = functools.partial(convolve_by_matmul, shape=shape)
    both = (jax.jit(lambda x, w, f=f: (f(x, w), gradients(f, x, w)))(x, w) for f in (ours, xla))
    close(*both)


@pytest.fixture(params=[True, False], ids=["products", "xla"])
def convolve(request, monkeypatch):
    """`conv_dense` where the gradient is by products, and where it is XLA's."""
    monkeypatch.setattr("zoo.ops.conv_dense.exceeds_cache", lambda *_: request.param)
    return conv_dense


@pytest.mark.parametrize("name", ["3x3", "dilated"])
def test_every_derivative(name, convolve):
    x, w, shape, xla = case(name)

    def derivatives(f, x, w):
        def norm(x, w):
            return sum(jnp.sum(jnp.sin(g)) for g in gradients(f, x, w))

        forward = jax.jvp(f, (x, w), (2 * x, -w))
        many = jnp.stack([x, -2 * x])
        mapped = jax.vmap(functools.partial(gradients, f), (0, None))(many, w)
        return forward, mapped, jax.grad(norm, argnums=(0, 1))(x, w)

    ours = functools.partial(convolve, shape=shape)
    close(*(jax.jit(functools.partial(derivatives, f))(x, w) for f in (ours, xla)))


@pytest.mark.parametrize(
    ("image", "kernel", "strides", "dtype", "large"),
    [
        ((8, 56, 56, 128), (3, 3, 128, 128), 1, "float32", True),
        ((8, 56, 56, 128), (3, 3, 128, 128), 1, "float64", True),
        ((8, 56, 56, 128), (3, 3, 128, 128), 1, "bfloat16", False),
        ((8, 56, 56, 128), (3, 3, 128, 128), 2, "float32", False),
        ((8, 14, 14, 256), (3, 3, 256, 256), 1, "float32", False),
        ((8, 224, 224, 3), (3, 3, 3, 64), 1, "float32", False),
        ((8, 224, 224, 64), (3, 3, 64, 16), 1, "float32", False),
    ],
)
def test_who_takes_products(image, kernel, strides, dtype, large):
    shape = ConvSpec((strides, strides), ((1, 1), (1, 1)), (1, 1), 1)
    with jax.enable_x64(True):
        x, w = (jax.ShapeDtypeStruct(size, dtype) for size in (image, kernel))
        assert exceeds_cache(x, w, shape) is large
