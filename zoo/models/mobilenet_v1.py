"""MobileNet v1: depthwise separable convolutions."""

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

# Table 1: (blocks, channels) of the stages of stride 2, 4, 8, 16 and 32.
STAGES = ((1, 64), (2, 128), (2, 256), (6, 512), (2, 1024))


@final
class Separable(nn.Module):
    """Depthwise separable convolution: 3 x 3 per channel, then 1 x 1.

    Attributes:
        conv: constructor of ConvNorm with the shared fields.

    Args:
        x: feature map [B, H, W, C].
        train: use batch statistics.

    Returns:
        Feature map [B, H / stride, W / stride, width].

    Source: Howard et al. 2017, MobileNets, figure 3.

    >>> block = Separable(16, stride=2, conv=ConvNorm)
    >>> y, variables = block.init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 4)))
    >>> y.shape, variables["params"]["depthwise"]["conv"]["kernel"].shape
    ((1, 4, 4, 16), (3, 3, 1, 4))
    """

    width: int
    stride: int
    conv: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        channels = x.shape[-1]
        x = self.conv(channels, 3, self.stride, groups=channels, name="depthwise")(x, train=train)
        return self.conv(self.width, 1, name="pointwise")(x, train=train)


@final
class MobileNetV1(nn.Module):
    """MobileNet v1, for images of any size.

    Attributes:
        stages: (depth, channels) of the stages of stride 2, 4, 8, 16 and 32; the outputs start at
            stride 4.
        width: factor on all channels, which are rounded to multiples of 8.
        strides: strides of the stem and of stages 1 to 4; (1, 1, 2, 2, 2) suits images of 32 x 32.
        remat: recompute the maps of a block in the backward pass.

    Args:
        image: images [B, H, W, C].
        train: use batch statistics and dropout.

    Returns:
        `stage1` to `stage4` of stride 4 to 32, `pooled` [B, D] and `logits` [B, K].

    Source: Howard et al. 2017, MobileNets: Efficient Convolutional Neural Networks for Mobile
    Vision Applications, table 1; timm's mobilenetv1. ReLU6 and dropout follow the authors' code
    (TensorFlow's slim), which pads as "SAME" and has an epsilon of 1e-3.

    >>> image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    >>> out, _ = jax.eval_shape(MobileNetV1().init_with_output, jax.random.key(0), image)
    >>> out["stage1"].shape, out["pooled"].shape
    ((1, 56, 56, 128), (1, 1024))
    """

    num_classes: int = 1000
    stages: tuple[tuple[int, int], ...] = STAGES
    width: float = 1.0
    strides: tuple[int, ...] = (2, 2, 2, 2, 2)
    dropout: float = 0.001
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

        def call(block: nn.Module, x: jax.Array) -> jax.Array:
            return block(x, train=train)

        call = nn.remat(call) if self.remat else call
        outputs = {}
        stem = conv(make_divisible(32 * self.width), 3, self.strides[0], name="stem")
        x = stem(image, train=train)
        for k, (depth, width) in enumerate(self.stages):
            for i in range(depth):
                stride = self.strides[k] if k > 0 and i == 0 else 1
                block = Separable(
                    make_divisible(width * self.width), stride, conv, name=f"stage{k}_{i}"
                )
                x = call(block, x)
            if k > 0:
                outputs[f"stage{k}"] = x
        outputs["pooled"] = x = x.mean((1, 2))
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
    module=MobileNetV1,
    task="classification",
    input=(224, 224, 3),
    paper="Howard et al. 2017, MobileNets: Efficient Convolutional Neural Networks for Mobile "
    "Vision Applications",
    preprocessing=dict(mean=(0.5,) * 3, std=(0.5,) * 3, crop=0.875, interpolation="bicubic"),
)

VARIANTS = {  # fields of MobileNetV1; parameters
    "mobilenet_v1": dict(  # 4,231,976
        card=dict(reported="ImageNet top-1 70.9 %, top-5 89.9 % (TensorFlow's slim)"),
    ),
    "mobilenet_v1_075": dict(  # 2,585,560
        width=0.75, card=dict(reported="ImageNet top-1 68.4 %, top-5 88.2 % (TensorFlow's slim)")
    ),
    "mobilenet_v1_050": dict(width=0.5),  # 1,331,592
    "mobilenet_v1_025": dict(width=0.25),  # 470,072
}
