"""3-D convolution by 2-D convolutions of the frames, for CPUs.

XLA:CPU computes a 3-D convolution at a quarter of the rate of a 2-D one, and its kernel gradient at
less than a hundredth: the stem of r3d_18, 2 x 8 x 112² x 3, forward and backward, 18 seconds to
0.17. Frames are therefore folded into the batch. The taps along time are summed by
`convolve_by_taps`, `convolve_by_inputs` or `convolve_by_outputs`. Their argument `convolve` is the
function for images, `zoo.ops.convolution.conv_general_dilated`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from zoo.ops.conv_spec import NHWC, ConvSpec, accumulation_dtype

NDHWC = ("NDHWC", "DHWIO", "NDHWC")
MAX_TAP_CHANNELS = 8  # as many channels as a clip or the first convolutions have


class TapOverlap(NamedTuple):
    """The frames that one tap of the kernel multiplies.

    Attributes:
        tap: index of the tap.
        first: first frame.
        last: frame after the last one.
        before: outputs at the start that the tap does not reach.
        after: outputs at the end that the tap does not reach.

    >>> TapOverlap(tap=0, first=0, last=7, before=1, after=0).last
    7
    """

    tap: int
    first: int
    last: int
    before: int
    after: int


def tap_overlaps(frames: int, taps: int, shape: ConvSpec) -> Iterator[TapOverlap]:
    """Yields the taps along time that meet frames and not padding alone.

    Of three taps on a single frame, as in the last stage of r3d_18, two meet padding alone: 512
    channels, 22 to 8 ms.

    Args:
        frames: number of frames T.
        taps: number of taps along time.
        shape: strides, padding and dilation.

    Yields:
        The overlap of each tap.

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
    """Convolves each frame separately: [B, T, H, W, C] to [B, T, H', W', D]."""
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
    """Computes a 3-D convolution as a sum over the taps along time.

    It is the choice for wide kernels: 2 x 8 x 56² x 64 by 3x3x3 takes 72 ms, XLA 188,
    `convolve_by_inputs` 80, `convolve_by_outputs` 89; 2 x 4 x 28² x 128 takes 31, XLA 67. It also
    handles depthwise and grouped kernels.

    Args:
        x: clip [B, T, H, W, C].
        w: kernel [t, h, w, C / groups, D].
        shape: strides, padding, dilation and groups.
        convolve: the function for images.

    Returns:
        Feature map [B, T', H', W', D].

    >>> from zoo.ops.convolution import conv_general_dilated
    >>> same = ConvSpec((1, 1, 1), ((1, 1), (0, 0), (0, 0)), (1, 1, 1), groups=1)
    >>> x, w = jnp.ones((1, 3, 1, 1, 1)), jnp.ones((3, 1, 1, 1, 1))
    >>> convolve_by_taps(x, w, same, convolve=conv_general_dilated).ravel().tolist()
    [2.0, 3.0, 2.0]
    """
    outputs = (
        _pad_frames(
            _convolve_frames(_shift_frames(x, overlap, shape), w[overlap.tap], shape, convolve),
            overlap.before,
            overlap.after,
        )
        for overlap in tap_overlaps(x.shape[1], w.shape[0], shape)
    )
    return _add_all(outputs)


