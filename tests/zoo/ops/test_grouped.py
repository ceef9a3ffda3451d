"""Grouped convolutions against XLA's own: what the table of test_convolution leaves out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.zoo.ops.test_convolution import close, gradients, pair
from zoo.ops.conv_spec import NHWC
from zoo.ops.convolution import conv_general_dilated

# Image [B, H, W, C], kernel [h, w, C / groups, D], strides, padding, dilation, groups.
CASES = {
    "stride 2, even": ((2, 8, 6, 8), (3, 3, 2, 12), 2, [(1, 1)] * 2, 1, 4),
    "stride 2, odd": ((1, 7, 9, 8), (3, 3, 4, 4), 2, "SAME", 1, 2),
    "stride 3 over the kernel": ((1, 9, 8, 4), (2, 2, 2, 4), 3, "VALID", 1, 2),
    "strides differ": ((1, 7, 6, 4), (3, 5, 2, 4), (2, 1), [(2, 0), (1, 3)], 1, 2),
    "dilated": ((1, 9, 8, 4), (3, 3, 2, 6), 1, [(2, 2), (1, 0)], 2, 2),
    "dilated, stride 2": ((1, 9, 9, 4), (3, 3, 2, 4), 2, [(2, 2)] * 2, 2, 2),
    "less than none": ((1, 8, 8, 4), (3, 3, 2, 4), 2, [(-1, 2), (1, -1)], 1, 2),
}  # fmt: skip


def arguments(case, dtype=jnp.float32):
    image, kernel, strides, padding, dilation, groups = CASES[case]
    random = np.random.default_rng(0)
    x, w = (jnp.asarray(random.normal(size=shape), dtype) for shape in (image, kernel))
    ours, xla = (
        functools.partial(
            f,
            window_strides=pair(strides),
            padding=padding,
            rhs_dilation=pair(dilation),
            dimension_numbers=NHWC,
            feature_group_count=groups,
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


@pytest.mark.parametrize("case", ["stride 2, odd"])
def test_gradients_of_gradients(case):
    x, w, ours, xla = arguments(case)

    def slope(f, x, w):
        def norm(x, w):
            return sum(jnp.sum(jnp.sin(g)) for g in gradients(f, x, w))

        return jax.grad(norm, argnums=(0, 1))(x, w)

    close(*(jax.jit(functools.partial(slope, f))(x, w) for f in (ours, xla)), tolerance=1e-4)


def test_vmap():
    x, w, ours, xla = arguments("stride 2, odd")
    many = jnp.stack([x, 2 * x]), jnp.stack([w, -w])
    close(*(jax.jit(jax.vmap(functools.partial(all_of, f)))(*many) for f in (ours, xla)))


def test_float64_stays_so():
    with jax.enable_x64():
        x, w, ours, xla = arguments("stride 2, odd", jnp.float64)
        close(*(all_of(f, x, w) for f in (ours, xla)), tolerance=1e-12)
