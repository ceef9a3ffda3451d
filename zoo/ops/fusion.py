"""What XLA:CPU is kept from computing again and again."""

import jax
import jax.numpy as jnp
from jax import lax


@jax.jit
def fusion_barrier(x: jax.Array) -> jax.Array:
    """`[...] -> [...]`: x. On a CPU XLA computes it, and its gradient, once for all that read it.

    XLA:CPU computes a sum anew within each program that reads it: a residual stream, or its gradient,
    a sum over all layers above, is computed from them in every layer, and where the reader is a
    transposing copy, a value at a time. optimization_barrier does not stop this (XLA:CPU drops it
    before it fuses), nor does a division (by a broadcast it becomes a product). It does not look into
    a choice that is made when the program runs, of which one side is x itself. ResNet-20, 128 images,
    a training step: 527 milliseconds to 338.

    Source: xla/service/instruction_fusion.cc, what may be fused.

    >>> fusion_barrier(jnp.arange(3.0)).tolist()
    [0.0, 1.0, 2.0]
    """

    def chosen(x: jax.Array) -> jax.Array:
        always = lax.optimization_barrier(jnp.zeros((), jnp.int32)) == 0
        return lax.cond(always, lambda x: x, lambda x: -x, x)

    return lax.platform_dependent(x, cpu=chosen, default=lambda x: x)
