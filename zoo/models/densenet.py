"""DenseNet for ImageNet and CIFAR, plain and BC."""

from collections.abc import Sequence
from typing import Any, final

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from zoo.layers.activation import lookup_activation
from zoo.layers.conv_norm import ConvNorm
from zoo.layers.initializer import lookup_initializer
from zoo.layers.norm import create_norm
from zoo.lookup import lookup
from zoo.ops.convolution import conv_general_dilated
from zoo.ops.pooling import avg_pool, max_pool
from zoo.preprocess import IMAGENET_NORM


@final
class DenseLayer(nn.Module):
    """Dense layer: norm, activation and 3 x 3 convolution of all previous maps.

    Attributes:
        growth: number of new maps.
        bottleneck: if not 0, norm, activation and a 1 x 1 convolution to bottleneck * growth maps
            come first.

    Args:
        maps: all previous maps of the block [[B, H, W, C], ...].
        train: use batch statistics.

    Returns:
        New maps [B, H, W, growth].

    Source: Huang et al. 2017, Densely Connected Convolutional Networks, section 3, equation 2.

    >>> maps = [jnp.ones((1, 8, 8, 24)), jnp.ones((1, 8, 8, 12))]
    >>> layer = DenseLayer(growth=12, bottleneck=4)
    >>> y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), maps)
    >>> y.shape, variables["params"]["reduce"]["conv"]["kernel"].shape
    ((1, 8, 8, 12), (1, 1, 36, 48))
    """

    growth: int
    bottleneck: int = 0
    dropout: float = 0.0
    act: str = "relu"
    norm: str | None = "batch"
    kernel_init: str = "he"
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array], *, train: bool = False) -> jax.Array:
        act, kernel_init = lookup_activation(self.act), lookup_initializer(self.kernel_init)
        first = create_norm(self.norm, axis_name=self.axis_name, dtype=self.dtype)
        x = act(first(jnp.concatenate(maps, -1), train=train))
        if self.bottleneck:
            x = ConvNorm(
                self.bottleneck * self.growth,
                kernel=1,
                act=act,
                norm=self.norm,
                kernel_init=kernel_init,
                dtype=self.dtype,
                axis_name=self.axis_name,
                name="reduce",
            )(x, train=train)
        x = nn.Conv(
            self.growth,
            (3, 3),
            padding=1,
            use_bias=False,
            kernel_init=kernel_init,
            dtype=self.dtype,
            conv_general_dilated=conv_general_dilated,
            name="spatial",
        )(x)
        return nn.Dropout(self.dropout, deterministic=not train)(x)


