"""Kernels three columns wide in half the products, for CPUs: Winograd's filtering along the rows.

Of six pixels in a row and three taps four outputs come by six products in place of twelve. What is
multiplied are sums of pixels and sums of taps, and the outputs are sums of the products: adding is
for XLA to fuse, and the products are convolutions with a column of the kernel. Along both axes it
would be 36 products in place of 144, of nine values for each four: not tried. Figures are
milliseconds on two cores with AVX-512, float32, jax 0.10.1: XLA's, ours.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from zoo.ops.conv_spec import NHWC, ConvSpec

TILE = 4  # outputs that are computed together
MIN_CHANNELS = 256  # pixels below which the sums of taps take what the products save
MIN_CHANNELS_BACKWARD = 1024  # in the image's gradient, for which six kernels are turned
NARROW, WIDE = 32, 128  # channels that pay for the sums of pixels: in the caches, from memory
CACHE_BYTES = 1e5  # values of the output for each channel above NARROW
# From the values of polynomials at 0, 1, -1, 2, -1/2 and infinity: with 2 and -2 it errs twice as far.
MIN_PIXELS = np.array(
    [
        [2, 3, -4, -3, 2, 0],
        [0, 2, 5, 1, -2, 0],
        [0, 2, 1, -5, 2, 0],
        [0, -1, -2, 1, 2, 0],
        [0, -2, 1, 2, -1, 0],
        [0, 2, 3, -4, -3, 2],
    ]
)
KERNEL_SIZE = np.array(
    [
        [1 / 2, 0, 0],
        [1 / 6, 1 / 6, 1 / 6],
        [1 / 6, -1 / 6, 1 / 6],
        [1 / 30, 2 / 30, 4 / 30],
        [16 / 15, -8 / 15, 4 / 15],
        [0, 0, 1 / 2],
    ]
)
TILE_OUTPUTS = np.array(
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
    """`[B, H, W, C], [h, w, C, D] -> []`: whether `conv_winograd` is faster than XLA's convolution.

    `is_backward`: its transpose, which gives the image's gradient.

    Source: the figures at `conv_winograd`.

    >>> same = ConvSpec((1, 1), ((1, 1), (1, 1)), (1, 1), groups=1)
    >>> supports_winograd(jnp.zeros((8, 56, 56, 64)), jnp.zeros((3, 3, 64, 64)), same)
    True
    """
    pixels = x.shape[0] * x.shape[1] * x.shape[2]
    paid = min(max(NARROW, pixels * w.shape[3] / CACHE_BYTES), WIDE)
    plain = w.shape[1] == 3 and shape.strides == (1, 1) and shape.dilation == (1, 1)
    same = shape.groups == 1 and x.dtype == w.dtype == jnp.float32
    return (
        plain
        and same
        and min(w.shape[2:]) >= paid
        and pixels >= (MIN_CHANNELS_BACKWARD if is_backward else MIN_CHANNELS)
    )


def conv_winograd(x: jax.Array, w: jax.Array, shape: ConvSpec) -> jax.Array:
    """`[B, H, W, C], [h, 3, C, D] -> [B, H', W', D]`, stride 1: half the products.

    Kernels of 3 x 3, 8 images, as many channels before and after, forward and the image's gradient:
    56² x 64 10.0 to 6.5, 9.4 to 6.3; 28² x 128 9.4 to 5.8, 9.3 to 6.8; 14² x 256 9.3 to 6.0, 9.7 to
    8.1; 56² x 256 143 to 89, 143 to 84; 112² x 128 140 to 105, 140 to 95; 14² x 512 37 to 23, 42 to 45;
    56² x 32 4.6 to 3.4, 3.4 to 2.2. But 112² x 64 to 128 73 to 78, 256² x 16 24 to 54, and 7² x 512
    15 to 32 backward (12 to 9 forward), where six kernels are turned: those stay XLA's (see `supports_winograd`).

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
    # A tile's pixels are its own four and the first two of the next one.
    edges = [(0, 0, 0), (0, 0, 0), (low, (tiles + 1) * TILE - across - low, 0), (0, 0, 0)]
    padded = lax.pad(x, jnp.zeros((), x.dtype), edges)
    own = lax.split(padded.reshape(batch, height, tiles + 1, TILE, channels), (1,) * TILE, 3)
    own = [column.squeeze(3) for column in own]
    pixels = [*(each[:, :, :tiles] for each in own), *(each[:, :, 1:] for each in own[:2])]
    taps = [w[:, column : column + 1] for column in range(3)]
    products = [
        lax.conv_general_dilated(
            _weighted_sum(pixels, ahead),
            _weighted_sum(taps, told),
            (1, 1),
            (rows, (0, 0)),
            dimension_numbers=NHWC,
        )
        for ahead, told in zip(MIN_PIXELS, KERNEL_SIZE, strict=True)
    ]
    whole = jnp.stack([_weighted_sum(products, each) for each in TILE_OUTPUTS], 3)
    return whole.reshape(batch, -1, tiles * TILE, w.shape[3])[:, :, :width]


def _weighted_sum(values: Iterable[jax.Array], factors: np.ndarray) -> jax.Array:
    parts = [v if f == 1 else v * f.astype(v.dtype) for v, f in zip(values, factors) if f]
    return sum(parts[1:], parts[0])
