"""Pointwise (1 x 1) convolution for CPUs.

Figures are milliseconds on two cores with AVX-512, float32, jax 0.10.1.
"""

import functools

import jax
import jax.numpy as jnp

from zoo.ops.conv_spec import ConvSpec, accumulation_dtype

MAX_FUSED_CHANNELS = 16  # most channels that are added one by one


def conv_pointwise(x: jax.Array, w: jax.Array, shape: ConvSpec) -> jax.Array:
    """Computes a 1 x 1 convolution as a matrix product, pixels by channels.

    For products of whole maps XLA:CPU first transposes one of them: the kernel gradient for 8 x 56²
    x 64 to 256 channels takes 35 as a convolution and 9 as a matrix product; the forward pass 6.5
    and 6.2.

    Args:
        x: image [B, H, W, C].
        w: kernel [1, 1, C, D].
        shape: strides; the padding is 0.

    Returns:
        Feature map [B, H', W', D].

    Source: Lin et al. 2014, Network In Network, section 3.1.

    >>> plain = ConvSpec((2, 2), ((0, 0), (0, 0)), (1, 1), groups=1)
    >>> conv_pointwise(jnp.ones((1, 4, 4, 3)), jnp.ones((1, 1, 3, 2)), plain).shape
    (1, 2, 2, 2)
    """
    if max(shape.strides) > 1:
        x = x[:, :: shape.strides[0], :: shape.strides[1]]
    product = (
        fused_channel_sum
        if w.shape[2] <= MAX_FUSED_CHANNELS and w.shape[2] < w.shape[3]
        else jnp.matmul
    )
    return product(x.reshape(-1, x.shape[3]), w[0, 0]).reshape(*x.shape[:3], w.shape[3])


@jax.custom_jvp
def fused_channel_sum(x: jax.Array, w: jax.Array) -> jax.Array:
    """Computes a product with few input channels as a sum that XLA fuses with what follows.

    A matrix product is written to memory and read again, and writing dominates here: 8 x 112² x 16
    to 96 with norm, ReLU6 and the padding of the depthwise convolution takes 3.0 instead of 4.9;
    56² x 24 to 144 takes as long as the product. Gradients are matrix products.

    Args:
        x: pixels [N, C].
        w: kernel [C, D].

    Returns:
        Products [N, D].

    >>> fused_channel_sum(jnp.ones((2, 3)), jnp.ones((3, 4))).tolist()[0]
    [3.0, 3.0, 3.0, 3.0]
    """
    dtype = accumulation_dtype(x.dtype)
    terms = (x[:, k : k + 1].astype(dtype) * w[k : k + 1].astype(dtype) for k in range(len(w)))
    return functools.reduce(jnp.add, terms).astype(x.dtype)


@fused_channel_sum.defjvp
def _fused_channel_sum_jvp(values, slopes):
    (x, w), (dx, dw) = values, slopes
    return fused_channel_sum(x, w), dx @ w + x @ dw
