"""A convolution of each channel by itself, for CPUs.

Milliseconds on two cores with AVX-512, float32, jax 0.10.1, batch 8, 3x3; torch 2.13 after them.
XLA vectorises sums that are written out, over rows [W * C] that lie together in memory; its own
reductions of products it computes one number at a time.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from zoo.ops.window import Shape, taps, wide

ROWS, PARTS = 8, 2  # of the output, whose products the kernel's gradient sums at once


def depthwise(x: jax.Array, w: jax.Array, shape: Shape) -> jax.Array:
    """`[B, H, W, C], [h, w, 1, C] -> [B, H', W', C]`: for each tap a multiply-add of the whole map.

    It and its two gradients are each linear in two arguments, and are each other's gradients: all
    orders of reverse mode are computed so. There is no forward-mode derivative.

    Source: Howard et al. 2017, MobileNets, equation 3.

    >>> pad = Shape((1, 1), ((1, 1), (1, 1)), (1, 1), groups=2)
    >>> depthwise(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 2)), pad)[0, :, :, 0].tolist()[0]
    [4.0, 6.0, 6.0, 4.0]
    """
    return _output(x, w, shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _output(x, w, shape):
    """The rows [W' * C] of each tap in one vector: 56² x 144 of stride 2, 3.9 to 2.4."""
    dtype = wide(x.dtype)
    terms = []
    for place, tap in taps(x.astype(dtype), w.shape[:2], shape):
        batch, height, width, channels = tap.shape
        weights = jnp.tile(w[*place, 0].astype(dtype), width)[None, None]
        terms.append(tap.reshape(batch, height, width * channels) * weights)
    return functools.reduce(jnp.add, terms).reshape(tap.shape).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _input_gradient(g, w, sides, shape):
    """`[B, H', W', C], [h, w, 1, C] -> [B, H, W, C]`, H and W being the sides of the input.

    A pixel of the padded input in row s q + r meets the taps i with i d = s a + r, in output row
    q - a. So for each r and its like in the columns these are a few multiply-adds of stride 1.
    """
    dtype = wide(g.dtype)
    sizes, reaches = [], []
    for side, k, (low, _), s, d in _axes(sides, w.shape[:2], shape):
        sizes.append(-(-(side + low) // s))
        reaches.append((k - 1) * d // s)
    edges = [(e, n - o, 0) for e, n, o in zip(reaches, sizes, g.shape[1:3], strict=True)]
    padded = lax.pad(g.astype(dtype), jnp.zeros((), dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    padded = lax.optimization_barrier(padded)
    (down, across), (dilation_y, dilation_x) = shape.strides, shape.dilation
    blank = jnp.zeros((g.shape[0], *sizes, g.shape[3]), dtype)

    def pixels(r: int, c: int) -> jax.Array:
        terms = [blank]
        for i in range(w.shape[0]):
            for j in range(w.shape[1]):
                (a, row), (b, column) = divmod(i * dilation_y, down), divmod(j * dilation_x, across)
                if (row, column) == (r, c):
                    first = (0, reaches[0] - a, reaches[1] - b, 0)
                    last = [n + f for n, f in zip(blank.shape, first, strict=True)]
                    tap = lax.slice(padded, first, last)
                    terms.append(tap * w[i, j, 0].astype(dtype)[None, None, None])
        return functools.reduce(jnp.add, terms[1:] or terms)

    if shape.strides == (1, 1):
        whole = pixels(0, 0)
    else:  # rows are put together before they are interleaved: 112² x 96 of stride 2, 8.8 to 3.5
        rows = [jnp.stack([pixels(r, c) for c in range(across)], 3) for r in range(down)]
        whole = jnp.stack(lax.optimization_barrier(rows), 2)
        whole = whole.reshape(g.shape[0], sizes[0] * down, sizes[1] * across, g.shape[3])
    cuts = [
        (-low, side + low - n, 0)
        for side, (low, _), n in zip(sides, shape.padding, whole.shape[1:3], strict=True)
    ]
    return lax.pad(whole, jnp.zeros((), dtype), [(0, 0, 0), *cuts, (0, 0, 0)]).astype(g.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _kernel_gradient(x, g, kernel, shape):
    """`[B, H, W, C], [B, H', W', C] -> [h, w, 1, C]`: first sums of ROWS x PARTS products.

    For each column of the kernel one pass sums, for all its rows, products that lie ROWS rows or a
    PARTS-th of a row apart: 112² x 32, 34 to 4; 56² x 144, 21 to 5.
    """
    dtype = wide(x.dtype)
    batch, height, width, channels = g.shape
    rows, parts = _divisor(height, ROWS), _divisor(width, PARTS)
    long = width // parts * channels
    g = g.astype(dtype).reshape(batch, height // rows, 1, rows, parts, long)
    sums = []
    for seen in _columns(x.astype(dtype), kernel, shape, (height, width)):
        seen = seen.reshape(batch, kernel[0], height // rows, rows, parts, long)
        terms = [
            seen[:, :, :, r, p].swapaxes(1, 2) * g[:, :, :, r, p]
            for r in range(rows)
            for p in range(parts)
        ]
        partial = functools.reduce(jnp.add, terms)  # [B, H' / rows, h, W' / parts * C]
        total = _sum(partial.reshape(-1, kernel[0] * long)).reshape(kernel[0], -1, channels)
        sums.append(total.sum(1))
    return jnp.stack(sums, 1)[:, :, None].astype(x.dtype)


def _columns(x, kernel, shape, sides) -> Iterator[jax.Array]:
    """`[B, H, W, C] ->` for each column of the kernel [B, h, H', W' * C], what its rows meet there.

    Row y d + h s of the padded image is element y (H + d) + h s of its rows repeated: a view.
    """
    edges = [(0, 0, 0), *((low, high, 0) for low, high in shape.padding), (0, 0, 0)]
    padded = lax.pad(x, jnp.zeros((), x.dtype), edges)
    (down, across), (dilation_y, dilation_x) = shape.strides, shape.dilation
    batch, high, broad, channels = padded.shape
    size = (sides[1] - 1) * across + 1
    strided = across > 1
    flat = None if strided else lax.optimization_barrier(padded)
    phases: dict[int, Any] = {}
    for j in range(kernel[1]):
        first, phase = divmod(j * dilation_x, across)
        if strided and phase not in phases:
            phases[phase] = lax.optimization_barrier(padded[:, :, phase::across])
        whole = phases[phase] if strided else flat
        part = whole[:, :, first : first + sides[1]].reshape(batch, 1, high, -1)
        copies = kernel[0] + -(-kernel[0] * dilation_y // high)
        again = jnp.broadcast_to(part, (batch, copies, *part.shape[2:]))
        again = again.reshape(batch, copies * high, -1)[:, : kernel[0] * (high + dilation_y)]
        again = again.reshape(batch, kernel[0], high + dilation_y, -1)
        yield again[:, :, : (sides[0] - 1) * down + 1 : down]


def _sum(x: jax.Array) -> jax.Array:
    """`[N, D] -> [D]`, written out eight by eight: 56² x 144, 12 to 2."""
    while (count := x.shape[0]) > 1:
        x = lax.optimization_barrier(x)
        step = _divisor(count, 8)
        if step == 1:
            return x.sum(0)
        x = x.reshape(step, count // step, -1)
        x = functools.reduce(jnp.add, [x[n] for n in range(step)])
    return x[0]


def _divisor(n: int, most: int) -> int:
    return max(d for d in range(1, min(n, most) + 1) if n % d == 0)


def _axes(sides, kernel, shape) -> Iterator[tuple]:
    return zip(sides, kernel, shape.padding, shape.strides, shape.dilation, strict=True)


def _output_backward(shape, residuals, g):
    x, w = residuals
    return (
        _input_gradient(g, w, x.shape[1:3], shape),
        _kernel_gradient(x, g, w.shape[:2], shape),
    )


def _input_gradient_backward(sides, shape, residuals, slope):
    g, w = residuals
    return _output(slope, w, shape), _kernel_gradient(slope, g, w.shape[:2], shape)


def _kernel_gradient_backward(kernel, shape, residuals, slope):
    x, g = residuals
    return _input_gradient(g, slope, x.shape[1:3], shape), _output(x, slope, shape)


_output.defvjp(lambda x, w, shape: (_output(x, w, shape), (x, w)), _output_backward)
_input_gradient.defvjp(
    lambda g, w, sides, shape: (_input_gradient(g, w, sides, shape), (g, w)),
    _input_gradient_backward,
)
_kernel_gradient.defvjp(
    lambda x, g, kernel, shape: (_kernel_gradient(x, g, kernel, shape), (x, g)),
    _kernel_gradient_backward,
)
