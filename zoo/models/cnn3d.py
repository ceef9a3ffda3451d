"""The 3-D CNN of Ji et al. 2013 on five kinds of hardwired maps."""

from collections.abc import Sequence
from typing import final

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from zoo.layers.activation import lookup_activation
from zoo.layers.initializer import lookup_initializer
from zoo.ops.convolution import conv_general_dilated
from zoo.ops.pooling import avg_pool

KINDS = ("gray", "across", "down", "flow_across", "flow_down")  # kinds of maps, in channel order


def stack_frames(maps: int) -> tuple[int, ...]:
    """Splits the number of input maps by kind.

    A clip of T frames has T gray maps, T and T gradient maps, and T - 1 and T - 1 flow maps.

    Args:
        maps: number of maps.

    Returns:
        Number of maps of each kind.

    Raises:
        ValueError: if no clip has that many maps.

    Source: Ji et al. 2013, 3D Convolutional Neural Networks for Human Action Recognition, section
    2.2, layer H1.

    >>> stack_frames(33)
    (7, 7, 7, 6, 6)
    """
    frames, remainder = divmod(maps + 2, 5)
    if remainder or frames < 6:
        raise ValueError(
            f"expected 5 T - 2 maps of T frames, 6 or more (of 7: 33), got {maps} channels"
        )
    return (frames,) * 3 + (frames - 1,) * 2


@final
class Subsample(nn.Module):
    """Average pooling with a trainable scale and offset per map.

    Args:
        x: feature map [B, H, W, C].

    Returns:
        Feature map [B, H / window, W / window, C].

    Source: Ji et al. 2013, section 2.2, layers S3 and S5: two weights for each map.

    >>> y, variables = Subsample(2).init_with_output(jax.random.key(0), jnp.ones((1, 4, 4, 6)))
    >>> y.shape, sum(weight.size for weight in jax.tree.leaves(variables))
    ((1, 2, 2, 6), 12)
    """

    window: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, width, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, width, jnp.float32)
        scale, bias = (value.reshape(1, 1, 1, -1).astype(self.dtype) for value in (scale, bias))
        window = (self.window, self.window)
        return avg_pool(x.astype(self.dtype), window, window) * scale + bias


@final
class FullConv(nn.Module):
    """A convolution as large as the map, with a bias for each input map and unit.

    Args:
        x: feature map [B, H, W, C].

    Returns:
        Units [B, width].

    Source: Ji et al. 2013, section 2.2, layer C6, whose 289,536 weights are 128 * 78 * (28 + 1).

    >>> model, x = FullConv(128), jnp.ones((1, 7, 4, 78))
    >>> y, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
    >>> y.shape, sum(weight.size for weight in jax.tree.leaves(variables))
    ((1, 128), 289536)
    """

    width: int
    kernel_init: str = "xavier"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*x.shape[1:], self.width)
        kernel = self.param("kernel", lookup_initializer(self.kernel_init), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape[2:], jnp.float32)
        flat = x.astype(self.dtype).reshape(x.shape[0], -1)
        y = flat @ kernel.astype(self.dtype).reshape(flat.shape[1], self.width)
        return y + bias.astype(self.dtype).sum(0)[None]


