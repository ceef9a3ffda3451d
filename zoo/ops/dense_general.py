"""Per-token operations of transformers with fast lowerings for CPUs."""

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
    """Computes a product like `jax.lax.dot_general`, on flattened tokens on a CPU.

    The kernel gradient of a product with several leading axes sums over all of them. XLA:CPU first
    transposes the output gradient for this: 60 ms for each [8, 197, 3072] and [8, 197, 2304], 12
    times per ViT. It fits the field `dot_general` of `flax.linen.Dense`. Other products are XLA's
    own.

    Args:
        lhs: tokens [..., C].
        rhs: kernel [C, D].
        dimension_numbers: as in jax.
        precision: as in jax.
        preferred_element_type: as in jax.
        out_sharding: as in jax.

    Returns:
        Products [..., D].

    Source: jax.lax.dot_general.

    >>> x, w = jnp.ones((2, 5, 3)), jnp.ones((3, 4))
    >>> dot_general(x, w, (((2,), (0,)), ((), ()))).shape
    (2, 5, 4)
    """
    rest: dict[str, Any] = dict(precision=precision, preferred_element_type=preferred_element_type)
    if out_sharding is not None:
        rest["out_sharding"] = out_sharding

    def default(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
        return lax.dot_general(lhs, rhs, dimension_numbers, **rest)

    def flattened(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
        rows = lhs.reshape(math.prod(lhs.shape[:-1]), lhs.shape[-1])
        y = lax.dot_general(rows, rhs, (((1,), (0,)), ((), ())), **rest)
        return y.reshape(*lhs.shape[:-1], rhs.shape[1])

    (contracted, batch) = jax.tree.map(int, dimension_numbers)
    ordinary = [list(map(list, axes)) for axes in (contracted, batch)]
    if lhs.ndim < 3 or ordinary != [[[lhs.ndim - 1], [0]], [[], []]] or out_sharding is not None:
        return default(lhs, rhs)
    return lax.platform_dependent(lhs, rhs, cpu=flattened, default=default)


def gelu(x: jax.Array) -> jax.Array:
    """Computes the exact GELU: x times the cumulative normal distribution at x.

    `jax.nn.gelu` uses erfc, which is exact in the tail, where x * erfc is below 1e-6. On a CPU this
    uses erf, like torch.

    Args:
        x: any array [...].

    Returns:
        Array [...] of the same dtype.

    Source: Hendrycks & Gimpel 2016, Gaussian Error Linear Units, equation 1.

    >>> [round(float(y), 4) for y in gelu(jnp.array([-1.0, 0.0, 1.0]))]
    [-0.1587, 0.0, 0.8413]
    """

    def by_erf(x: jax.Array) -> jax.Array:
        dtype = accumulation_dtype(x.dtype)
        z = x.astype(dtype)
        half = jnp.asarray(0.5, dtype)
        probability = half + half * lax.erf(z * jnp.asarray(math.sqrt(0.5), dtype))
        return (z * probability).astype(x.dtype)

    def default(x: jax.Array) -> jax.Array:
        return jax.nn.gelu(x, approximate=False)

    return lax.platform_dependent(x, cpu=by_erf, default=default)
