"""Depthwise convolutions against XLA's own: what the table of test_convolution leaves out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.zoo.ops.test_convolution import close, gradients, pair
from zoo.ops.conv_spec import NHWC
from zoo.ops.convolution import conv_general_dilated

# Image [B, H, W, C], kernel [h, w], strides, padding, dilation.
CASES = {
    "rows and parts": ((2, 16, 12, 5), (3, 3), 1, [(1, 1)] * 2, 1),
    "stride 2, even": ((2, 16, 16, 4), (3, 3), 2, [(1, 1)] * 2, 1),
    "stride 2, odd": ((1, 13, 11, 4), (3, 3), 2, [(1, 1)] * 2, 1),
    "stride 3, 2x2": ((1, 10, 11, 3), (2, 2), 3, [(0, 0)] * 2, 1),
    "stride over the kernel": ((1, 9, 9, 3), (1, 2), 3, "SAME", 1),
    "stride 2, dilated": ((1, 12, 13, 3), (3, 3), 2, [(2, 2)] * 2, 2),
    "stride 2, dilated by 3": ((1, 14, 13, 3), (3, 2), 2, [(3, 1), (0, 2)], 3),
    "strides differ": ((1, 8, 9, 3), (3, 5), (2, 1), [(2, 0), (1, 3)], (1, 2)),
    "less than none": ((1, 9, 9, 3), (3, 3), 2, [(-1, 2), (1, -1)], 1),
    "5x5": ((1, 9, 8, 4), (5, 5), 1, "SAME", 1),
    "7x7 on 7x7": ((2, 7, 7, 4), (7, 7), 1, [(3, 3)] * 2, 1),
    "7x7 on 2x2": ((1, 2, 2, 3), (7, 7), 1, [(3, 3)] * 2, 1),
}  # fmt: skip


def arguments(case, dtype=jnp.float32):
    image, kernel, strides, padding, dilation = CASES[case]
    random = np.random.default_rng(0)
    channels = image[-1]
    x, w = (
        jnp.asarray(random.normal(size=shape), dtype) for shape in (image, (*kernel, 1, channels))
    )
    ours, xla = (
        functools.partial(
            f,
            window_strides=pair(strides),
            padding=padding,
            rhs_dilation=pair(dilation),
            dimension_numbers=NHWC,
            feature_group_count=channels,
        )
        for f in (conv_general_dilated, lax.conv_general_dilated)
    )
    return x, w, ours, xla


def all_of(f, x, w):
    return f(x, w), gradients(f, x, w)


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case):
    x, w, ours, xla = arguments(case)
    close(*(jax.jit(functools.partial(all_of, f))(x, w) for f in (ours, xla)))


@pytest.mark.parametrize("case", ["stride 2, odd", "stride 2, dilated by 3"])
def test_gradients_of_gradients(case):
    x, w, ours, xla = arguments(case)

    def slope(f, x, w):
        def norm(x, w):
            return sum(jnp.sum(jnp.sin(g)) for g in gradients(f, x, w))

        return jax.grad(norm, argnums=(0, 1))(x, w)

    close(*(jax.jit(functools.partial(slope, f))(x, w) for f in (ours, xla)), tolerance=1e-4)


@pytest.mark.parametrize("axes", [(0, None), (0, 0)])
def test_vmap(axes):
    x, w, ours, xla = arguments("stride 2, odd")
    many = jnp.stack([x, 2 * x]), w if axes[1] is None else jnp.stack([w, -w])
    close(*(jax.jit(jax.vmap(functools.partial(all_of, f), axes))(*many) for f in (ours, xla)))


def test_float64_stays_so():
    with jax.enable_x64():
        x, w, ours, xla = arguments("stride 2, odd", jnp.float64)
        close(*(all_of(f, x, w) for f in (ours, xla)), tolerance=1e-12)
