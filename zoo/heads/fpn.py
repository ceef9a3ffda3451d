"""Feature pyramid: what deep maps know, on maps of all sizes."""

from collections.abc import Sequence
from functools import partial
from typing import final

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from zoo.ops.convolution import conv_general_dilated

# torchvision's kaiming_uniform with a=1
KERNEL_INIT = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


def upsample_nearest(x: jax.Array, size: Sequence[int]) -> jax.Array:
    """`[B, h, w, C], (H, W) -> [B, H, W, C]`: pixel (i, j) is that of (i h // H, j w // W).

    Source: torch's interpolate with mode="nearest", which counts from the corner and not from the
    pixels' middles.

    >>> upsample_nearest(jnp.arange(3.0).reshape(1, 1, 3, 1), (1, 5)).ravel().tolist()
    [0.0, 0.0, 1.0, 1.0, 2.0]
    """
    for axis, side in zip((1, 2), size, strict=True):
        old = x.shape[axis]
        if side % old == 0:  # else the gradient would be a scatter
            x = jnp.repeat(x, side // old, axis)
        else:
            x = jnp.take(x, jnp.arange(side) * old // side, axis)
    return x


@final
class FPN(nn.Module):
    """`[[B, h, w, C], [B, h / 2, w / 2, D], ...] -> [[B, h, w, width], ...]`, one map more.

    Each map, by 1x1 of `width` channels, gets that of the next deeper one, enlarged; 3x3 on the
    sums. The map more is every other pixel of the last one.

    Source: Lin et al. 2017, Feature Pyramid Networks, section 3; torchvision's
    FeaturePyramidNetwork with LastLevelMaxPool.

    >>> maps = [jnp.ones((1, 8, 8, 5)), jnp.ones((1, 4, 4, 7))]
    >>> levels, _ = jax.eval_shape(FPN(6).init_with_output, jax.random.key(0), maps)
    >>> [level.shape for level in levels]
    [(1, 8, 8, 6), (1, 4, 4, 6), (1, 2, 2, 6)]
    """

    width: int = 256
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array]) -> list[jax.Array]:
        conv = partial(
            nn.Conv,
            self.width,
            kernel_init=KERNEL_INIT,
            dtype=self.dtype,
            conv_general_dilated=conv_general_dilated,
        )
        inner = [conv((1, 1), name=f"inner{k}")(x) for k, x in enumerate(maps, 1)]
        for k in reversed(range(len(inner) - 1)):
            inner[k] = inner[k] + upsample_nearest(inner[k + 1], inner[k].shape[1:3])
        levels = [conv((3, 3), padding=[1, 1], name=f"layer{k}")(x) for k, x in enumerate(inner, 1)]
        return [*levels, levels[-1][:, ::2, ::2]]
