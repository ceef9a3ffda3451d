"""Feature pyramid network."""

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
    """Upsamples a map so that pixel (i, j) copies pixel (i h // H, j w // W).

    Args:
        x: feature map [B, h, w, C].
        size: output height and width (H, W).

    Returns:
        Feature map [B, H, W, C].

    Source: torch's interpolate with mode="nearest", which aligns corners and not pixel centers.

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
    """Feature pyramid network with an extra level.

    Lateral 1x1 convolutions, top-down upsampling and addition, and 3x3 output convolutions. The
    extra level subsamples the last one by 2.

    Attributes:
        width: number of output channels.

    Args:
        maps: backbone stages, finest first [[B, h, w, C], ...].

    Returns:
        Pyramid levels [[B, h, w, width], ...], one more than the inputs.

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
