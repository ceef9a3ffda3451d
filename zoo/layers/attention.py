"""Dot-product attention as a module."""

import math
from typing import final

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.ops.attention import dot_product_attention


@final
class DotProductAttention(nn.Module):
    """Scaled dot-product attention without parameters.

    It is a module so that `zoo.profile` can count its multiply-adds.

    Attributes:
        maps: also return the attention weights [B, heads, Q, L]. Without them the fused
            `zoo.ops.attention` is used.

    Args:
        query: queries [B, Q, heads, D].
        key: keys [B, L, heads, D].
        value: values [B, L, heads, D].

    Returns:
        Attention output [B, Q, heads, D] and the weights, or None.

    Source: Vaswani et al. 2017, Attention Is All You Need, equation 1.

    >>> x = jnp.ones((2, 5, 3, 8))
    >>> y, maps = DotProductAttention(maps=True).apply({}, x, x, x)
    >>> y.shape, maps.shape, float(maps[0, 0, 0, 0])
    ((2, 5, 3, 8), (2, 3, 5, 5), 0.20000000298023224)
    """

    maps: bool = False

    def __call__(
        self, query: jax.Array, key: jax.Array, value: jax.Array
    ) -> tuple[jax.Array, jax.Array | None]:
        wide = jnp.promote_types(jnp.float32, query.dtype)
        if not self.maps:
            return dot_product_attention(query, key, value), None
        products = jnp.einsum("bqhd,blhd->bhql", query, key, preferred_element_type=wide)
        weights = nn.softmax(products / math.sqrt(query.shape[-1]))
        y = jnp.einsum("bhql,blhd->bqhd", weights.astype(value.dtype), value)
        return y, weights

    @staticmethod
    def macs(query: jax.Array, key: jax.Array, value: jax.Array) -> int:
        """Returns the multiply-adds of both products for one example."""
        _, queries, heads, width = query.shape
        return 2 * queries * key.shape[1] * heads * width
