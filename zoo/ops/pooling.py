"""Pooling functions that flax lacks, and flax's own with fast gradients on a CPU."""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from zoo.ops.conv_spec import accumulation_dtype


def pooling_matrix(length: int, bins: int) -> np.ndarray:
    """Returns the matrix of adaptive average pooling along one axis.

    Args:
        length: number of inputs.
        bins: number of outputs.

    Returns:
        Weights [bins, length]: row i averages inputs floor(i L / bins) to ceil((i + 1) L / bins).

    Source: torch.nn.AdaptiveAvgPool1d.

    >>> pooling_matrix(3, 2).tolist()
    [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]
    """
    matrix = np.zeros((bins, length))
    for i in range(bins):
        start, stop = i * length // bins, -(-(i + 1) * length // bins)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix


def adaptive_avg_pool(x: jax.Array, *, size: tuple[int, int]) -> jax.Array:
    """Averages equal regions of a map to a fixed output size.

    Regions overlap by a pixel where H is not a multiple of h, and repeat pixels where H is less
    than h. A map of the requested size is returned unchanged.

    Args:
        x: feature map [B, H, W, C].
        size: output height and width (h, w).

    Returns:
        Feature map [B, h, w, C].

    Source: torch.nn.AdaptiveAvgPool2d.

    >>> adaptive_avg_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), size=(2, 2))[0, :, :, 0].tolist()
    [[2.5, 4.5], [10.5, 12.5]]
    """
    if x.shape[1:3] == size:
        return x
    rows = jnp.asarray(pooling_matrix(x.shape[1], size[0]), x.dtype)
    columns = jnp.asarray(pooling_matrix(x.shape[2], size[1]), x.dtype)
    return jnp.einsum("bhwc,ih,jw->bijc", x, rows, columns, precision="highest")


def max_pool(
    inputs: jax.Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str | Sequence[tuple[int, int]] = "VALID",
) -> jax.Array:
    """Computes the maximum of each window, like `flax.linen.max_pool`.

    On a CPU the gradient selects the first maximum, as XLA does, without a scatter. Milliseconds of
    both passes, float32, two cores: 8 x 112² x 64 by 3x3, stride 2, 59 to 23; 8 x 224² x 64 by 2x2,
    143 to 15; 8 x 55² x 64 by 3x3, 12 to 5. The forward pass is XLA's own, 3.7 and 4.8 where a pass
    over memory takes 2.2 and 5.7. Slices would take 2.6 and 3.4, but XLA would recompute the
    producer for every slice.

    Args:
        inputs: feature map [B, ..., C].
        window_shape: size of the window per spatial axis.
        strides: strides; 1 if not given.
        padding: "SAME", "VALID" or pairs (before, after).

    Returns:
        Feature map [B, ..., C].

    Source: flax.linen.max_pool.

    >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    >>> max_pool(x, (2, 2), (2, 2))[0, :, :, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
    """
    window = _window(inputs, window_shape, strides, padding)
    if not jnp.issubdtype(inputs.dtype, jnp.floating) or inputs.ndim != len(window_shape) + 2:
        return _window_max(inputs, window)
    selected = functools.partial(_max_pool, window=window)
    return lax.platform_dependent(
        inputs, cpu=selected, default=functools.partial(_window_max, window=window)
    )


