"""ResNets for clips with 3-D, mixed and (2+1)-D convolutions."""

import functools
from collections.abc import Callable
from typing import Any, final

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from zoo.layers.activation import lookup_activation
from zoo.layers.conv_norm import ConvNorm
from zoo.layers.initializer import lookup_initializer
from zoo.layers.residual import apply_stage
from zoo.lookup import lookup

KINDS: dict[str, Any] = dict.fromkeys(("3d", "2d", "2plus1d"))


@final
class Convolution(nn.Module):
    """Convolution over space and time with norm.

    Attributes:
        kind: "3d" is one 3x3x3; "2d" one 1x3x3, which keeps the number of frames; "2plus1d" a 1x3x3
            to `middle` channels and a 3x1x1, each with a norm.
        middle: channels between the two convolutions of "2plus1d".
        conv: constructor of ConvNorm with the shared fields.

    Args:
        x: feature map [B, T, H, W, C].
        train: use batch statistics.

    Returns:
        Feature map [B, T / stride, H / stride, W / stride, width].

    Source: Tran et al. 2018, A Closer Look at Spatiotemporal Convolutions for Action Recognition,
    figure 1 a, d and e.

    >>> x = jnp.ones((1, 4, 8, 8, 3))
    >>> model = Convolution(8, 2, kind="2plus1d", middle=5)
    >>> start = functools.partial(model.init_with_output, train=False)
    >>> y, variables = jax.eval_shape(start, jax.random.key(0), x)
    >>> y.shape, sorted(variables["params"])
    ((1, 2, 4, 4, 8), ['spatial', 'temporal'])
    """

    width: int
    stride: int = 1
    kind: str = "3d"
    middle: int = 0
    act: Callable[[jax.Array], jax.Array] | None = nn.relu
    conv: Callable[..., nn.Module] = ConvNorm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        lookup(KINDS, self.kind, kind="kind")
        s = self.stride
        if self.kind == "3d":
            return self.conv(self.width, 3, s, act=self.act, name="full")(x, train=train)
        if self.kind == "2d":
            flat = self.conv(self.width, (1, 3, 3), (1, s, s), act=self.act, name="spatial")
            return flat(x, train=train)
        x = self.conv(self.middle, (1, 3, 3), (1, s, s), name="spatial")(x, train=train)
        last = self.conv(self.width, (3, 1, 1), (s, 1, 1), act=self.act, name="temporal")
        return last(x, train=train)


@final
class Block(nn.Module):
    """Residual block of two convolutions of one kind.

    Kind "2d" keeps the number of frames. In a (2+1)-D block the second convolution also has as many
    parameters as the 3-D one with the input's C channels.

    Args:
        x: feature map [B, T, H, W, C].
        rate: not used; `apply_stage` passes it.
        train: use batch statistics.

    Returns:
        Feature map [B, T / s, H / s, W / s, width].

    Source: Tran et al. 2018, sections 3.4 and 3.5; torchvision's BasicBlock of models.video.

    >>> x = jnp.ones((1, 4, 8, 8, 16))
    >>> model = Block(32, 2, kind="2d")
    >>> start = functools.partial(model.init_with_output, train=False)
    >>> y, variables = jax.eval_shape(start, jax.random.key(0), x)
    >>> y.shape, sorted(variables["params"])
    ((1, 4, 4, 4, 32), ['first', 'second', 'skip'])
    """

    width: int
    stride: int = 1
    kind: str = "3d"
    conv: Callable[..., nn.Module] = ConvNorm
    act: Callable[[jax.Array], jax.Array] = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array, rate: float | jax.Array = 0.0, *, train: bool) -> jax.Array:
        del rate  # apply_stage passes the stochastic depth rate to every block
        inputs = x.shape[-1]
        middle = 27 * inputs * self.width // (9 * inputs + 3 * self.width)
        convolution = functools.partial(
            Convolution, self.width, kind=self.kind, middle=middle, conv=self.conv
        )
        y = convolution(stride=self.stride, act=self.act, name="first")(x, train=train)
        y = convolution(act=None, name="second")(y, train=train)
        if x.shape != y.shape:
            steps = (1 if self.kind == "2d" else self.stride, self.stride, self.stride)
            x = self.conv(self.width, 1, steps, act=None, name="skip")(x, train=train)
        return self.act(x + y)