@final
class CNN3D(nn.Module):
    """The 3-D CNN of Ji et al. 2013.

    `train.data` computes the maps: T gray frames, their horizontal and vertical gradients, and the
    horizontal and vertical optical flow. For each kind, C2 has `sets` kernels of 3 frames x
    `kernels[0]`, and C4 has `more` kernels of 3 x `kernels[1]` for each set; both slide along time,
    so each removes two frames. S3 and S5 average over `windows` squared. C6 covers all of the
    remaining map, so the parameters fix the image size and the number of frames. The stages are the
    maps of S3 and S5, ordered by kind, time, set and kernel.

    Attributes:
        num_classes: number of classes; 0 removes the output.

    Args:
        maps: hardwired maps [B, H, W, 5 T - 2].
        train: not used.

    Returns:
        `stage1`, `stage2`, `pooled` [B, 128] and `logits` [B, K].

    Source: Ji, Xu, Yang, Yu 2013, 3D Convolutional Neural Networks for Human Action Recognition,
    section 2.2 and figure 3: 295,458 parameters for 7 frames of 60 x 40, with tanh.

    >>> maps = jax.ShapeDtypeStruct((1, 60, 40, 33), jnp.float32)
    >>> out, _ = jax.eval_shape(CNN3D().init_with_output, jax.random.key(0), maps)
    >>> out["stage1"].shape, out["stage2"].shape, out["logits"].shape
    ((1, 27, 17, 46), (1, 7, 4, 78), (1, 3))
    """

    num_classes: int = 3
    kernels: tuple[tuple[int, int], tuple[int, int]] = ((7, 7), (7, 6))
    windows: tuple[int, int] = (2, 3)
    sets: int = 2
    more: int = 3
    width: int = 128
    act: str = "tanh"
    kernel_init: str = "xavier"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        chex.assert_rank(maps, 4)
        act, frames = lookup_activation(self.act), list(stack_frames(maps.shape[-1]))
        x = act(self.convolve(maps, frames, layer="c2", features=self.sets, groups=1))
        frames = [n - 2 for n in frames]
        stage1 = act(Subsample(self.windows[0], self.dtype, name="s3")(x))
        features = self.more * self.sets
        x = act(self.convolve(stage1, frames, layer="c4", features=features, groups=self.sets))
        stage2 = act(Subsample(self.windows[1], self.dtype, name="s5")(x))
        pooled = act(FullConv(self.width, self.kernel_init, self.dtype, name="c6")(stage2))
        outputs = dict(stage1=stage1, stage2=stage2, pooled=pooled)
        if self.num_classes:
            wide = jnp.promote_types(jnp.float32, self.dtype)
            kernel_init = lookup_initializer(self.kernel_init)
            output = nn.Dense(
                self.num_classes, use_bias=False, kernel_init=kernel_init, dtype=wide, name="output"
            )
            outputs["logits"] = output(pooled)
        return outputs

    def convolve(
        self, x: jax.Array, frames: Sequence[int], *, layer: str, features: int, groups: int
    ) -> jax.Array:
        """Convolves every kind of maps separately along space and time.

        Args:
            x: maps [B, H, W, sum(frames) * groups].
            frames: number of frames of each kind.
            layer: name of the layer.
            features: number of kernels.
            groups: number of sets.

        Returns:
            Maps [B, h, w, (sum(frames) - 10) * features].
        """
        kernel, outputs, start = self.kernels[int(layer == "c4")], [], 0
        if any(side < k for side, k in zip(x.shape[1:3], kernel, strict=True)):
            raise ValueError(f"expected maps of at least {kernel} for {layer}, got {x.shape}")
        for kind, count in zip(KINDS, frames, strict=True):
            kind_maps = x[..., start : start + count * groups]
            start += count * groups
            kind_maps = kind_maps.reshape(*kind_maps.shape[:3], count, groups).transpose(
                0, 3, 1, 2, 4
            )
            y = nn.Conv(
                features,
                (3, *kernel),
                padding="VALID",
                feature_group_count=groups,
                kernel_init=lookup_initializer(self.kernel_init),
                dtype=self.dtype,
                conv_general_dilated=conv_general_dilated,
                name=f"{layer}_{kind}",
            )(kind_maps)
            outputs.append(y.transpose(0, 2, 3, 1, 4).reshape(y.shape[0], *y.shape[2:4], -1))
        return jnp.concatenate(outputs, -1)


CARD = dict(
    module=CNN3D,
    task="video",
    input=(60, 40, 33),
    paper="Ji, Xu, Yang, Yu 2013, 3D Convolutional Neural Networks for Human Action Recognition",
    # maps in [0, 1], or uint8; 0.5 means no gradient and no flow
    preprocessing=dict(mean=(0.5,) * 33, std=(0.25,) * 33, frames=7),
)

VARIANTS = {  # fields of CNN3D; parameters
    "cnn3d_ji2013": dict(card=dict(reported="KTH 90.2 %, of 9 frames of 80 x 60")),  # 295,458
}
