"""MobileNet v2: inverted residuals with linear bottlenecks."""

import functools
from collections.abc import Callable
from typing import final

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from zoo.layers.activation import lookup_activation
from zoo.layers.conv_norm import ConvNorm
from zoo.layers.initializer import lookup_initializer
from zoo.layers.make_divisible import make_divisible
from zoo.layers.residual import StochasticDepth, drop_rates
from zoo.preprocess import IMAGENET_NORM

# Table 2: the channels of each block of the stages of stride 2, 4, 8, 16 and 32.
STAGES = ((16,), (24,) * 2, (32,) * 3, (64,) * 4 + (96,) * 3, (160,) * 3 + (320,))


@final
class InvertedResidual(nn.Module):
    """Inverted residual block: 1 x 1 expansion, depthwise 3 x 3, linear 1 x 1 projection.

    The input is added where the shapes agree.

    Attributes:
        expansion: factor on the channels in between; 1 omits the expansion.
        conv: constructor of ConvNorm with the shared fields.

    Args:
        x: feature map [B, H, W, C].
        rate: stochastic depth rate.
        train: use batch statistics.

    Returns:
        Feature map [B, H / stride, W / stride, width].

    Source: Sandler et al. 2018, MobileNetV2, section 3.3 and table 1.

    >>> block = InvertedResidual(4, stride=1, expansion=6, conv=ConvNorm)
    >>> y, variables = block.init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 4)))
    >>> y.shape, variables["params"]["project"]["conv"]["kernel"].shape
    ((1, 8, 8, 4), (1, 1, 24, 4))
    """

    width: int
    stride: int
    expansion: int
    conv: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, rate: float = 0.0, *, train: bool = False) -> jax.Array:
        wide = self.expansion * x.shape[-1]
        y = x
        if self.expansion != 1:
            y = self.conv(wide, 1, name="expand")(y, train=train)
        y = self.conv(wide, 3, self.stride, groups=wide, name="depthwise")(y, train=train)
        y = self.conv(self.width, 1, act=None, name="project")(y, train=train)
        if self.stride != 1 or x.shape != y.shape:
            return y
        return x + StochasticDepth(name="drop")(y, rate, train=train)


@final
class MobileNetV2(nn.Module):
    """MobileNet v2, for images of any size.

    Attributes:
        stages: channels of the blocks of the stages of stride 2, 4, 8, 16 and 32; the outputs start
            at stride 4.
        width: factor on all channels, which are rounded to multiples of 8; the 1,280 channels of
            the last convolution do not shrink.
        strides: strides of the stem and of stages 1 to 4; (1, 1, 2, 2, 2) suits images of 32 x 32.
        dropout: dropout rate before the head.
        stochastic_depth: rate of the last block; it grows linearly with depth.
        remat: recompute the maps of a block in the backward pass.

    Args:
        image: images [B, H, W, C].
        train: use batch statistics, dropout and stochastic depth.

    Returns:
        `stage1` to `stage4` of stride 4 to 32, `pooled` [B, 1280] and `logits` [B, K].

    Source: Sandler et al. 2018, MobileNetV2: Inverted Residuals and Linear Bottlenecks, table 2;
    torchvision's mobilenet_v2 and timm's mobilenetv2, which compute the same.

    >>> image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    >>> out, _ = jax.eval_shape(MobileNetV2().init_with_output, jax.random.key(0), image)
    >>> out["stage1"].shape, out["pooled"].shape
    ((1, 56, 56, 24), (1, 1280))
    """

    num_classes: int = 1000
    stages: tuple[tuple[int, ...], ...] = STAGES
    width: float = 1.0
    strides: tuple[int, ...] = (2, 2, 2, 2, 2)
    dropout: float = 0.2
    stochastic_depth: float = 0.0
    padding: str | int = "torch"
    act: str = "relu6"
    norm: str | None = "batch"
    kernel_init: str = "he_fan_out"
    remat: bool = False
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        chex.assert_rank(image, 4)
        conv = functools.partial(
            ConvNorm,
            padding=self.padding,
            act=lookup_activation(self.act),
            norm=self.norm,
            kernel_init=lookup_initializer(self.kernel_init),
            dtype=self.dtype,
            axis_name=self.axis_name,
        )

        def run(block: nn.Module, x: jax.Array, rate: float) -> jax.Array:
            def call(block: nn.Module, x: jax.Array) -> jax.Array:
                return block(x, rate, train=train)

            return (nn.remat(call) if self.remat else call)(block, x)

        rates = drop_rates(self.stochastic_depth, [len(widths) for widths in self.stages])
        outputs = {}
        stem = conv(make_divisible(32 * self.width), 3, self.strides[0], name="stem")
        x = stem(image, train=train)
        for k, widths in enumerate(self.stages):
            for i, width in enumerate(widths):
                block = InvertedResidual(
                    make_divisible(width * self.width),
                    stride=self.strides[k] if k > 0 and i == 0 else 1,
                    expansion=1 if k == 0 else 6,
                    conv=conv,
                    name=f"stage{k}_{i}",
                )
                x = run(block, x, rates[k][i])
            if k > 0:
                outputs[f"stage{k}"] = x
        last = conv(make_divisible(1280 * max(1.0, self.width)), 1, name="last")
        outputs["pooled"] = x = last(x, train=train).mean((1, 2))
        if self.num_classes:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            wide = jnp.promote_types(jnp.float32, self.dtype)
            head = nn.Dense(
                self.num_classes,
                kernel_init=nn.initializers.normal(0.01),
                dtype=wide,
                name="head",
            )
            outputs["logits"] = head(x)
        return outputs


CARD = dict(
    module=MobileNetV2,
    task="classification",
    input=(224, 224, 3),
    paper="Sandler et al. 2018, MobileNetV2: Inverted Residuals and Linear Bottlenecks",
    preprocessing=dict(**IMAGENET_NORM, crop=0.875),
)

VARIANTS = {  # fields of MobileNetV2; parameters
    "mobilenet_v2": dict(  # 3,504,872
        card=dict(reported="ImageNet top-1 71.878 % (torchvision's weights)")
    ),
    "mobilenet_v2_140": dict(  # 6,108,776
        width=1.4, card=dict(reported="ImageNet top-1 76.528 % (timm's weights)")
    ),
    "mobilenet_v2_075": dict(  # 2,636,424
        width=0.75, card=dict(reported="ImageNet top-1 69.952 % (d-li14's weights)")
    ),
    "mobilenet_v2_050": dict(  # 1,968,680
        width=0.5, card=dict(reported="ImageNet top-1 64.592 % (d-li14's weights)")
    ),
    "mobilenet_v2_035": dict(width=0.35),  # 1,677,128
    "mobilenet_v2_025": dict(width=0.25),  # 1,519,112
}
