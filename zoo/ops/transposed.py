"""Transposed convolution that chooses how it is computed, as zoo.ops.convolution does for the others."""

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
    """`[s] places of an axis between two strides -> [last - first]` of them that meet x alike.

    Place r takes `taps` taps, s apart, from tap `start - r` of the kernel on; that one lies
    `offset` pixels of the input before the place's own.

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
    """`kernel [k], stride, padding below -> ` Phases: two where the stride divides k, else three.

    Output o = s m + r takes tap k of the input's pixel (o + k - low) / s where that is whole.

    Source: Dumoulin & Visin 2016, A guide to convolution arithmetic, section 4.

    >>> [(each.first, each.last, each.taps) for each in split_phases(16, 8, 11)]
    [(0, 4, 2), (4, 8, 2)]
    """

    def alike(r: int) -> tuple[int, int]:
        tap = (low - r) % stride
        return len(range(tap, kernel, stride)), (low - r - tap) // stride

    for (taps, offset), places in itertools.groupby(range(stride), alike):
        first, *rest = places
        start = first + (low - first) % stride
        yield Phases(first, first + 1 + len(rest), start, taps, offset)


def convolve_phases(
    x: jax.Array, w: jax.Array, *, strides: Sequence[int], padding: Sequence[tuple[int, int]]
) -> jax.Array:
    """`[B, H, W, C], [h, w, C, D] -> [B, H', W', D]`: small convolutions of stride 1, interleaved.

    Phases that meet the same pixels are one convolution with more outputs: nine at most, whatever
    the stride. Milliseconds beside XLA's own and torch's 2.13, forward and backward, on a loaded
    machine in turn: 2x2 of stride 2, 2 x 28² x 512 to 256, 120, 3735 and 224; 3x3 of stride 2,
    128 to 64, 32, 261 and 160; 16x16 of stride 8, 32² x 21, 36, 320 and 152.

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
    whole = lax.pad(w, jnp.zeros((), w.dtype), [*ends, (0, 0, 0), (0, 0, 0)])
    (up, across), (inner, outer) = strides, w.shape[2:]
    whole = whole.reshape(-1, up, whole.shape[1] // across, across, inner, outer)
    of_rows, of_columns = (
        list(split_phases(k, s, low))
        for k, s, (low, _) in zip(w.shape[:2], strides, padding, strict=True)
    )
    bands = [
        jnp.concatenate(
            [_select_phases(x, whole, (rows, columns), counts) for columns in of_columns], 4
        )
        for rows in of_rows
    ]
    y = jnp.concatenate(bands, 3)  # [B, H' / s, W' / s, s, s, D]
    y = y.transpose(0, 1, 3, 2, 4, 5).reshape(-1, counts[0] * up, counts[1] * across, outer)
    return y[:, : sizes[0], : sizes[1]]


def _select_phases(x, output, parts: tuple[Phases, Phases], counts: Sequence[int]) -> jax.Array:
    """`[B, H, W, C], [h / s, s, w / s, s, C, D] -> [B, H' / s, W' / s, r, r, D]` of these phases."""
    rows, columns = parts
    (inner, outer), taps = output.shape[4:], [each.taps for each in parts]
    places = [each.last - each.first for each in parts]
    shape = (x.shape[0], *counts, *places, outer)
    if not all(taps):
        return jnp.zeros(shape, x.dtype)
    (top, bottom), (left, right) = (
        (each.start - each.last + 1, each.start - each.first + 1) for each in parts
    )
    w = output[: rows.taps, top:bottom, : columns.taps, left:right][:, ::-1, :, ::-1]
    w = w.transpose(0, 2, 4, 1, 3, 5).reshape(*taps, inner, math.prod(places) * outer)
    pads = [
        (each.offset, n + each.taps - 1 - side - each.offset)
        for each, n, side in zip(parts, counts, x.shape[1:3], strict=True)
    ]
    cut = [(min(low, 0), min(high, 0), 0) for low, high in pads]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *cut, (0, 0, 0)])
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
    """`[B, H, W, C], [h, w, C, D] -> [B, H', W', D]`: jax's function, faster on a CPU.

    Padding by name is that of the convolution whose input's gradient this is; in numbers it is laid
    round the spread input: torch's `padding` p and `output_padding` q are (k - 1 - p, k - 1 - p + q),
    and its kernels want `transpose_kernel`. Where the program runs on a CPU, images of this layout
    and kernels without holes are computed by phases; all else is XLA's own.

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

    def usual(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
        return lax.conv_transpose(lhs, rhs, strides, padding, **rest)

    def fast(x: jax.Array, w: jax.Array) -> jax.Array:
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
        return usual(lhs, rhs)
    return lax.platform_dependent(lhs, rhs, cpu=fast, default=usual)


def _transposed_padding(kernel: int, stride: int, name: str) -> tuple[int, int]:
    """ "SAME" or "VALID" of the convolution that this turns round, in numbers round the spread input."""
    if name == "VALID":
        return kernel - 1, stride - 1 + max(kernel - stride, 0)
    total = kernel + stride - 2
    low = kernel - 1 if stride > kernel - 1 else -(-total // 2)
    return low, total - low
