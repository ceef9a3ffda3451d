"""The geometry of a convolution, shared by its lowerings."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

NHWC = ("NHWC", "HWIO", "NHWC")


class ConvSpec(NamedTuple):
    """Strides, padding, dilation and groups of a convolution.

    Attributes:
        strides: stride per spatial axis.
        padding: padding (before, after) per spatial axis.
        dilation: dilation of the kernel per spatial axis.
        groups: number of groups of channels.

    Source: the arguments of jax.lax.conv_general_dilated.

    >>> ConvSpec((1, 1), ((1, 1), (1, 1)), (1, 1), groups=8).groups
    8
    """

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int


def accumulation_dtype(dtype: Any) -> Any:
    """Returns the dtype in which values of `dtype` are summed: float32, or float64 for float64.

    Args:
        dtype: dtype of the values.

    Returns:
        `jnp.float32` or `jnp.float64`.

    >>> accumulation_dtype(jnp.bfloat16).__name__
    'float32'
    """
    return jnp.float64 if jnp.finfo(dtype).bits == 64 else jnp.float32


def shifted_windows(
    x: jax.Array, kernel: Sequence[int], shape: ConvSpec
) -> Iterator[tuple[Any, jax.Array]]:
    """Yields, for every tap of a kernel, the pixels that it multiplies.

    Args:
        x: image [B, H, W, C].
        kernel: height and width of the kernel.
        shape: strides, padding and dilation.

    Yields:
        Pairs of the tap index (i, j) and a strided slice [B, H', W', C] of the padded image.

    >>> plain = ConvSpec((1, 1), ((0, 0), (0, 0)), (1, 1), groups=1)
    >>> [(tap, x.shape) for tap, x in shifted_windows(jnp.ones((1, 4, 4, 2)), (1, 2), plain)]
    [((0, 0), (1, 4, 3, 2)), ((0, 1), (1, 4, 3, 2))]
    """
    edges = [(0, 0, 0), *((low, high, 0) for low, high in shape.padding), (0, 0, 0)]
    padded = lax.pad(x, jnp.zeros((), x.dtype), edges)
    if max(shape.strides) > 1:  # without the fused padding the gradient takes 4 ms, not 11
        padded = lax.optimization_barrier(padded)
    sides = zip(padded.shape[1:3], kernel, shape.dilation, shape.strides, strict=True)
    sizes = [(side - d * (k - 1) - 1) // s + 1 for side, k, d, s in sides]
    for tap in itertools.product(*map(range, kernel)):
        first = [k * d for k, d in zip(tap, shape.dilation, strict=True)]
        last = [f + (n - 1) * s + 1 for f, n, s in zip(first, sizes, shape.strides, strict=True)]
        start, limit = (0, *first, 0), (x.shape[0], *last, x.shape[3])
        yield tap, lax.slice(padded, start, limit, (1, *shape.strides, 1))
