"""Scaled dot-product attention with a fast lowering for CPUs."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from zoo.ops.conv_spec import accumulation_dtype


def dot_product_attention(query: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
    """Computes scaled dot-product attention, like `jax.nn.dot_product_attention`.

    On a CPU, and for float64 (whose softmax jax.nn computes in float32), it is a matrix product per
    head, and the division of the softmax follows the second product.

    Args:
        query: queries [B, Q, heads, D].
        keys: keys [B, L, heads, D].
        values: values [B, L, heads, D].

    Returns:
        Attention output [B, Q, heads, D] in the dtype of `values`.

    Source: Vaswani et al. 2017, Attention Is All You Need, equation 1;
    jax.nn.dot_product_attention.

    >>> x = jnp.ones((2, 5, 3, 8))
    >>> dot_product_attention(x, x, x).shape
    (2, 5, 3, 8)
    """
    if accumulation_dtype(query.dtype) == jnp.float64:
        return _per_head(query, keys, values)
    default = jax.nn.dot_product_attention
    return lax.platform_dependent(query, keys, values, cpu=_per_head, default=default)


def _per_head(query: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
    """Computes attention as one batched matrix product over batch and heads.

    8 x 197 x 12 x 64, forward pass, float32, two cores: 21 ms with jax.nn, 12 ms so.
    """
    batch, _, heads, width = query.shape
    dtype = accumulation_dtype(query.dtype)

    def fold(x: jax.Array) -> jax.Array:  # [B, L, heads, D] -> [B * heads, L, D]
        x = x.astype(dtype).transpose(0, 2, 1, 3)
        return x.reshape(batch * heads, -1, x.shape[-1])

    scale = jnp.asarray(1 / math.sqrt(width), dtype)
    products = lax.dot_general(fold(query) * scale, fold(keys), (((2,), (2,)), ((0,), (0,))))
    row_max = lax.stop_gradient(products.max(-1, keepdims=True))
    weights = jnp.exp(products - row_max)
    y = lax.dot_general(weights, fold(values), (((2,), (1,)), ((0,), (0,))))
    y = y / weights.sum(-1, keepdims=True)  # divides D values per row instead of L
    y = y.reshape(batch, heads, -1, y.shape[-1]).transpose(0, 2, 1, 3)
    return y.astype(values.dtype)
