"""Convolution of volumes by convolutions of their images, for CPUs.

XLA:CPU computes a 3-D convolution at a quarter of the rate of a 2-D one, and the kernel's gradient at
less than a hundredth: r3d_18's stem, 2 x 8 x 112² x 3, forward and backward, 18 seconds to 0.17. So
frames are folded into the batch, and what is left over is how the taps along time are summed:
`convolve_by_taps`, `convolve_by_inputs` or `convolve_by_outputs`. `convolve` is the function for images,
zoo.ops.convolution.conv_general_dilated.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from zoo.ops.conv_spec import NHWC, ConvSpec, accumulation_dtype

NDHWC = ("NDHWC", "DHWIO", "NDHWC")
MAX_TAP_CHANNELS = 8  # input channels of a clip, or of the first convolutions after it


class TapOverlap(NamedTuple):
    """Tap of the kernel, `[T, ...] -> [T' - before - after, ...]`: the frames that it meets.

    They are first, first + stride, ... below last, for all outputs but some before and after.

    Source: the definition of a convolution.

    >>> TapOverlap(tap=0, first=0, last=7, before=1, after=0).last
    7
    """

    tap: int
    first: int
    last: int
    before: int
    after: int


def tap_overlaps(frames: int, taps: int, shape: ConvSpec) -> Iterator[TapOverlap]:
    """`[T] -> [T']`: each tap that meets frames, and not padding alone.

    Of three taps on one frame, as in the last stage of r3d_18, two do not: 512 channels, 22 to 8.

    Source: the definition of a convolution.

    >>> same = ConvSpec((1, 1, 1), ((1, 1), (1, 1), (1, 1)), (1, 1, 1), groups=1)
    >>> [tuple(each) for each in tap_overlaps(8, 3, same)]
    [(0, 0, 7, 1, 0), (1, 0, 8, 0, 0), (2, 1, 8, 0, 1)]
    """
    stride, (low, high), dilation = shape.strides[0], shape.padding[0], shape.dilation[0]
    outputs = (frames + low + high - dilation * (taps - 1) - 1) // stride + 1
    for tap in range(taps):
        shift = tap * dilation - low  # output n meets frame n * stride + shift
        before = max(0, -(shift // stride))
        stop = min(outputs, (frames - 1 - shift) // stride + 1)
        if before < stop:
            first = before * stride + shift
            last = first + (stop - before - 1) * stride + 1
            yield TapOverlap(tap, first, last, before, outputs - stop)


def _convolve_frames(x: jax.Array, w: jax.Array, shape: ConvSpec, convolve: Callable) -> jax.Array:
    """`[B, T, H, W, C], [h, w, C / groups, D] -> [B, T, H', W', D]`: each frame by itself."""
    y = convolve(
        x.reshape(-1, *x.shape[2:]),
        w,
        shape.strides[1:],
        shape.padding[1:],
        rhs_dilation=shape.dilation[1:],
        dimension_numbers=NHWC,
        feature_group_count=shape.groups,
    )
    return y.reshape(*x.shape[:2], *y.shape[1:])


def _shift_frames(x: jax.Array, at: TapOverlap, shape: ConvSpec) -> jax.Array:
    return lax.slice_in_dim(x, at.first, at.last, shape.strides[0], axis=1)


def _pad_frames(x: jax.Array, before: int, after: int) -> jax.Array:
    edges = [(0, 0, 0)] * x.ndim
    edges[1] = (before, after, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), edges)


def _add_all(parts: Iterable[jax.Array]) -> jax.Array:
    first, *rest = parts
    if not rest:
        return first
    dtype = accumulation_dtype(first.dtype)
    return sum((part.astype(dtype) for part in rest), first.astype(dtype)).astype(first.dtype)


def convolve_by_taps(
    x: jax.Array, w: jax.Array, shape: ConvSpec, *, convolve: Callable
) -> jax.Array:
    """`[B, T, H, W, C], [t, h, w, C / groups, D] -> [B, T', H', W', D]`: a sum over the taps along time.

    What is left for wide kernels: 2 x 8 x 56² x 64 by 3x3x3 188 to 72 milliseconds, by_inputs 80,
    by_outputs 89; 2 x 4 x 28² x 128 67 to 31. Depthwise and grouped ones are not joined.

    Source: the definition of a convolution.

    >>> from zoo.ops.convolution import conv_general_dilated
    >>> same = ConvSpec((1, 1, 1), ((1, 1), (0, 0), (0, 0)), (1, 1, 1), groups=1)
    >>> x, w = jnp.ones((1, 3, 1, 1, 1)), jnp.ones((3, 1, 1, 1, 1))
    >>> convolve_by_taps(x, w, same, convolve=conv_general_dilated).ravel().tolist()
    [2.0, 3.0, 2.0]
    """
    parts = (
        _pad_frames(
            _convolve_frames(_shift_frames(x, at, shape), w[at.tap], shape, convolve),
            at.before,
            at.after,
        )
        for at in tap_overlaps(x.shape[1], w.shape[0], shape)
    )
    return _add_all(parts)


def convolve_by_inputs(
    x: jax.Array, w: jax.Array, shape: ConvSpec, *, convolve: Callable
) -> jax.Array:
    """`[B, T, H, W, C], [t, h, w, C, D] -> [B, T', H', W', D]`: the frames of all taps as channels.

    For few channels, where XLA's convolution of an image spends its time on gathering patches:
    3x7x7 of stride (1, 2, 2), 2 x 8 x 112² x 3 to 64, 118 to 19 milliseconds, by_taps 33. Of more
    channels the joining itself is slow: 3x1x1 of 32 x 56² x 32 takes 22, by_taps 7.

    Source: the definition of a convolution.

    >>> from zoo.ops.convolution import conv_general_dilated
    >>> same = ConvSpec((1, 1, 1), ((1, 1), (0, 0), (0, 0)), (1, 1, 1), groups=1)
    >>> x, w = jnp.ones((1, 3, 1, 1, 1)), jnp.ones((3, 1, 1, 1, 1))
    >>> convolve_by_inputs(x, w, same, convolve=conv_general_dilated).ravel().tolist()
    [2.0, 3.0, 2.0]
    """
    met = list(tap_overlaps(x.shape[1], w.shape[0], shape))
    frames = [_pad_frames(_shift_frames(x, at, shape), at.before, at.after) for at in met]
    joined = jnp.concatenate([w[at.tap] for at in met], 2)
    return _convolve_frames(jnp.concatenate(frames, 4), joined, shape, convolve)


def convolve_by_outputs(
    x: jax.Array, w: jax.Array, shape: ConvSpec, *, convolve: Callable
) -> jax.Array:
    """`[B, T, H, W, C], [t, h, w, C, D] -> [B, T', H', W', D]`: what each tap makes of every frame, summed.

    For kernels that narrow: patches are gathered once, and what is summed is small. 5x7x7 of stride
    (1, 2, 2), 32 x 224² x 3 to 8, 1674 to 61 milliseconds, by_taps 234, by_inputs 158; 3x1x1 of
    32 x 56², 32 to 8, 2.8, by_taps 7.2. Not where frames are skipped, for each is computed: 7x1x1
    of stride 4, 32 x 56² x 32, takes 73, by_taps 12.

    Source: the definition of a convolution.

    >>> from zoo.ops.convolution import conv_general_dilated
    >>> same = ConvSpec((1, 1, 1), ((1, 1), (0, 0), (0, 0)), (1, 1, 1), groups=1)
    >>> x, w = jnp.ones((1, 3, 1, 1, 1)), jnp.ones((3, 1, 1, 1, 1))
    >>> convolve_by_outputs(x, w, same, convolve=conv_general_dilated).ravel().tolist()
    [2.0, 3.0, 2.0]
    """
    met, width = list(tap_overlaps(x.shape[1], w.shape[0], shape)), w.shape[4]
    every = _convolve_frames(x, jnp.concatenate([w[at.tap] for at in met], 3), shape, convolve)
    parts = (
        _pad_frames(
            _shift_frames(every[..., k * width : (k + 1) * width], at, shape), at.before, at.after
        )
        for k, at in enumerate(met)
    )
    return _add_all(parts)


def choose_lowering_3d(x: Any, w: Any, shape: ConvSpec) -> Callable | None:
    """`[B, T, H, W, C], [t, h, w, C / groups, D] ->` what computes this on a CPU; None: XLA's own.

    Source: the figures at each of them.

    >>> clip, kernel = jnp.zeros((1, 8, 16, 16, 3)), jnp.zeros((3, 7, 7, 3, 64))
    >>> plain = ConvSpec((1, 2, 2), ((1, 1), (3, 3), (3, 3)), (1, 1, 1), groups=1)
    >>> choose_lowering_3d(clip, kernel, plain).__name__
    'by_inputs'
    """
    inner, outer = w.shape[3:]
    if not any(tap_overlaps(x.shape[1], w.shape[0], shape)):
        return None
    if w.shape[0] == 1 or shape.groups > 1:
        return convolve_by_taps
    if shape.strides[0] == 1 and outer <= max(inner, MAX_TAP_CHANNELS):
        return convolve_by_outputs
    if inner <= MAX_TAP_CHANNELS:
        return convolve_by_inputs
    return convolve_by_taps
