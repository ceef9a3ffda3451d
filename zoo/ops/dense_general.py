"""What a transformer does with each token by itself, as a CPU likes it."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from zoo.ops.conv_spec import accumulation_dtype


def dot_general(
    lhs: jax.Array,
    rhs: jax.Array,
    dimension_numbers: Any,
    precision: Any = None,
    preferred_element_type: Any = None,
    *,
    out_sharding: Any = None,
) -> jax.Array:
    """`[..., C], [C, D] -> [..., D]`: jax's function; on a CPU on one row of tokens, [N, C].

    Of more axes, the gradient of the kernel is a product over several of them, for which XLA:CPU
    first transposes the output's gradient: 60 ms for each [8, 197, 3072] and [8, 197, 2304] of 12.
    Fits the field `dot_general` of flax.linen.Dense; other products are XLA's own.

    Source: jax.lax.dot_general.

    >>> x, w = jnp.ones((2, 5, 3)), jnp.ones((3, 4))
    >>> dot_general(x, w, (((2,), (0,)), ((), ()))).shape
    (2, 5, 4)
    """
    rest: dict[str, Any] = dict(precision=precision, preferred_element_type=preferred_element_type)
    if out_sharding is not None:
        rest["out_sharding"] = out_sharding

    def usual(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
        return lax.dot_general(lhs, rhs, dimension_numbers, **rest)

    def flat(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
        rows = lhs.reshape(math.prod(lhs.shape[:-1]), lhs.shape[-1])
        y = lax.dot_general(rows, rhs, (((1,), (0,)), ((), ())), **rest)
        return y.reshape(*lhs.shape[:-1], rhs.shape[1])

    (contracted, batch) = jax.tree.map(int, dimension_numbers)
    ordinary = [list(map(list, each)) for each in (contracted, batch)]
    if lhs.ndim < 3 or ordinary != [[[lhs.ndim - 1], [0]], [[], []]] or out_sharding is not None:
        return usual(lhs, rhs)
    return lax.platform_dependent(lhs, rhs, cpu=flat, default=usual)


def gelu(x: jax.Array) -> jax.Array:
    """`[...] -> [...]`: x times the normal distribution's function at x, by erf.

    jax.nn's takes erfc, exact in the tail, where x * erfc is below 1e-6; on a CPU this takes erf,
    as torch does.

    Source: Hendrycks & Gimpel 2016, Gaussian Error Linear Units, equation 1.

    >>> [round(float(y), 4) for y in gelu(jnp.array([-1.0, 0.0, 1.0]))]
    [-0.1587, 0.0, 0.8413]
    """

    def by_erf(x: jax.Array) -> jax.Array:
        dtype = accumulation_dtype(x.dtype)
        z = x.astype(dtype)
        half = jnp.asarray(0.5, dtype)
        share = half + half * lax.erf(z * jnp.asarray(math.sqrt(0.5), dtype))
        return (z * share).astype(x.dtype)

    def usual(x: jax.Array) -> jax.Array:
        return jax.nn.gelu(x, approximate=False)

    return lax.platform_dependent(x, cpu=by_erf, default=usual)
