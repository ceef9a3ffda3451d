"""Control of XLA:CPU's fusion."""

import jax
import jax.numpy as jnp
from jax import lax


@jax.jit
def fusion_barrier(x: jax.Array) -> jax.Array:
    """Returns x; on a CPU, XLA computes it and its gradient once for all consumers.

    XLA:CPU recomputes a sum inside every fused program that reads it. A residual stream, or its
    gradient (a sum over all later layers), is thus recomputed in every layer, and one value at a
    time if the consumer is a transposing copy. `optimization_barrier` does not prevent this
    (XLA:CPU drops it before fusion), and neither does a division (it becomes a product when
    broadcast). XLA does not fuse through a runtime `cond` with an identity branch. ResNet-20, 128
    images, one training step: 527 to 338 ms.

    Args:
        x: any array [...].

    Returns:
        The same array.

    Source: xla/service/instruction_fusion.cc.

    >>> fusion_barrier(jnp.arange(3.0)).tolist()
    [0.0, 1.0, 2.0]
    """

    def conditional(x: jax.Array) -> jax.Array:
        always = lax.optimization_barrier(jnp.zeros((), jnp.int32)) == 0
        return lax.cond(always, lambda x: x, lambda x: -x, x)

    return lax.platform_dependent(x, cpu=conditional, default=lambda x: x)
