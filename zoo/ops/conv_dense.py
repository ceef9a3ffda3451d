"""An ordinary convolution by fewer products, and its kernel's gradient by one, for CPUs.

XLA computes the kernel's gradient as a convolution whose kernel is the whole map, after it has
brought the batch behind the pixels. What is in the caches comes quickly so, what is not takes up to
eight times as long. Figures are milliseconds on two cores with AVX-512, float32, jax 0.10.1: XLA's, then ours.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from zoo.ops.conv_spec import NHWC, ConvSpec
from zoo.ops.fusion import fusion_barrier
from zoo.ops.winograd import conv_winograd, supports_winograd

CACHE_BYTES = 3e6  # values of the output that XLA's own gradient takes quickly
NARROW_CHANNELS = 64  # channels below which the product of matrices is slow
MAX_IMAGE_CHANNELS = 4  # channels, at most, of pixels that are taken in pairs
ROW_BLOCKS = 8  # parts of the batch that are multiplied at a time, then added


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def conv_dense(x: jax.Array, w: jax.Array, shape: ConvSpec) -> jax.Array:
    """`[B, H, W, C], [h, w, C, D] -> [B, H', W', D]`: `conv_winograd`, `convolve_pixel_pairs` or XLA's own.

    The kernel's gradient is XLA's or `convolve_by_matmul`. That in milliseconds, kernels of 3 x 3, 8 images:
    224² x 64 754 to 258, 112² x 128 1138 to 203, 56² x 256 385 to 199, 28² x 512 257 to 204; but
    28² x 128 13 to 17, and 128 images of 32² x 16 10 to 18: those stay XLA's (see `exceeds_cache`).

    Source: the product is that of Vasudevan et al. 2017, Parallel Multi Channel Convolution using
    General Matrix Multiplication, section 3 (there for the output).

    >>> plain = ConvSpec((1, 1), ((0, 0), (0, 0)), (1, 1), groups=1)
    >>> conv_dense(jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 3, 2)), plain)[0, 0, 0].tolist()
    [27.0, 27.0]
    """
    return _convolve(x, w, shape)


@conv_dense.defjvp
def _conv_dense_jvp(shape, values, slopes):
    (x, w), (dx, dw) = values, slopes
    # What XLA fuses with the transposing copies of the gradient is computed again in them, a value
    # at a time: up to 88 for 128 x 32² x 16 where the copy takes 3.
    x = fusion_barrier(x)
    change = convolve_by_matmul if exceeds_cache(x, w, shape) else _convolve_xla
    slope = _convolve(dx, w, shape, is_backward=True) + change(x, dw, shape)
    return _convolve(x, w, shape), fusion_barrier(slope)


def _convolve(
    x: jax.Array, w: jax.Array, shape: ConvSpec, *, is_backward: bool = False
) -> jax.Array:
    if supports_winograd(x, w, shape, is_backward=is_backward):
        return conv_winograd(x, w, shape)
    few = x.shape[3] <= MAX_IMAGE_CHANNELS and w.shape[1] <= 3
    if few and shape.strides[1] == 2 and shape.dilation[1] == 1:
        return convolve_pixel_pairs(x, w, shape)
    return _convolve_xla(x, w, shape)


def _convolve_xla(x: jax.Array, w: jax.Array, shape: ConvSpec) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        w,
        shape.strides,
        shape.padding,
        rhs_dilation=shape.dilation,
        dimension_numbers=NHWC,
    )


def convolve_pixel_pairs(x: jax.Array, w: jax.Array, shape: ConvSpec) -> jax.Array:
    """`[B, H, W, C], [h, w, C, D] -> [B, H', W', D]`, stride 2 along the rows: two pixels as one.

    Of twice the channels and half as wide, in memory as it was: XLA's patches of three channels are
    gathered value by value. 3 x 3, 8 x 224² x 3 to 32: 5.2 to 2.6; of 7 x 7 to 64 it gains nothing.

    Source: the first convolution's space-to-depth, as in the MLPerf ResNet of TensorFlow's TPU models.

    >>> halved = ConvSpec((2, 2), ((1, 1), (1, 1)), (1, 1), groups=1)
    >>> convolve_pixel_pairs(jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 3, 2)), halved)[0, :, :, 0].tolist()
    [[12.0, 18.0], [18.0, 27.0]]
    """
    (rows, columns, channels, outer), (low, high) = w.shape, shape.padding[1]
    width = (x.shape[2] + low + high - columns) // 2 + 1
    pairs, spare = width - 1 + (columns + 1) // 2, columns % 2
    edges = [(0, 0, 0), (0, 0, 0), (low, 2 * pairs - x.shape[2] - low, 0), (0, 0, 0)]
    image = lax.pad(x, jnp.zeros((), x.dtype), edges)
    kernel = lax.pad(w, jnp.zeros((), w.dtype), [(0, 0, 0), (0, spare, 0), (0, 0, 0), (0, 0, 0)])
    return _convolve_xla(
        image.reshape(*x.shape[:2], pairs, 2 * channels),
        kernel.reshape(rows, -1, 2 * channels, outer),
        shape._replace(
            strides=(shape.strides[0], 1),
            padding=(shape.padding[0], (0, 0)),
        ),
    )


def exceeds_cache(x: jax.Array, w: jax.Array, shape: ConvSpec) -> bool:
    """`[B, H, W, C], [h, w, C, D] -> []`: whether the kernel's gradient is faster by products.

    Source: the figures at `conv_dense`.

    >>> pad = ConvSpec((1, 1), ((1, 1), (1, 1)), (1, 1), groups=1)
    >>> exceeds_cache(jnp.zeros((8, 56, 56, 128)), jnp.zeros((3, 3, 128, 128)), pad)
    True
    """
    spare = all(low + high <= w.shape[k] for k, (low, high) in enumerate(shape.padding))
    values = x.shape[0] * x.shape[1] * x.shape[2] * w.shape[3]
    wide = min(w.shape[2:]) >= NARROW_CHANNELS and jnp.finfo(x.dtype).bits >= 32
    return wide and spare and max(shape.strides) == 1 and values >= CACHE_BYTES


def convolve_by_matmul(x: jax.Array, w: jax.Array, shape: ConvSpec) -> jax.Array:
    """`[B, H, W, C], [h, w, C, D] -> [B, H', W', D]`, stride 1: products of whole maps, added up.

    Pixels of the padded map stand in one row, so that a step in the kernel is a step along it. The
    channels of the w pixels side by side are joined, the product with them gives the channels of
    all h rows, and each row's are added a row apart. It is there for its transpose, the kernel's
    gradient: one product of two matrices of 9 pixels' channels for a kernel of 3 x 3.

    Source: see `conv_dense`.

    >>> plain = ConvSpec((1, 1), ((0, 0), (0, 0)), (1, 1), groups=1)
    >>> convolve_by_matmul(jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 3, 2)), plain)[0, 0, 0].tolist()
    [27.0, 27.0]
    """
    (rows, columns, inner, outer), (down, along) = w.shape, shape.dilation
    edges = [(0, 0, 0), *((low, high, 0) for low, high in shape.padding), (0, 0, 0)]
    padded = lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), edges))
    batch, high, wide, _ = padded.shape
    blocks = max(n for n in range(1, ROW_BLOCKS + 1) if batch % n == 0)
    reach, fall = (columns - 1) * along, (rows - 1) * down

    pixels = padded.reshape(batch, high * wide, inner)
    beside = [
        lax.slice_in_dim(pixels, j, j + high * wide - reach, axis=1)
        for j in range(0, reach + 1, along)
    ]
    joined = lax.optimization_barrier(jnp.concatenate(beside, 2))
    kernel = w.transpose(1, 2, 0, 3).reshape(columns * inner, rows * outer)
    kernel = jnp.broadcast_to(kernel, (blocks, *kernel.shape))
    product = lax.dot_general(
        joined.reshape(blocks, -1, columns * inner), kernel, (((2,), (1,)), ((0,), (0,)))
    )
    product = lax.optimization_barrier(product).reshape(batch, -1, rows * outer)

    zero = jnp.zeros((), x.dtype)
    parts = [
        lax.pad(part, zero, [(0, 0, 0), ((fall - i * down) * wide, i * down * wide, 0), (0, 0, 0)])
        for i, part in enumerate(lax.split(product, (outer,) * rows, 2))
    ]
    total = lax.optimization_barrier(functools.reduce(jnp.add, parts))[:, fall * wide :]
    whole = lax.pad(total, zero, [(0, 0, 0), (0, reach, 0), (0, 0, 0)])
    return whole.reshape(batch, high, wide, outer)[:, : high - fall, : wide - reach]
