"""Winograd's filtering against XLA's own convolution, its rounding, and who takes it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.zoo.ops.assertions import close, gradients
from zoo.ops.conv_spec import NHWC, ConvSpec
from zoo.ops.winograd import (
    INPUT_TRANSFORM,
    KERNEL_TRANSFORM,
    OUTPUT_TRANSFORM,
    conv_winograd,
    supports_winograd,
)

# Image [B, H, W, C], kernel [h, 3, C, D], padding.
CASES = {
    "3x3": ((2, 7, 8, 3), (3, 3, 3, 4), ((1, 1), (1, 1))),
    "one more than a tile": ((1, 3, 5, 2), (3, 3, 2, 3), ((1, 1), (1, 1))),
    "two more, one image": ((1, 6, 6, 5), (3, 3, 5, 2), ((1, 1), (1, 1))),
    "three more": ((3, 2, 11, 2), (3, 3, 2, 2), ((1, 1), (1, 1))),
    "a column": ((2, 5, 1, 3), (3, 3, 3, 2), ((1, 1), (1, 1))),
    "no padding": ((2, 7, 9, 3), (3, 3, 3, 4), ((0, 0), (0, 0))),
    "uneven padding": ((1, 5, 7, 2), (3, 3, 2, 2), ((2, 0), (3, 1))),
    "cut off": ((1, 5, 9, 2), (3, 3, 2, 2), ((1, 1), (-1, -2))),
    "a row": ((2, 4, 6, 3), (1, 3, 3, 4), ((0, 0), (1, 1))),
    "five rows": ((1, 8, 6, 3), (5, 3, 3, 4), ((2, 2), (1, 1))),
}


def case(name, dtype="float32"):
    image, kernel, padding = CASES[name]
    random = np.random.default_rng(0)
    x, w = (jnp.asarray(random.normal(size=size), dtype) for size in (image, kernel))
    xla = functools.partial(
        lax.conv_general_dilated,
        window_strides=(1, 1),
        padding=padding,
        dimension_numbers=NHWC,
    )
    return x, w, functools.partial(conv_winograd, shape=ConvSpec((1, 1), padding, (1, 1), 1)), xla


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name):
    """In float64, where the factors of a third and a fifteenth show what is wrong, and what rounded."""
    with jax.enable_x64(True):
        x, w, ours, xla = case(name, "float64")
        close(
            *(jax.jit(lambda x, w, f=f: (f(x, w), gradients(f, x, w)))(x, w) for f in (ours, xla)),
            tolerance=1e-13,
        )


def test_every_derivative():
    x, w, ours, xla = case("three more")

    def derivatives(f, x, w):
        def norm(x, w):
            return sum(jnp.sum(jnp.sin(g)) for g in gradients(f, x, w))

        many = jnp.stack([x, -2 * x])
        mapped = jax.vmap(functools.partial(gradients, f), (0, None))(many, w)
        return jax.jvp(f, (x, w), (2 * x, -w)), mapped, jax.grad(norm, argnums=(0, 1))(x, w)

    close(*(jax.jit(functools.partial(derivatives, f))(x, w) for f in (ours, xla)), tolerance=1e-4)


def test_minimal_filtering():
    """All twelve products of a pixel and a tap, each in its output and in no other."""
    made = np.einsum("op,pi,pt->oit", OUTPUT_TRANSFORM, INPUT_TRANSFORM, KERNEL_TRANSFORM)
    outputs, taps = np.indices((4, 3))
    expected = np.zeros((4, 6, 3))
    expected[outputs, outputs + taps, taps] = 1
    np.testing.assert_allclose(made, expected, atol=1e-15)


@pytest.mark.parametrize("channels", [32, 256])
def test_rounding(channels):
    """At most five times XLA's own distance from the exact values: millionths of the largest."""
    random = np.random.default_rng(0)
    x = random.normal(size=(1, 12, 12, channels))
    w = random.normal(size=(3, 3, channels, 32))
    shape = ConvSpec((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    exact = sum(
        np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))[:, i : i + 12, j : j + 12] @ w[i, j]
        for i in range(3)
        for j in range(3)
    )
    x, w = (jnp.asarray(a, jnp.float32) for a in (x, w))
    xla = lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=NHWC)
    ours, theirs = (
        np.abs(y - exact).max() / np.abs(exact).max() for y in (conv_winograd(x, w, shape), xla)
    )
    assert ours < 5 * theirs and ours < 3e-6


@pytest.mark.parametrize(
    ("image", "kernel", "change", "dtype", "taken"),
    [
        ((8, 56, 56, 64), (3, 3, 64, 64), {}, "float32", True),
        ((1, 56, 56, 64), (3, 3, 64, 64), {}, "float32", True),
        ((8, 14, 14, 512), (3, 3, 512, 512), {}, "float32", True),
        ((8, 56, 56, 64), (3, 3, 64, 64), {}, "float64", False),
        ((8, 56, 56, 64), (3, 3, 64, 64), {}, "bfloat16", False),
        ((8, 56, 56, 64), (3, 3, 64, 64), dict(strides=(2, 2)), "float32", False),
        ((8, 56, 56, 64), (3, 3, 64, 64), dict(dilation=(2, 2)), "float32", False),
        ((8, 56, 56, 64), (5, 5, 64, 64), {}, "float32", False),
        ((8, 7, 7, 512), (3, 3, 512, 512), {}, "float32", True),
        ((8, 5, 5, 256), (3, 3, 256, 256), {}, "float32", False),
        ((8, 224, 224, 3), (3, 3, 3, 64), {}, "float32", False),
    ],
)
def test_who_takes_it(image, kernel, change, dtype, taken):
    shape = ConvSpec((1, 1), ((1, 1), (1, 1)), (1, 1), 1)._replace(**change)
    with jax.enable_x64(True):
        x, w = (jax.ShapeDtypeStruct(size, dtype) for size in (image, kernel))
        assert supports_winograd(x, w, shape) is taken
        assert supports_winograd(x, w, shape, is_backward=True) is (taken and image[1] > 7)
