"""The 3-D CNN of Ji et al.: five kinds of hardwired maps of a clip, each with kernels of its own."""

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

KINDS = ("gray", "across", "down", "flow_across", "flow_down")  # of maps, in this order


def stack_frames(maps: int) -> tuple[int, ...]:
    """Channels `[..., C] -> [C]` parted by kind: T gray, T and T of gradients, T - 1 and T - 1 of flow.

    ValueError where no clip of frames has that many.

    Source: Ji et al. 2013, 3D Convolutional Neural Networks for Human Action Recognition, section
    2.2, layer H1.

    >>> stack_frames(33)
    (7, 7, 7, 6, 6)
    """
    frames, rest = divmod(maps + 2, 5)
    if rest or frames < 6:
        raise ValueError(
            f"expected 5 T - 2 maps of T frames, 6 or more (of 7: 33), got {maps} channels"
        )
    return (frames,) * 3 + (frames - 1,) * 2


@final
class Subsample(nn.Module):
    """`[B, H, W, C] -> [B, H / window, W / window, C]`: each map's means, scaled and shifted.

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
    """`[B, H, W, C] -> [B, width]`: a kernel as large as the map, with a bias for each map and unit.

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
    """`[B, H, W, 5 T - 2] -> {stage1, stage2, pooled [B, 128], logits [B, K]}`: maps of T frames.

    The maps are the host's (train.data makes them): T gray frames, T of their gradients across and T
    down, T - 1 of the flow across and T - 1 down. Of each kind C2 has `sets` kernels of 3 frames x
    `kernels[0]`, and C4 `more` of 3 x `kernels[1]` for each set; both slide along time, so that the
    maps become two fewer. S3 and S5 are means over `windows` squared. C6 sees all of what is left, so
    that weights are of one size and number of frames. The stages are S3's and S5's maps, by kind,
    then time, then set and kernel. `num_classes=0` leaves the output out.

    Source: Ji, Xu, Yang, Yu 2013, 3D Convolutional Neural Networks for Human Action Recognition,
    section 2.2 and figure 3: 295,458 weights for 7 frames of 60 x 40. The squashing is tanh.

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
        """`[B, H, W, sum(frames) * groups] -> [B, h, w, (sum(frames) - 10) * features]`, kind by kind."""
        kernel, made, start = self.kernels[int(layer == "c4")], [], 0
        if any(side < k for side, k in zip(x.shape[1:3], kernel, strict=True)):
            raise ValueError(f"maps are too small: {layer} has kernels of {kernel} for {x.shape}")
        for kind, count in zip(KINDS, frames, strict=True):
            own = x[..., start : start + count * groups]
            start += count * groups
            own = own.reshape(*own.shape[:3], count, groups).transpose(0, 3, 1, 2, 4)
            y = nn.Conv(
                features,
                (3, *kernel),
                padding="VALID",
                feature_group_count=groups,
                kernel_init=lookup_initializer(self.kernel_init),
                dtype=self.dtype,
                conv_general_dilated=conv_general_dilated,
                name=f"{layer}_{kind}",
            )(own)
            made.append(y.transpose(0, 2, 3, 1, 4).reshape(y.shape[0], *y.shape[2:4], -1))
        return jnp.concatenate(made, -1)


CARD = dict(
    module=CNN3D,
    task="video",
    input=(60, 40, 33),
    paper="Ji, Xu, Yang, Yu 2013, 3D Convolutional Neural Networks for Human Action Recognition",
    # maps in [0, 1], or as uint8: 0.5 is no gradient and no flow
    preprocessing=dict(mean=(0.5,) * 33, std=(0.25,) * 33, frames=7),
)

VARIANTS = {  # fields of CNN3D; parameters
    "cnn3d_ji2013": dict(card=dict(reported="KTH 90.2 %, of 9 frames of 80 x 60")),  # 295,458
}
