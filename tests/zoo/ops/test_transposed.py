"""Transposed convolutions against XLA's own: values, gradients, their gradients."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.zoo.ops.assertions import close
from zoo.ops.transposed import conv_transpose, convolve_phases, split_phases

# Image [B, H, W, C], D, kernel, strides, padding, transpose_kernel.
CASES = {
    "2x2 stride 2": ((2, 5, 4, 3), 4, (2, 2), (2, 2), "SAME", False),
    "4x4 stride 2 as torch's": ((1, 4, 5, 3), 2, (4, 4), (2, 2), [(2, 2)] * 2, True),
    "3x3 stride 2 SAME": ((2, 4, 3, 3), 4, (3, 3), (2, 2), "SAME", False),
    "3x3 stride 2, one more": ((1, 4, 3, 3), 4, (3, 3), (2, 2), [(1, 2)] * 2, True),
    "16x16 stride 8": ((1, 3, 4, 2), 2, (16, 16), (8, 8), "VALID", False),
    "smaller than its stride": ((1, 3, 4, 2), 3, (2, 1), (3, 2), "SAME", False),
    "uneven": ((1, 5, 4, 2), 3, (5, 3), (1, 3), [(0, 3), (4, 0)], True),
}


def arguments(case, dtype=jnp.float32):
    image, width, kernel, strides, padding, turned = CASES[case]
    widths = (image[-1], width)
    random = np.random.default_rng(0)
    x, w = (
        jnp.asarray(random.normal(size=shape), dtype)
        for shape in (image, kernel + (widths[::-1] if turned else widths))
    )
    keywords = dict(strides=strides, padding=padding, transpose_kernel=turned)
    return x, w, *(functools.partial(f, **keywords) for f in (conv_transpose, lax.conv_transpose))


def gradients(convolve, x, w):
    y, back = jax.vjp(convolve, x, w)
    like = jnp.asarray(np.random.default_rng(1).normal(size=y.shape), y.dtype)
    return y, *back(like)


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case):
    x, w, ours, xla = arguments(case)
    close(*(jax.jit(functools.partial(gradients, f))(x, w) for f in (ours, xla)))


@pytest.mark.parametrize("case", ["4x4 stride 2 as torch's", "3x3 stride 2 SAME"])
def test_gradients_of_gradients(case):
    x, w, ours, xla = arguments(case)

    def slope(convolve, x, w):
        def norm(x, w):
            return sum(jnp.sum(jnp.sin(g)) for g in gradients(convolve, x, w)[1:])

        return jax.grad(norm, argnums=(0, 1))(x, w)

    close(*(jax.jit(functools.partial(slope, f))(x, w) for f in (ours, xla)), tolerance=1e-4)


@pytest.mark.parametrize("case", ["2x2 stride 2", "3x3 stride 2 SAME"])
def test_vmap(case):
    x, w, ours, xla = arguments(case)
    many = jnp.stack([x, -x])
    both = [jax.jit(jax.vmap(functools.partial(gradients, f), (0, None))) for f in (ours, xla)]
    close(*(f(many, w) for f in both))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_types(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        x, w, ours, xla = arguments("3x3 stride 2 SAME", dtype)
        wide = jnp.float32 if dtype == jnp.bfloat16 else dtype
        exact = gradients(xla, x.astype(wide), w.astype(wide))
        for found, right in zip(gradients(ours, x, w), exact, strict=True):
            assert found.dtype == dtype
            close(found.astype(wide), right, tolerance=2e-2 if dtype == jnp.bfloat16 else 1e-12)


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("stride", [1, 2, 3, 8])
@pytest.mark.parametrize("low", [0, 1, 5])
def test_phases_take_every_tap_once(kernel, stride, low):
    """Each tap falls to one place, and there meets the pixel that the definition says."""
    found = []
    for part in split_phases(kernel, stride, low):
        for r in range(part.first, part.last):
            taps = [part.start - r + stride * j for j in range(part.taps)]
            for j, tap in enumerate(taps):
                assert r + tap - low == stride * (j - part.offset)
            found += taps
    assert sorted(found) == list(range(kernel))
    assert len(list(split_phases(kernel, stride, low))) <= min(stride, 3)


@pytest.mark.parametrize(
    "keywords",
    [
        dict(dimension_numbers=("NCHW", "IOHW", "NCHW")),
        dict(rhs_dilation=(2, 2)),
        dict(preferred_element_type=jnp.float32),
    ],
)
def test_others_are_left_to_xla(keywords):
    x, w = jnp.ones((2, 4, 4, 4), jnp.bfloat16), jnp.ones((4, 4, 4, 4), jnp.bfloat16)
    ours, xla = (
        jax.make_jaxpr(functools.partial(f, strides=(2, 2), padding="SAME", **keywords))(x, w)
        for f in (conv_transpose, lax.conv_transpose)
    )
    assert str(ours) == str(xla)


def test_bilinear_kernel_enlarges():
    """FCN's frozen upsampling: inside the edges it is linear interpolation."""
    ramp = 1 - np.abs(np.arange(4) - 1.5) / 2
    w = jnp.asarray(np.outer(ramp, ramp)[..., None, None], jnp.float32)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 6, 1)), jnp.float32)
    y = convolve_phases(x, w, strides=(2, 2), padding=[(2, 2)] * 2)
    right = jax.image.resize(x, (1, 10, 12, 1), "linear")
    np.testing.assert_allclose(y[:, 1:-1, 1:-1], right[:, 1:-1, 1:-1], atol=1e-5)


def test_signature_is_the_same():
    ours, theirs = (
        list(inspect.signature(f).parameters.values()) for f in (conv_transpose, lax.conv_transpose)
    )
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs[: len(ours)]]
