"""How a kernel's window moves over an image: what the lowerings of a convolution share."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

NHWC = ("NHWC", "HWIO", "NHWC")


class ConvSpec(NamedTuple):
    """What makes `[B, H, W, C] -> [B, H', W', D]` besides the kernel: per axis, and the groups.

    Source: the arguments of jax.lax.conv_general_dilated.

    >>> ConvSpec((1, 1), ((1, 1), (1, 1)), (1, 1), groups=8).groups
    8
    """

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int


def accumulation_dtype(dtype: Any) -> Any:
    """dtype [] -> what sums of it are made in: float32, or float64 for itself.

    Source: BatchNorm's rule in zoo.layers.norm.

    >>> accumulation_dtype(jnp.bfloat16).__name__
    'float32'
    """
    return jnp.float64 if jnp.finfo(dtype).bits == 64 else jnp.float32


def shifted_windows(
    x: jax.Array, kernel: Sequence[int], shape: ConvSpec
) -> Iterator[tuple[Any, jax.Array]]:
    """`[B, H, W, C] ->` each place (i, j) of the kernel, and the pixels [B, H', W', C] it meets.

    Source: the definition of a convolution.

    >>> plain = ConvSpec((1, 1), ((0, 0), (0, 0)), (1, 1), groups=1)
    >>> [(place, tap.shape) for place, tap in shifted_windows(jnp.ones((1, 4, 4, 2)), (1, 2), plain)]
    [((0, 0), (1, 4, 3, 2)), ((0, 1), (1, 4, 3, 2))]
    """
    edges = [(0, 0, 0), *((low, high, 0) for low, high in shape.padding), (0, 0, 0)]
    padded = lax.pad(x, jnp.zeros((), x.dtype), edges)
    if (
        max(shape.strides) > 1
    ):  # the gradient of strided taps, 11 ms, is 4 without the fused padding
        padded = lax.optimization_barrier(padded)
    sides = zip(padded.shape[1:3], kernel, shape.dilation, shape.strides, strict=True)
    sizes = [(side - d * (k - 1) - 1) // s + 1 for side, k, d, s in sides]
    for place in itertools.product(*map(range, kernel)):
        first = [k * d for k, d in zip(place, shape.dilation, strict=True)]
        last = [f + (n - 1) * s + 1 for f, n, s in zip(first, sizes, shape.strides, strict=True)]
        start, limit = (0, *first, 0), (x.shape[0], *last, x.shape[3])
        yield place, lax.slice(padded, start, limit, (1, *shape.strides, 1))