@final
class ResNet3D(nn.Module):
    """ResNet for clips of any size.

    Attributes:
        depths: number of blocks of each stage. Stages have `width`, 2 `width`, 4 `width`, ...
            channels.
        kinds: kind of convolution of each stage, see `Convolution`. From the second stage on "3d"
            and "2plus1d" also halve the frames.
        factored_stem: use a 1x7x7 and a 3x1x1 stem instead of 3x7x7.
        stem_stride: spatial stride of the stem.
        num_classes: number of classes; 0 removes the head.
        dropout: dropout rate before the head.
        remat: keep only the inputs of the blocks for the gradient.

    Args:
        video: clips [B, T, H, W, C].
        train: use batch statistics and dropout.

    Returns:
        `stage1` ... `stageN`, `pooled` [B, D] and `logits` [B, K].

    Raises:
        ValueError: if `kinds` and `depths` differ in length.

    Source: Tran et al. 2018, A Closer Look at Spatiotemporal Convolutions for Action Recognition,
    table 1; torchvision's models.video, which computes the same (the paper's mixed net has two
    stages of 3-D convolutions, torchvision's one).

    >>> model = ResNet3D((1, 1), kinds=("3d", "2d"), num_classes=5)
    >>> clip = jax.ShapeDtypeStruct((1, 4, 32, 32, 3), jnp.float32)
    >>> out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), clip)
    >>> out["stage2"].shape, out["logits"].shape
    ((1, 4, 8, 8, 128), (1, 5))
    """

    depths: tuple[int, ...] = (2, 2, 2, 2)
    kinds: tuple[str, ...] = ("3d",) * 4
    width: int = 64
    factored_stem: bool = False
    stem_stride: int = 2
    num_classes: int = 400
    dropout: float = 0.0
    act: str = "relu"
    norm: str | None = "batch"
    kernel_init: str = "he_fan_out"
    remat: bool = False
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, video: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        chex.assert_rank(video, 5)
        if len(self.kinds) != len(self.depths):
            raise ValueError(
                f"expected one kind for each of the depths {self.depths}, got {self.kinds}"
            )
        conv = functools.partial(
            ConvNorm,
            act=lookup_activation(self.act),
            norm=self.norm,
            kernel_init=lookup_initializer(self.kernel_init),
            dtype=self.dtype,
            axis_name=self.axis_name,
        )
        x, outputs = self.stem(video, conv, train=train), {}
        for k, (depth, kind) in enumerate(zip(self.depths, self.kinds, strict=True)):
            block = functools.partial(
                Block, self.width * 2**k, kind=kind, conv=conv, act=lookup_activation(self.act)
            )
            x = apply_stage(
                functools.partial(block, stride=2 if k else 1),
                block,
                x,
                name=f"stage{k + 1}",
                rates=[0.0] * depth,
                train=train,
                remat=self.remat,
            )
            outputs[f"stage{k + 1}"] = x
        outputs["pooled"] = x = x.mean((1, 2, 3))
        if self.num_classes:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            wide = jnp.promote_types(jnp.float32, self.dtype)
            small = lookup_initializer("small_normal")
            head = nn.Dense(self.num_classes, kernel_init=small, dtype=wide, name="head")
            outputs["logits"] = head(x)
        return outputs

    def stem(self, x: jax.Array, conv: Callable[..., nn.Module], *, train: bool) -> jax.Array:
        """Applies the stem."""
        stride = (1, self.stem_stride, self.stem_stride)
        if not self.factored_stem:
            return conv(self.width, (3, 7, 7), stride, name="stem")(x, train=train)
        middle = 45 * self.width // 64  # the authors' 45, scaled with the width
        x = conv(middle, (1, 7, 7), stride, name="stem_spatial")(x, train=train)
        return conv(self.width, (3, 1, 1), name="stem_temporal")(x, train=train)


CARD = dict(
    module=ResNet3D,
    task="video",
    input=(16, 112, 112, 3),
    paper="Tran et al. 2018, A Closer Look at Spatiotemporal Convolutions for Action Recognition",
    # 15 frames a second; torchvision resizes to 128 x 171 and ignores the aspect ratio
    preprocessing=dict(
        mean=(0.43216, 0.394666, 0.37645),
        std=(0.22803, 0.22145, 0.216989),
        crop=112 / 128,
        stride=2,
    ),
)

VARIANTS = {  # fields of ResNet3D; parameters
    "r3d_18": dict(  # 33,371,472
        card=dict(reported="Kinetics-400 top-1 63.2 %, top-5 83.479 % (torchvision)"),
    ),
    "mc3_18": dict(  # 11,695,440
        kinds=("3d", "2d", "2d", "2d"),
        card=dict(reported="Kinetics-400 top-1 63.96 %, top-5 84.13 % (torchvision)"),
    ),
    "r2plus1d_18": dict(  # 31,505,325
        kinds=("2plus1d",) * 4,
        factored_stem=True,
        card=dict(reported="Kinetics-400 top-1 67.463 %, top-5 86.175 % (torchvision)"),
    ),
}
