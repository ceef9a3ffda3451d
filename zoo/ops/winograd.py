"""Winograd filtering along the rows for kernels three columns wide, for CPUs.

Four outputs come from six pixels and three taps by six products instead of twelve. The factors are
sums of pixels and sums of taps, and the outputs are sums of the products. XLA fuses the additions,
and the products are convolutions with one column of the kernel. Along both axes it would be 36
products instead of 144, with nine values per four outputs: not tried. Figures are milliseconds on
two cores with AVX-512, float32, jax 0.10.1: XLA first, then ours.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from zoo.ops.conv_spec import NHWC, ConvSpec

TILE = 4  # outputs that are computed together
MIN_PIXELS_FORWARD = 256  # with fewer pixels the sums of taps cost what the products save
MIN_PIXELS_BACKWARD = 1024  # for the image gradient, which transposes six kernels
NARROW, WIDE = 32, 128  # channels that pay for the sums of pixels, in the caches and from memory
CACHED_VALUES = 1e5  # output values per channel above NARROW
# Interpolation points 0, 1, -1, 2, -1/2 and infinity; with 2 and -2 the error is twice as large.
INPUT_TRANSFORM = np.array(
    [
        [2, 3, -4, -3, 2, 0],
        [0, 2, 5, 1, -2, 0],
        [0, 2, 1, -5, 2, 0],
        [0, -1, -2, 1, 2, 0],
        [0, -2, 1, 2, -1, 0],
        [0, 2, 3, -4, -3, 2],
    ]
)
KERNEL_TRANSFORM = np.array(
    [
        [1 / 2, 0, 0],
        [1 / 6, 1 / 6, 1 / 6],
        [1 / 6, -1 / 6, 1 / 6],
        [1 / 30, 2 / 30, 4 / 30],
        [16 / 15, -8 / 15, 4 / 15],
        [0, 0, 1 / 2],
    ]
)
OUTPUT_TRANSFORM = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -1 / 2, 0],
        [0, 1, 1, 4, 1 / 4, 0],
        [0, 1, -1, 8, -1 / 8, 1],
    ]
)


def supports_winograd(
    x: jax.Array, w: jax.Array, shape: ConvSpec, *, is_backward: bool = False
) -> bool:
    """Returns whether `conv_winograd` is faster than XLA's convolution.

    The timings at `conv_winograd` decide.

    Args:
        x: image [B, H, W, C].
        w: kernel [h, w, C, D].
        shape: strides, padding, dilation and groups.
        is_backward: decide for the transpose, which gives the image gradient.

    Returns:
        A Python bool.

    >>> same = ConvSpec((1, 1), ((1, 1), (1, 1)), (1, 1), groups=1)
    >>> supports_winograd(jnp.zeros((8, 56, 56, 64)), jnp.zeros((3, 3, 64, 64)), same)
    True
    """
    pixels = x.shape[0] * x.shape[1] * x.shape[2]
    min_channels = min(max(NARROW, pixels * w.shape[3] / CACHED_VALUES), WIDE)
    is_plain = w.shape[1] == 3 and shape.strides == (1, 1) and shape.dilation == (1, 1)
    is_float32 = shape.groups == 1 and x.dtype == w.dtype == jnp.float32
    return (
        is_plain
        and is_float32
        and min(w.shape[2:]) >= min_channels
        and pixels >= (MIN_PIXELS_BACKWARD if is_backward else MIN_PIXELS_FORWARD)
    )


def conv_winograd(x: jax.Array, w: jax.Array, shape: ConvSpec) -> jax.Array:
    """Computes a convolution of stride 1 with kernels three columns wide in half the products.

    Kernels of 3 x 3, 8 images, equal input and output channels, forward and image gradient: 56² x
    64 10.0 to 6.5, 9.4 to 6.3; 28² x 128 9.4 to 5.8, 9.3 to 6.8; 14² x 256 9.3 to 6.0, 9.7 to 8.1;
    56² x 256 143 to 89, 143 to 84; 112² x 128 140 to 105, 140 to 95; 14² x 512 37 to 23, 42 to 45;
    56² x 32 4.6 to 3.4, 3.4 to 2.2. But 112² x 64 to 128 73 to 78, 256² x 16 24 to 54, and 7² x 512
    15 to 32 backward (12 to 9 forward), where six kernels are transposed: those stay with XLA (see
    `supports_winograd`).

    Args:
        x: image [B, H, W, C].
        w: kernel [h, 3, C, D].
        shape: padding; the stride is 1.

    Returns:
        Feature map [B, H', W', D].

    Source: Winograd 1980, Arithmetic Complexity of Computations, F(4, 3); Lavin and Gray 2016, Fast
    Algorithms for Convolutional Neural Networks; Barabasz et al. 2020 for the points.

    >>> plain = ConvSpec((1, 1), ((0, 0), (0, 0)), (1, 1), groups=1)
    >>> conv_winograd(jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 3, 2)), plain)[0, 0, 0].tolist()
    [27.0, 27.0]
    """
    rows, (low, high) = shape.padding
    batch, height, across, channels = x.shape
    width = across + low + high - 2
    tiles = -(-width // TILE)
    # A tile uses its four pixels and the first two of the next tile.
    edges = [(0, 0, 0), (0, 0, 0), (low, (tiles + 1) * TILE - across - low, 0), (0, 0, 0)]
    padded = lax.pad(x, jnp.zeros((), x.dtype), edges)
    columns = lax.split(padded.reshape(batch, height, tiles + 1, TILE, channels), (1,) * TILE, 3)
    columns = [column.squeeze(3) for column in columns]
    pixels = [
        *(values[:, :, :tiles] for values in columns),
        *(values[:, :, 1:] for values in columns[:2]),
    ]
    taps = [w[:, column : column + 1] for column in range(3)]
    products = [
        lax.conv_general_dilated(
            _weighted_sum(pixels, input_factors),
            _weighted_sum(taps, kernel_factors),
            (1, 1),
            (rows, (0, 0)),
            dimension_numbers=NHWC,
        )
        for input_factors, kernel_factors in zip(INPUT_TRANSFORM, KERNEL_TRANSFORM, strict=True)
    ]
    outputs = jnp.stack([_weighted_sum(products, values) for values in OUTPUT_TRANSFORM], 3)
    return outputs.reshape(batch, -1, tiles * TILE, w.shape[3])[:, :, :width]


def _weighted_sum(values: Iterable[jax.Array], factors: np.ndarray) -> jax.Array:
    parts = [
        v if f == 1 else v * f.astype(v.dtype) for v, f in zip(values, factors, strict=True) if f
    ]
    return sum(parts[1:], parts[0])