def convolve_by_inputs(
    x: jax.Array, w: jax.Array, shape: ConvSpec, *, convolve: Callable
) -> jax.Array:
    """Computes a 3-D convolution with the frames of all taps as channels.

    It is the choice for few channels, where XLA's 2-D convolution spends its time on gathering
    patches: 3x7x7 of stride (1, 2, 2), 2 x 8 x 112² x 3 to 64, takes 19 ms, XLA 118,
    `convolve_by_taps` 33. With more channels the concatenation is slow: 3x1x1 of 32 x 56² x 32
    takes 22, `convolve_by_taps` 7.

    Args:
        x: clip [B, T, H, W, C].
        w: kernel [t, h, w, C, D].
        shape: strides, padding and dilation.
        convolve: the function for images.

    Returns:
        Feature map [B, T', H', W', D].

    >>> from zoo.ops.convolution import conv_general_dilated
    >>> same = ConvSpec((1, 1, 1), ((1, 1), (0, 0), (0, 0)), (1, 1, 1), groups=1)
    >>> x, w = jnp.ones((1, 3, 1, 1, 1)), jnp.ones((3, 1, 1, 1, 1))
    >>> convolve_by_inputs(x, w, same, convolve=conv_general_dilated).ravel().tolist()
    [2.0, 3.0, 2.0]
    """
    overlaps = list(tap_overlaps(x.shape[1], w.shape[0], shape))
    frames = [
        _pad_frames(_shift_frames(x, overlap, shape), overlap.before, overlap.after)
        for overlap in overlaps
    ]
    kernel = jnp.concatenate([w[overlap.tap] for overlap in overlaps], 2)
    return _convolve_frames(jnp.concatenate(frames, 4), kernel, shape, convolve)


def convolve_by_outputs(
    x: jax.Array, w: jax.Array, shape: ConvSpec, *, convolve: Callable
) -> jax.Array:
    """Computes a 3-D convolution by applying all taps to every frame and summing the results.

    It is the choice for kernels with few outputs: patches are gathered once, and the sums are
    small. 5x7x7 of stride (1, 2, 2), 32 x 224² x 3 to 8, takes 61 ms, XLA 1674, `convolve_by_taps`
    234, `convolve_by_inputs` 158; 3x1x1 of 32 x 56², 32 to 8, takes 2.8, `convolve_by_taps` 7.2. It
    is slow where frames are skipped, as every frame is computed: 7x1x1 of stride 4, 32 x 56² x 32,
    takes 73, `convolve_by_taps` 12.

    Args:
        x: clip [B, T, H, W, C].
        w: kernel [t, h, w, C, D].
        shape: strides, padding and dilation.
        convolve: the function for images.

    Returns:
        Feature map [B, T', H', W', D].

    >>> from zoo.ops.convolution import conv_general_dilated
    >>> same = ConvSpec((1, 1, 1), ((1, 1), (0, 0), (0, 0)), (1, 1, 1), groups=1)
    >>> x, w = jnp.ones((1, 3, 1, 1, 1)), jnp.ones((3, 1, 1, 1, 1))
    >>> convolve_by_outputs(x, w, same, convolve=conv_general_dilated).ravel().tolist()
    [2.0, 3.0, 2.0]
    """
    overlaps, width = list(tap_overlaps(x.shape[1], w.shape[0], shape)), w.shape[4]
    all_outputs = _convolve_frames(
        x, jnp.concatenate([w[overlap.tap] for overlap in overlaps], 3), shape, convolve
    )
    outputs = (
        _pad_frames(
            _shift_frames(all_outputs[..., k * width : (k + 1) * width], overlap, shape),
            overlap.before,
            overlap.after,
        )
        for k, overlap in enumerate(overlaps)
    )
    return _add_all(outputs)


def choose_lowering_3d(x: Any, w: Any, shape: ConvSpec) -> Callable | None:
    """Chooses the CPU lowering of a 3-D convolution; timings stand at each lowering.

    Args:
        x: clip [B, T, H, W, C], or its shape.
        w: kernel [t, h, w, C / groups, D], or its shape.
        shape: strides, padding, dilation and groups.

    Returns:
        A function (x, w, shape, convolve=...) or None for XLA's own.

    >>> clip, kernel = jnp.zeros((1, 8, 16, 16, 3)), jnp.zeros((3, 7, 7, 3, 64))
    >>> plain = ConvSpec((1, 2, 2), ((1, 1), (3, 3), (3, 3)), (1, 1, 1), groups=1)
    >>> choose_lowering_3d(clip, kernel, plain).__name__
    'convolve_by_inputs'
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