def ceil_padding(
    size: Sequence[int], window_shape: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """Returns the padding with which pooling drops no row or column, as in Caffe.

    The number of windows is rounded up, where flax and torch round down by default. The last window
    is smaller, as `max_pool` pads with minus infinity.

    Args:
        size: height and width (H, W).
        window_shape: size of the window.
        strides: strides of the window.

    Returns:
        Padding [(0, rows), (0, columns)].

    Source: Jia et al. 2014, Caffe, pooling_layer.cpp, without padding of its own.

    >>> ceil_padding((224, 175), (2, 2), (2, 2))
    [(0, 0), (0, 1)]
    """
    return [(0, -(n - k) % s) for n, k, s in zip(size, window_shape, strides, strict=True)]


def avg_pool(
    inputs: jax.Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str | Sequence[tuple[int, int]] = "VALID",
) -> jax.Array:
    """Computes the mean of each window, padding included, like `flax.linen.avg_pool`.

    On a CPU it is a sum of slices, whose gradient is fast. Milliseconds of both passes, float32,
    two cores: 8 x 112² x 64 by 3x3, stride 2, 19 to 3; 8 x 28² x 256 by 2x2, stride 1, 1.5 to 0.8.

    Args:
        inputs: feature map [B, ..., C].
        window_shape: size of the window per spatial axis.
        strides: strides; 1 if not given.
        padding: "SAME", "VALID" or pairs (before, after).

    Returns:
        Feature map [B, ..., C].

    Source: flax.linen.avg_pool.

    >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    >>> avg_pool(x, (2, 2), (2, 2))[0, :, :, 0].tolist()
    [[2.5, 4.5], [10.5, 12.5]]
    """
    window = _window(inputs, window_shape, strides, padding)
    count = jnp.asarray(math.prod(window_shape), inputs.dtype)

    def default(x: jax.Array) -> jax.Array:
        return lax.reduce_window(x, np.zeros((), x.dtype), lax.add, *window) / count

    def by_slices(x: jax.Array) -> jax.Array:
        total = functools.reduce(
            jnp.add, _window_slices(x.astype(accumulation_dtype(x.dtype)), window, 0.0)
        )
        return (total / count.astype(total.dtype)).astype(x.dtype)

    if not jnp.issubdtype(inputs.dtype, jnp.floating) or inputs.ndim != len(window_shape) + 2:
        return default(inputs)
    return lax.platform_dependent(inputs, cpu=by_slices, default=default)


class _Window(NamedTuple):
    """Sizes, strides and padding of every axis, batch and channels included."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]


def _window(x, sizes, strides, padding) -> _Window:
    before = (1,) * (x.ndim - len(sizes) - 1)
    sizes, steps = (*before, *sizes, 1), (*before, *(strides or (1,) * len(sizes)), 1)
    if isinstance(padding, str):
        pads = lax.padtype_to_pads(x.shape, sizes, steps, padding)
    else:
        pads = [(0, 0)] * len(before) + [tuple(pair) for pair in padding] + [(0, 0)]
    return _Window(sizes, steps, tuple((int(low), int(high)) for low, high in pads))


def _window_max(x: jax.Array, window: _Window) -> jax.Array:
    lowest = -jnp.inf if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.iinfo(x.dtype).min
    return lax.reduce_window(x, np.asarray(lowest, x.dtype), lax.max, *window)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _max_pool(x, window):
    return _window_max(x, window)


@_max_pool.defjvp
def _max_pool_jvp(window, values, slopes):
    (x,), (dx,) = values, slopes
    y = _max_pool(x, window)
    winner = _argmax_mask(lax.stop_gradient(x), lax.stop_gradient(y), window)
    zero = jnp.zeros((), x.dtype)
    selected = [
        lax.select(winner == jnp.int8(index), tap, jnp.broadcast_to(zero, tap.shape))
        for index, tap in enumerate(_window_slices(dx, window, 0.0))
    ]
    return y, functools.reduce(jnp.add, selected)


def _argmax_mask(x: jax.Array, y: jax.Array, window: _Window) -> jax.Array:
    """Returns the index of the first tap that holds each maximum; the last index for NaN."""
    taps = list(enumerate(_window_slices(x, window, -jnp.inf)))
    winner = jnp.full(y.shape, len(taps) - 1, jnp.int8)
    for index, tap in reversed(taps[:-1]):
        winner = jnp.where(tap == y, jnp.int8(index), winner)
    return winner


def _window_slices(x: jax.Array, window: _Window, fill: float) -> Iterator[jax.Array]:
    """Yields, tap by tap in row order, the pixels that each tap covers.

    The map is split into phases, one per remainder of a division by the strides. A tap is then a
    slice of stride 1, and its gradient a padding without dilation.
    """
    sides = list(zip(x.shape, window.sizes, window.strides, window.padding, strict=True))
    counts = [(n + low + high - k) // s + 1 for n, k, s, (low, high) in sides]
    lengths = [m + (k - 1) // s for m, (_, k, s, _) in zip(counts, sides, strict=True)]
    edges = [
        (low, length * s - low - n, 0)
        for (n, _, s, (low, _)), length in zip(sides, lengths, strict=True)
    ]
    x = lax.pad(x, jnp.asarray(fill, x.dtype), edges)
    phases = x.reshape(
        [side for pair in zip(lengths, window.strides, strict=True) for side in pair]
    )
    axes = range(0, 2 * len(sides), 2)
    phases = phases.transpose([axis + 1 for axis in axes] + list(axes))
    for tap in itertools.product(*map(range, window.sizes)):
        phase = phases[tuple(k % s for k, s in zip(tap, window.strides, strict=True))]
        first = [k // s for k, s in zip(tap, window.strides, strict=True)]
        last = [f + m for f, m in zip(first, counts, strict=True)]
        yield lax.slice(phase, first, last)
