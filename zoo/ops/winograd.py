"""Kernels three columns wide in half the products, for CPUs: Winograd's filtering along the rows.

Of six pixels in a row and three taps four outputs come by six products in place of twelve. What is
multiplied are sums of pixels and sums of taps, and the outputs are sums of the products: adding is
for XLA to fuse, and the products are convolutions with a column of the kernel. Along both axes it
would be 36 products in place of 144, of four and a half times as many values: more memory than
time is saved. Figures are milliseconds on two cores with AVX-512, float32, jax 0.10.1: XLA's, ours.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from zoo.ops.window import NHWC, Shape

TILE = 4  # outputs that are computed together
FEW, NARROW = 1024, 32  # pixels, channels: below either the sums take what the products save
CACHED, WIDE = (
    2e6,
    128,
)  # values of the output beyond which they come from memory, channels that pay it
# From the values of a polynomial at 0, 1, -1, 2, -1/2 and infinity. Of such points these err least.
PIXELS = np.array(
    [
        [2, 3, -4, -3, 2, 0],
        [0, 2, 5, 1, -2, 0],
        [0, 2, 1, -5, 2, 0],
        [0, -1, -2, 1, 2, 0],
        [0, -2, 1, 2, -1, 0],
        [0, 2, 3, -4, -3, 2],
    ]
)
TAPS = np.array(
    [
        [1 / 2, 0, 0],
        [1 / 6, 1 / 6, 1 / 6],
        [1 / 6, -1 / 6, 1 / 6],
        [1 / 30, 2 / 30, 4 / 30],
        [16 / 15, -8 / 15, 4 / 15],
        [0, 0, 1 / 2],
    ]
)
OUTPUTS = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -1 / 2, 0],
        [0, 1, 1, 4, 1 / 4, 0],
        [0, 1, -1, 8, -1 / 8, 1],
    ]
)


def suits(x: jax.Array, w: jax.Array, shape: Shape) -> bool:
    """`[B, H, W, C], [h, w, C, D] -> []`: whether `winograd` is faster than XLA's convolution.

    Source: the figures at `winograd`.

    >>> same = Shape((1, 1), ((1, 1), (1, 1)), (1, 1), groups=1)
    >>> suits(jnp.zeros((8, 56, 56, 64)), jnp.zeros((3, 3, 64, 64)), same)
    True
    """
    pixels = x.shape[0] * x.shape[1] * x.shape[2]
    wide = min(w.shape[2:]) >= (NARROW if pixels * w.shape[3] <= CACHED else WIDE)
    plain = w.shape[1] == 3 and shape.strides == (1, 1) and shape.dilation == (1, 1)
    same = shape.groups == 1 and x.dtype == w.dtype == jnp.float32
    return plain and same and wide and pixels >= FEW


def winograd(x: jax.Array, w: jax.Array, shape: Shape) -> jax.Array:
    """`[B, H, W, C], [h, 3, C, D] -> [B, H', W', D]`, stride 1: half the products.

    Kernels of 3 x 3, 8 images, forward and the image's gradient: 56² x 64 5.3 to 4.1, 5.6 to 3.9
    FIGURES

    Source: Winograd 1980, Arithmetic Complexity of Computations, F(4, 3); Lavin and Gray 2016,
    sections 4.1 and 5.2; Barabasz et al. 2020, table 3, for the points.

    >>> plain = Shape((1, 1), ((0, 0), (0, 0)), (1, 1), groups=1)
    >>> winograd(jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 3, 2)), plain)[0, 0, 0].tolist()
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
            _sum(pixels, ahead),
            _sum(taps, told),
            (1, 1),
            (rows, (0, 0)),
            dimension_numbers=NHWC,
        )
        for ahead, told in zip(PIXELS, TAPS, strict=True)
    ]
    whole = jnp.stack([_sum(products, each) for each in OUTPUTS], 3)
    return whole.reshape(batch, -1, tiles * TILE, w.shape[3])[:, :, :width]


def _sum(values: Iterable[jax.Array], factors: np.ndarray) -> jax.Array:
    parts = [v if f == 1 else v * f.astype(v.dtype) for v, f in zip(values, factors) if f]
    return sum(parts[1:], parts[0])
