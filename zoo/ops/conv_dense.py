"""Ordinary convolutions on CPUs: fewer products, and a kernel gradient by matrix product.

XLA computes the kernel gradient as a convolution whose kernel is the whole map, after moving the
batch axis behind the pixels. This is fast for data in the caches and up to eight times slower
otherwise. Figures are milliseconds on two cores with AVX-512, float32, jax 0.10.1: XLA first, then
ours.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from zoo.ops.conv_spec import NHWC, ConvSpec
from zoo.ops.fusion import fusion_barrier
from zoo.ops.winograd import conv_winograd, supports_winograd

CACHED_VALUES = 3e6  # output size, in values, up to which XLA's own kernel gradient is fast
NARROW_CHANNELS = 64  # with fewer channels the matrix product is slow
MAX_IMAGE_CHANNELS = 4  # most channels for which pixels are processed in pairs
ROW_BLOCKS = 8  # blocks of the batch that are multiplied separately and then added


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def conv_dense(x: jax.Array, w: jax.Array, shape: ConvSpec) -> jax.Array:
    """Computes an ordinary convolution by Winograd filtering, pixel pairs or XLA.

    The kernel gradient is XLA's or `convolve_by_matmul` (see `exceeds_cache`). Milliseconds for 3 x
    3 kernels and 8 images: 224² x 64 754 to 258, 112² x 128 1138 to 203, 56² x 256 385 to 199, 28²
    x 512 257 to 204. But 28² x 128 13 to 17, and 128 images of 32² x 16 10 to 18: those stay with
    XLA.

    Args:
        x: image [B, H, W, C].
        w: kernel [h, w, C, D].
        shape: strides, padding and dilation.

    Returns:
        Feature map [B, H', W', D].

    Source: Vasudevan et al. 2017, Parallel Multi Channel Convolution using General Matrix
    Multiplication, section 3, for the matrix product (there of the output).

    >>> plain = ConvSpec((1, 1), ((0, 0), (0, 0)), (1, 1), groups=1)
    >>> conv_dense(jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 3, 2)), plain)[0, 0, 0].tolist()
    [27.0, 27.0]
    """
    return _convolve(x, w, shape)


@conv_dense.defjvp
def _conv_dense_jvp(shape, values, slopes):
    (x, w), (dx, dw) = values, slopes
    # XLA fuses the producer of x into the transposing copies of the gradient and recomputes it
    # one value at a time: up to 88 ms for 128 x 32² x 16, where the copy takes 3.
    x = fusion_barrier(x)
    kernel_lowering = convolve_by_matmul if exceeds_cache(x, w, shape) else _convolve_xla
    slope = _convolve(dx, w, shape, is_backward=True) + kernel_lowering(x, dw, shape)
    return _convolve(x, w, shape), fusion_barrier(slope)


def _convolve(
    x: jax.Array, w: jax.Array, shape: ConvSpec, *, is_backward: bool = False
) -> jax.Array:
    if supports_winograd(x, w, shape, is_backward=is_backward):
        return conv_winograd(x, w, shape)
    is_image = x.shape[3] <= MAX_IMAGE_CHANNELS and w.shape[1] <= 3
    if is_image and shape.strides[1] == 2 and shape.dilation[1] == 1:
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
    """Computes a convolution of stride 2 along the rows on pairs of pixels.

    A pair is one pixel with twice the channels, which needs no copy. XLA gathers patches of three
    channels value by value. 3 x 3, 8 x 224² x 3 to 32: 5.2 to 2.6 ms; 7 x 7 kernels to 64 channels
    gain nothing.

    Args:
        x: image [B, H, W, C].
        w: kernel [h, w, C, D].
        shape: strides (the second one is 2), padding and dilation.

    Returns:
        Feature map [B, H', W', D].

    Source: The space-to-depth transform of the first convolution in the MLPerf ResNet of
    TensorFlow's TPU models.

    >>> halved = ConvSpec((2, 2), ((1, 1), (1, 1)), (1, 1), groups=1)
    >>> x, w = jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 3, 2))
    >>> convolve_pixel_pairs(x, w, halved)[0, :, :, 0].tolist()
    [[12.0, 18.0], [18.0, 27.0]]
    """
    (rows, columns, channels, outer), (low, high) = w.shape, shape.padding[1]
    width = (x.shape[2] + low + high - columns) // 2 + 1
    pairs, extra = width - 1 + (columns + 1) // 2, columns % 2
    edges = [(0, 0, 0), (0, 0, 0), (low, 2 * pairs - x.shape[2] - low, 0), (0, 0, 0)]
    image = lax.pad(x, jnp.zeros((), x.dtype), edges)
    kernel = lax.pad(w, jnp.zeros((), w.dtype), [(0, 0, 0), (0, extra, 0), (0, 0, 0), (0, 0, 0)])
    return _convolve_xla(
        image.reshape(*x.shape[:2], pairs, 2 * channels),
        kernel.reshape(rows, -1, 2 * channels, outer),
        shape._replace(
            strides=(shape.strides[0], 1),
            padding=(shape.padding[0], (0, 0)),
        ),
    )


def exceeds_cache(x: jax.Array, w: jax.Array, shape: ConvSpec) -> bool:
    """Returns whether the kernel gradient is faster by a matrix product.

    The timings at `conv_dense` decide.

    Args:
        x: image [B, H, W, C].
        w: kernel [h, w, C, D].
        shape: strides, padding and dilation.

    Returns:
        A Python bool.

    >>> pad = ConvSpec((1, 1), ((1, 1), (1, 1)), (1, 1), groups=1)
    >>> exceeds_cache(jnp.zeros((8, 56, 56, 128)), jnp.zeros((3, 3, 128, 128)), pad)
    True
    """
    is_padded_within_kernel = all(
        low + high <= w.shape[k] for k, (low, high) in enumerate(shape.padding)
    )
    values = x.shape[0] * x.shape[1] * x.shape[2] * w.shape[3]
    wide = min(w.shape[2:]) >= NARROW_CHANNELS and jnp.finfo(x.dtype).bits >= 32
    return wide and is_padded_within_kernel and max(shape.strides) == 1 and values >= CACHED_VALUES


def convolve_by_matmul(x: jax.Array, w: jax.Array, shape: ConvSpec) -> jax.Array:
    """Computes a convolution of stride 1 as matrix products over whole maps.

    The pixels of the padded map form one row, so a step in the kernel is a step along the row. The
    channels of the w adjacent pixels are concatenated, one product yields the outputs of all h
    kernel rows, and these are added with one row of offset each. Its transpose is the kernel
    gradient: one product of two matrices.

    Args:
        x: image [B, H, W, C].
        w: kernel [h, w, C, D].
        shape: padding and dilation; the stride is 1.

    Returns:
        Feature map [B, H', W', D].

    >>> plain = ConvSpec((1, 1), ((0, 0), (0, 0)), (1, 1), groups=1)
    >>> convolve_by_matmul(jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 3, 2)), plain)[0, 0, 0].tolist()
    [27.0, 27.0]
    """
    (rows, columns, inner, outer), (row_dilation, column_dilation) = w.shape, shape.dilation
    edges = [(0, 0, 0), *((low, high, 0) for low, high in shape.padding), (0, 0, 0)]
    padded = lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), edges))
    batch, high, wide, _ = padded.shape
    blocks = max(n for n in range(1, ROW_BLOCKS + 1) if batch % n == 0)
    reach, row_reach = (columns - 1) * column_dilation, (rows - 1) * row_dilation

    pixels = padded.reshape(batch, high * wide, inner)
    shifted = [
        lax.slice_in_dim(pixels, j, j + high * wide - reach, axis=1)
        for j in range(0, reach + 1, column_dilation)
    ]
    columns_joined = lax.optimization_barrier(jnp.concatenate(shifted, 2))
    kernel = w.transpose(1, 2, 0, 3).reshape(columns * inner, rows * outer)
    kernel = jnp.broadcast_to(kernel, (blocks, *kernel.shape))
    product = lax.dot_general(
        columns_joined.reshape(blocks, -1, columns * inner), kernel, (((2,), (1,)), ((0,), (0,)))
    )
    product = lax.optimization_barrier(product).reshape(batch, -1, rows * outer)

    zero = jnp.zeros((), x.dtype)
    rows_of_output = [
        lax.pad(
            row,
            zero,
            [
                (0, 0, 0),
                ((row_reach - i * row_dilation) * wide, i * row_dilation * wide, 0),
                (0, 0, 0),
            ],
        )
        for i, row in enumerate(lax.split(product, (outer,) * rows, 2))
    ]
    total = lax.optimization_barrier(functools.reduce(jnp.add, rows_of_output))[
        :, row_reach * wide :
    ]
    full = lax.pad(total, zero, [(0, 0, 0), (0, reach, 0), (0, 0, 0)])
    return full.reshape(batch, high, wide, outer)[:, : high - row_reach, : wide - reach]
