"""What XLA:CPU is kept from computing again and again."""

import jax
import jax.numpy as jnp
from jax import lax


def computed_once(x: jax.Array) -> jax.Array:
    """`[...] -> [...]`: x. On a CPU XLA computes it, and its gradient, once for all that read it.

    XLA:CPU computes a sum anew within each program that reads it, unless an operation that it takes
    for dear stands between: a residual stream's gradient, a sum over all the layers above, was
    computed from them in every layer. ViT-B, batch 8, a training step: 8.0 s to 5.4.
    optimization_barrier does not stop this (XLA:CPU drops it before it fuses), a division does,
    by a 1 that the barrier hides from the simplifier.

    Source: xla/service/instruction_fusion.cc, IsExpensive.

    >>> computed_once(jnp.arange(3.0)).tolist()
    [0.0, 1.0, 2.0]
    """

    def divided(x: jax.Array) -> jax.Array:
        return x / lax.optimization_barrier(jnp.ones((), x.dtype))

    return lax.platform_dependent(x, cpu=divided, default=lambda x: x)
