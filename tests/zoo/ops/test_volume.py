"""Convolutions of volumes against XLA's own: values, gradients, their gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.zoo.ops.assertions import close
from zoo.ops import volume
from zoo.ops.conv_spec import ConvSpec
from zoo.ops.convolution import conv_general_dilated
from zoo.ops.volume import NDHWC, tap_overlaps

# Clip [B, T, H, W, C], kernel [t, h, w, C / groups, D], strides, padding, dilation, groups, lowering.
CASES = {
    "3x3x3": ((2, 5, 6, 5, 10), (3, 3, 3, 10, 12), 1, "SAME", 1, 1, "convolve_by_taps"),
    "3x3x3 stride 2": ((1, 5, 7, 6, 10), (3, 3, 3, 10, 12), 2, [(1, 1)] * 3, 1, 1, "convolve_by_taps"),
    "3x3x3 on one frame": ((2, 1, 4, 4, 9), (3, 3, 3, 9, 10), 1, [(1, 1)] * 3, 1, 1, "convolve_by_taps"),
    "1x3x3": ((2, 3, 6, 5, 4), (1, 3, 3, 4, 6), (1, 2, 2), [(0, 0), (1, 1), (1, 1)], 1, 1, "convolve_by_taps"),
    "1x1x1 stride 2": ((2, 4, 5, 5, 4), (1, 1, 1, 4, 6), 2, "VALID", 1, 1, "convolve_by_taps"),
    "3x1x1": ((1, 6, 3, 3, 12), (3, 1, 1, 12, 10), 1, [(1, 1), (0, 0), (0, 0)], 1, 1, "convolve_by_outputs"),
    "3x1x1 wider": ((1, 6, 3, 3, 10), (3, 1, 1, 10, 12), 1, "SAME", 1, 1, "convolve_by_taps"),
    "7x1x1 stride 4": ((1, 9, 3, 2, 9), (7, 1, 1, 9, 18), (4, 1, 1), [(3, 3), (0, 0), (0, 0)], 1, 1, "convolve_by_taps"),
    "5x1x1 stride 8 of 8": ((2, 8, 2, 3, 3), (5, 1, 1, 3, 6), (8, 1, 1), [(2, 2), (0, 0), (0, 0)], 1, 1, "convolve_by_inputs"),
    "stem": ((1, 4, 9, 8, 3), (3, 7, 7, 3, 16), (1, 2, 2), [(1, 1), (3, 3), (3, 3)], 1, 1, "convolve_by_inputs"),
    "fast stem": ((1, 6, 9, 8, 3), (5, 7, 7, 3, 8), (1, 2, 2), [(2, 2), (3, 3), (3, 3)], 1, 1, "convolve_by_outputs"),
    "dilated": ((1, 7, 6, 6, 9), (3, 3, 3, 9, 10), 1, [(2, 1), (1, 2), (2, 2)], (2, 1, 2), 1, "convolve_by_taps"),
    "depthwise": ((1, 4, 5, 6, 6), (3, 3, 3, 1, 6), (1, 2, 2), [(1, 1)] * 3, 1, 6, "convolve_by_taps"),
    "grouped": ((1, 3, 4, 4, 8), (3, 3, 3, 4, 6), 1, "SAME", 1, 2, "convolve_by_taps"),
    "padding alone": ((1, 1, 3, 3, 2), (1, 1, 1, 2, 2), (2, 1, 1), [(1, 0), (0, 0), (0, 0)], 1, 1, None),
}  # fmt: skip


def triple(n):
    return n if isinstance(n, tuple) else (n,) * 3


def arguments(case, dtype=jnp.float32):
    clip, kernel, strides, padding, dilation, groups, _ = CASES[case]
    random = np.random.default_rng(0)
    x, w = (jnp.asarray(random.normal(size=shape), dtype) for shape in (clip, kernel))
    keywords = dict(
        rhs_dilation=triple(dilation), dimension_numbers=NDHWC, feature_group_count=groups
    )
    ours, xla = (
        functools.partial(f, window_strides=triple(strides), padding=padding, **keywords)
        for f in (conv_general_dilated, lax.conv_general_dilated)
    )
    return x, w, ours, xla


def gradients(convolve, x, w):
    y, back = jax.vjp(convolve, x, w)
    like = jnp.asarray(np.random.default_rng(1).normal(size=y.shape), y.dtype)
    return y, *back(like)


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case):
    x, w, ours, xla = arguments(case)
    close(*(jax.jit(functools.partial(gradients, f))(x, w) for f in (ours, xla)))


@pytest.mark.parametrize("case", CASES)
def test_the_table_tells_how(case):
    _, _, strides, padding, _, groups, name = CASES[case]
    x, w, *_ = arguments(case)
    pads = [(k // 2, k // 2) for k in w.shape[:3]] if isinstance(padding, str) else padding
    shape = ConvSpec(triple(strides), tuple(pads), (1, 1, 1), groups)
    found = volume.choose_lowering_3d(x, w, shape)
    assert (None if found is None else found.__name__) == name


@pytest.mark.parametrize("frames", [1, 2, 3, 8])
@pytest.mark.parametrize("taps", [1, 2, 5])
@pytest.mark.parametrize(("stride", "low", "high", "dilation"), [(1, 1, 1, 1), (2, 2, 0, 2), (4, 3, 9, 1)])  # fmt: skip
def test_every_frame_is_met_once_a_tap(frames, taps, stride, low, high, dilation):
    """The places where a tap meets frames, against all pairs of a tap and an output."""
    count = (frames + low + high - dilation * (taps - 1) - 1) // stride + 1
    shape = ConvSpec((stride,), ((low, high),), (dilation,), groups=1)
    pairs = {
        (tap, n, n * stride + tap * dilation - low)
        for tap in range(taps)
        for n in range(count)
        if 0 <= n * stride + tap * dilation - low < frames
    }
    found = [
        (at.tap, at.before + n, frame)
        for at in tap_overlaps(frames, taps, shape)
        for n, frame in enumerate(range(at.first, at.last, stride))
    ]
    assert len(found) == len(set(found)) and set(found) == pairs
    for at in tap_overlaps(frames, taps, shape):
        assert at.before + len(range(at.first, at.last, stride)) + at.after == count


@pytest.mark.parametrize("case", ["3x1x1", "stem"])
def test_gradients_of_gradients(case):
    x, w, ours, xla = arguments(case)

    def slope(convolve, x, w):
        def norm(x, w):
            return sum(jnp.sum(jnp.sin(g)) for g in gradients(convolve, x, w)[1:])

        return jax.grad(norm, argnums=(0, 1))(x, w)

    close(*(jax.jit(functools.partial(slope, f))(x, w) for f in (ours, xla)), tolerance=1e-4)


@pytest.mark.parametrize("case", ["3x3x3 on one frame", "fast stem"])
def test_vmap(case):
    x, w, ours, xla = arguments(case)
    many = jnp.stack([x, -x])
    both = (jax.jit(jax.vmap(functools.partial(gradients, f), (0, None)))(many, w) for f in (ours, xla))  # fmt: skip
    close(*both)


@pytest.mark.parametrize("case", ["3x3x3", "3x1x1", "stem"])
def test_bfloat16(case):
    """As near to the exact values as XLA's own, and of its type."""
    x, w, ours, xla = arguments(case, jnp.bfloat16)
    exact = gradients(xla, x.astype(jnp.float32), w.astype(jnp.float32))
    for found, right in zip(gradients(ours, x, w), exact, strict=True):
        assert found.dtype == jnp.bfloat16
        close(found.astype(jnp.float32), right, tolerance=2e-2)


def test_float64_stays():
    with jax.enable_x64(True):
        x, w, ours, xla = arguments("3x1x1", jnp.float64)
        close(gradients(ours, x, w), gradients(xla, x, w), tolerance=1e-12)


def test_other_layouts_are_left_to_xla():
    x, w = jnp.ones((1, 4, 4, 4, 4)), jnp.ones((4, 4, 3, 3, 3))
    keywords = dict(window_strides=(1, 1, 1), padding="SAME", dimension_numbers=("NCDHW", "OIDHW", "NCDHW"))  # fmt: skip
    ours, xla = (
        jax.make_jaxpr(functools.partial(f, **keywords))(x, w)
        for f in (conv_general_dilated, lax.conv_general_dilated)
    )
    assert str(ours) == str(xla)