@final
class Transition(nn.Module):
    """Transition layer: norm, activation, 1 x 1 convolution and average pooling.

    Args:
        x: feature map [B, H, W, C].
        train: use batch statistics.

    Returns:
        Feature map [B, H / 2, W / 2, width].

    Source: Huang et al. 2017, Densely Connected Convolutional Networks, section 3, pooling layers.

    >>> x = jnp.ones((1, 8, 8, 24))
    >>> jax.eval_shape(Transition(12).init_with_output, jax.random.key(0), x)[0].shape
    (1, 4, 4, 12)
    """

    width: int
    dropout: float = 0.0
    act: str = "relu"
    norm: str | None = "batch"
    kernel_init: str = "he"
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        first = create_norm(self.norm, axis_name=self.axis_name, dtype=self.dtype)
        x = lookup_activation(self.act)(first(x, train=train))
        x = nn.Conv(
            self.width,
            (1, 1),
            use_bias=False,
            kernel_init=lookup_initializer(self.kernel_init),
            dtype=self.dtype,
            conv_general_dilated=conv_general_dilated,
            name="reduce",  # not "conv": fold_batchnorm folds a norm into the "conv" next to it
        )(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return avg_pool(x, window_shape=(2, 2), strides=(2, 2))


@final
class DenseNet(nn.Module):
    """DenseNet.

    A stage is the concatenation of all maps of its block, with the block's input first; the last
    stage includes the final norm and activation.

    Attributes:
        depths: number of dense layers of each block.
        growth: new maps per layer.
        width: channels of the stem.
        compression: fraction of the maps that a transition keeps.
        stem: "imagenet" is a 7 x 7 convolution and a pooling, both of stride 2 (stages of stride 4
            to 32); "cifar" is one 3 x 3 convolution (stages of stride 1 to 4).
        dropout: dropout rate after the convolutions of dense layers and transitions, except the 1 x
            1 of a bottleneck. torchvision applies it in the dense layers alone, the paper after
            every convolution but the first.
        remat: recompute the inside of a layer in the backward pass, so memory grows linearly with
            depth instead of quadratically.

    Args:
        image: images [B, H, W, C].
        train: use batch statistics and dropout.

    Returns:
        `stage1` ... `stageN`, `pooled` [B, D] and `logits` [B, K].

    Source: Huang et al. 2017, Densely Connected Convolutional Networks, tables 1 and 2; Pleiss et
    al. 2017, Memory-Efficient Implementation of DenseNets, which recomputes less.

    >>> model = DenseNet(num_classes=10, depths=(2, 2), growth=4, width=8, stem="cifar")
    >>> image = jnp.zeros((1, 32, 32, 3))
    >>> out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    >>> out["stage1"].shape, out["stage2"].shape
    ((1, 32, 32, 16), (1, 16, 16, 16))
    """

    num_classes: int = 1000
    depths: tuple[int, ...] = (6, 12, 24, 16)
    growth: int = 32
    width: int = 64
    bottleneck: int = 4
    compression: float = 0.5
    stem: str = "imagenet"
    dropout: float = 0.0
    act: str = "relu"
    norm: str | None = "batch"
    padding: str = "torch"
    kernel_init: str = "he"
    remat: bool = False
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        chex.assert_rank(image, 4)
        shared: dict[str, Any] = dict(
            dropout=self.dropout,
            act=self.act,
            norm=self.norm,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )

        def call(layer: nn.Module, maps: list[jax.Array]) -> jax.Array:
            return layer(maps, train=train)

        run = nn.remat(call) if self.remat else call
        x = self.apply_stem(image, train=train)
        outputs = {}
        for stage, depth in enumerate(self.depths, start=1):
            if stage > 1:
                width = int(self.compression * x.shape[-1])
                x = Transition(width, **shared, name=f"transition{stage - 1}")(x, train=train)
            maps = [x]
            for index in range(depth):
                name = f"stage{stage}_{index}"
                layer = DenseLayer(self.growth, self.bottleneck, **shared, name=name)
                maps.append(run(layer, maps))
            x = outputs[f"stage{stage}"] = jnp.concatenate(maps, -1)
        last = create_norm(self.norm, axis_name=self.axis_name, dtype=self.dtype)
        x = outputs[f"stage{len(self.depths)}"] = lookup_activation(self.act)(last(x, train=train))
        outputs["pooled"] = x.mean((1, 2))
        if self.num_classes:
            wide = jnp.promote_types(jnp.float32, self.dtype)
            head = nn.Dense(self.num_classes, dtype=wide, name="head")
            outputs["logits"] = head(outputs["pooled"])
        return outputs

    def apply_stem(self, image: jax.Array, *, train: bool) -> jax.Array:
        """Applies the stem."""
        deep = lookup({"imagenet": True, "cifar": False}, self.stem, kind="stem")
        x = ConvNorm(
            self.width,
            kernel=7 if deep else 3,
            stride=2 if deep else 1,
            padding=self.padding,
            act=lookup_activation(self.act) if deep else None,
            norm=self.norm if deep else None,
            use_bias=None if deep else False,
            kernel_init=lookup_initializer(self.kernel_init),
            dtype=self.dtype,
            axis_name=self.axis_name,
            name="stem",
        )(image, train=train)
        if not deep:  # otherwise the first dense layer begins with the norm
            return x
        padding: Any = ((1, 1), (1, 1)) if self.padding == "torch" else self.padding
        return max_pool(x, window_shape=(3, 3), strides=(2, 2), padding=padding)


CARD = dict(
    module=DenseNet,
    task="classification",
    input=(224, 224, 3),
    paper="Huang, Liu, van der Maaten, Weinberger 2017, Densely Connected Convolutional Networks",
    preprocessing=dict(**IMAGENET_NORM, crop=0.875),
)

CIFAR = dict(  # mean and standard deviation of CIFAR-10's training images
    input=(32, 32, 3),
    preprocessing=dict(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
)
PLAIN = dict(num_classes=10, width=16, bottleneck=0, compression=1.0, stem="cifar")
BC = dict(num_classes=10, stem="cifar")  # the width is twice the growth

VARIANTS = {  # fields of DenseNet; parameters
    "densenet121": dict(  # 7,978,856
        card=dict(reported="ImageNet error 25.0 %, one crop"),
    ),
    "densenet161": dict(  # 28,681,000
        depths=(6, 12, 36, 24),
        growth=48,
        width=96,
        card=dict(reported="ImageNet error 22.2 %, one crop"),
    ),
    "densenet169": dict(  # 14,149,480
        depths=(6, 12, 32, 32),
        card=dict(reported="ImageNet error 23.6 %, one crop"),
    ),
    "densenet201": dict(  # 20,013,928
        depths=(6, 12, 48, 32),
        card=dict(reported="ImageNet error 22.5 %, one crop"),
    ),
    "densenet264": dict(  # 33,337,704
        depths=(6, 12, 64, 48),
        card=dict(reported="ImageNet error 22.1 %, one crop"),
    ),
    "densenet40_k12": dict(  # 1,019,722
        **PLAIN,
        depths=(12, 12, 12),
        growth=12,
        card=dict(**CIFAR, reported="CIFAR-10 error 5.24 %, shifts and mirrors"),
    ),
    "densenet100_k12": dict(  # 6,979,642
        **PLAIN,
        depths=(32, 32, 32),
        growth=12,
        card=dict(**CIFAR, reported="CIFAR-10 error 4.10 %, shifts and mirrors"),
    ),
    "densenet100_k24": dict(  # 27,249,082
        **PLAIN,
        depths=(32, 32, 32),
        growth=24,
        card=dict(**CIFAR, reported="CIFAR-10 error 3.74 %, shifts and mirrors"),
    ),
    "densenet_bc100_k12": dict(  # 769,162
        **BC,
        depths=(16, 16, 16),
        growth=12,
        width=24,
        card=dict(**CIFAR, reported="CIFAR-10 error 4.51 %, shifts and mirrors"),
    ),
    "densenet_bc250_k24": dict(  # 15,324,406
        **BC,
        depths=(41, 41, 41),
        growth=24,
        width=48,
        card=dict(**CIFAR, reported="CIFAR-10 error 3.62 %, shifts and mirrors"),
    ),
    "densenet_bc190_k40": dict(  # 25,624,430
        **BC,
        depths=(31, 31, 31),
        growth=40,
        width=80,
        card=dict(**CIFAR, reported="CIFAR-10 error 3.46 %, shifts and mirrors"),
    ),
}
