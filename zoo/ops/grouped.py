"""A convolution in groups of channels, for CPUs."""

import jax
import jax.numpy as jnp
from jax import lax

from zoo.ops.window import NHWC, Shape

JOINED = 32  # channels of the dense convolutions that narrow groups are joined to


def grouped(x: jax.Array, w: jax.Array, shape: Shape) -> jax.Array:
    """`[B, H, W, C], [h, w, C / groups, D] -> [B, H', W', D]`: dense convolutions of some groups each.

    Groups are joined until they have JOINED channels, with zeros between them: more arithmetic, in
    convolutions that XLA computes well.

    Source: Krizhevsky et al. 2012, section 3.2; Xie et al. 2017, figure 3.

    >>> plain = Shape((1, 1), ((0, 0), (0, 0)), (1, 1), groups=2)
    >>> grouped(jnp.ones((1, 3, 3, 4)), jnp.ones((3, 3, 2, 2)), plain).tolist()
    [[[[18.0, 18.0]]]]
    """
    groups, (height, width, inner, outer) = shape.groups, w.shape
    divisors = [n for n in range(1, groups + 1) if groups % n == 0]
    join = max(n for n in divisors if n == 1 or n * inner <= JOINED)
    kernels = w.reshape(height, width, inner, groups // join, join, outer // groups)
    parts = []
    for k in range(groups // join):
        block = jnp.einsum("hwijo,jg->hwgijo", kernels[:, :, :, k], jnp.eye(join, dtype=w.dtype))
        block = block.reshape(height, width, join * inner, -1)
        own = x[..., k * join * inner : (k + 1) * join * inner]
        parts.append(
            lax.conv_general_dilated(
                own,
                block,
                shape.strides,
                shape.padding,
                rhs_dilation=shape.dilation,
                dimension_numbers=NHWC,
            )
        )
    return jnp.concatenate(parts, -1)
