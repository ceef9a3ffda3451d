"""ResNet for ImageNet and CIFAR, wide ResNet and ResNeXt."""

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
from zoo.layers.residual import StochasticDepth, apply_stage, drop_rates, pad_skip
from zoo.lookup import lookup
from zoo.ops.pooling import max_pool
from zoo.preprocess import IMAGENET_NORM


@final
class Basic(nn.Module):
    """Basic residual block: two 3x3 convolutions plus a skip connection.

    Where the shapes differ the skip is a 1x1 convolution (option B) or subsampled pixels with
    padded channels (option A).

    Attributes:
        pad: use option A, which has no parameters.
        dilation: dilation of the two 3x3 convolutions.
        zero_init: start the scale of the second norm at 0, so that the block starts as its skip.
        conv: constructor of ConvNorm with the shared fields.

    Args:
        x: feature map [B, H, W, C].
        rate: stochastic depth rate.
        train: use batch statistics.

    Returns:
        Feature map [B, H / stride, W / stride, width].

    Source: He et al. 2016, Deep Residual Learning, figure 5 left and section 3.3.

    >>> x = jnp.ones((1, 8, 8, 16))
    >>> y, variables = Basic(32, stride=2).init_with_output(jax.random.key(0), x, train=False)
    >>> y.shape, sorted(variables["params"])
    ((1, 4, 4, 32), ['first', 'second', 'skip'])
    """

    width: int
    stride: int = 1
    pad: bool = False
    dilation: tuple[int, int] = (1, 1)
    zero_init: bool = False
    conv: Callable[..., nn.Module] = ConvNorm
    act: Callable[[jax.Array], jax.Array] = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array, rate: float | jax.Array = 0.0, *, train: bool) -> jax.Array:
        scale_init = nn.initializers.zeros if self.zero_init else nn.initializers.ones
        early, late = ({"dilation": n} for n in self.dilation)
        last = dict(act=None, scale_init=scale_init, **late)
        y = self.conv(self.width, 3, self.stride, **early, name="first")(x, train=train)
        y = self.conv(self.width, 3, **last, name="second")(y, train=train)
        if x.shape != y.shape and self.pad:
            x = pad_skip(x, y)
        elif x.shape != y.shape:
            x = self.conv(self.width, 1, self.stride, act=None, name="skip")(x, train=train)
        return self.act(x + StochasticDepth(name="drop")(y, rate, train=train))


@final
class Bottleneck(nn.Module):
    """Bottleneck residual block: 1x1, 3x3 and 1x1 convolutions plus a skip connection.

    Attributes:
        inner: channels of the 3x3 convolution.
        groups: groups of the 3x3 convolution.
        stride_first: put the stride on the first 1x1, as published; otherwise it is on the 3x3, as
            in torchvision ("v1.5").
        dilation: the first entry is the dilation of the 3x3.

    Args:
        x: feature map [B, H, W, C].
        rate: stochastic depth rate.
        train: use batch statistics.

    Returns:
        Feature map [B, H / stride, W / stride, width].

    Source: He et al. 2016, Deep Residual Learning, figure 5 right; the groups are Xie et al. 2017,
    Aggregated Residual Transformations, figure 3c.

    >>> x = jnp.ones((1, 8, 8, 64))
    >>> y, variables = Bottleneck(256, 64).init_with_output(jax.random.key(0), x, train=False)
    >>> y.shape, sorted(variables["params"])
    ((1, 8, 8, 256), ['expand', 'reduce', 'skip', 'spatial'])
    """

    width: int
    inner: int
    stride: int = 1
    groups: int = 1
    stride_first: bool = False
    dilation: tuple[int, int] = (1, 1)
    zero_init: bool = False
    conv: Callable[..., nn.Module] = ConvNorm
    act: Callable[[jax.Array], jax.Array] = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array, rate: float | jax.Array = 0.0, *, train: bool) -> jax.Array:
        scale_init = nn.initializers.zeros if self.zero_init else nn.initializers.ones
        early, late = (self.stride, 1) if self.stride_first else (1, self.stride)
        y = self.conv(self.inner, 1, early, name="reduce")(x, train=train)
        spatial = self.conv(
            self.inner, 3, late, self.groups, dilation=self.dilation[0], name="spatial"
        )
        y = spatial(y, train=train)
        y = self.conv(self.width, 1, act=None, scale_init=scale_init, name="expand")(y, train=train)
        if x.shape != y.shape:
            x = self.conv(self.width, 1, self.stride, act=None, name="skip")(x, train=train)
        return self.act(x + StochasticDepth(name="drop")(y, rate, train=train))


@final
class ResNet(nn.Module):
    """ResNet, for images of any size.

    Attributes:
        depths: number of blocks of each stage. Stages have `width`, 2 `width`, 4 `width`, ...
            channels, four times as many with bottlenecks.
        block: "basic" or "bottleneck".
        groups: groups of the 3x3 convolutions.
        width_per_group: inner channels per group where the stage has 64.
        stem: "imagenet" is a 7x7 convolution of stride 2 and a max-pooling (stages of stride 4, 8,
            ...); "cifar" is one 3x3 convolution (stages of stride 1, 2, ...).
        shortcut: "A" or "B", see `Basic`.
        output_stride: from this stride on, stages double the dilation instead of halving the map;
            the first convolution of a stage keeps the previous dilation.
        stochastic_depth: rate of the last block; it grows linearly with depth.
        dropout: dropout rate before the head.
        remat: see `zoo.layers.residual.apply_stage`.
        scan: see `zoo.layers.residual.apply_stage`.

    Args:
        image: images [B, H, W, C].
        train: use batch statistics, dropout and stochastic depth.

    Returns:
        `stage1` ... `stageN`, `pooled` [B, D] and `logits` [B, K].

    Raises:
        ValueError: if `output_stride` is not possible.

    Source: He et al. 2016, Deep Residual Learning for Image Recognition, table 1 and section 4.2;
    torchvision's resnet, which computes the same; Chen et al. 2017, Rethinking Atrous Convolution,
    section 3.1, for the output stride, as in torchvision and, of Basic, timm.

    >>> model = ResNet((1, 1), block="basic", num_classes=5)
    >>> image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    >>> out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    >>> out["stage2"].shape, out["logits"].shape
    ((1, 4, 4, 128), (1, 5))
    """

    depths: tuple[int, ...]
    block: str = "bottleneck"
    width: int = 64
    groups: int = 1
    width_per_group: int = 64
    stem: str = "imagenet"
    shortcut: str = "B"
    stride_first: bool = False
    output_stride: int | None = None
    num_classes: int = 1000
    zero_init: bool = False
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    padding: str | int = "torch"
    act: str = "relu"
    norm: str | None = "batch"
    kernel_init: str = "he_fan_out"
    remat: bool = False
    scan: bool = False
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
        is_imagenet = lookup({"imagenet": True, "cifar": False}, self.stem, kind="stem")
        stem = conv(self.width, 7 if is_imagenet else 3, 2 if is_imagenet else 1, name="stem")
        x = stem(image, train=train)
        if is_imagenet:
            padding: Any = [(1, 1), (1, 1)] if self.padding == "torch" else self.padding
            x = max_pool(x, (3, 3), (2, 2), padding)
        outputs = {}
        steps = self.steps(4 if is_imagenet else 1)
        for k, rates in enumerate(drop_rates(self.stochastic_depth, self.depths)):
            block = self.block_of(self.width * 2**k, conv)
            stride, previous_dilation, dilation = steps[k]
            x = apply_stage(
                functools.partial(block, stride=stride, dilation=(previous_dilation, dilation)),
                functools.partial(block, dilation=(dilation, dilation)),
                x,
                name=f"stage{k + 1}",
                rates=rates,
                train=train,
                remat=self.remat,
                scan=self.scan,
            )
            outputs[f"stage{k + 1}"] = x
        outputs["pooled"] = x = x.mean((1, 2))
        if self.num_classes:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            wide = jnp.promote_types(jnp.float32, self.dtype)
            head = nn.Dense(
                self.num_classes, kernel_init=lookup_initializer("torch"), dtype=wide, name="head"
            )
            outputs["logits"] = head(x)
        return outputs

    def steps(self, stride: int) -> list[tuple[int, int, int]]:
        """Returns (stride, previous dilation, dilation) of each stage."""
        steps, dilation = [], 1
        for k in range(len(self.depths)):
            step = 2 if k else 1
            if self.output_stride is None or step * stride <= self.output_stride:
                steps.append((step, dilation, dilation))
                stride *= step
            else:
                steps.append((1, dilation, step * dilation))
                dilation *= step
        if self.output_stride not in (None, stride):
            raise ValueError(
                f"expected output_stride None or a power of 2 from the stem's stride to the last "
                f"stage's, got {self.output_stride}"
            )
        return steps

    def block_of(self, width: int, conv: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        """Returns the constructor of a stage's blocks, without stride and name."""
        pad = lookup({"A": True, "B": False}, self.shortcut, kind="shortcut")
        fields = dict(zero_init=self.zero_init, conv=conv, act=lookup_activation(self.act))
        basic = functools.partial(Basic, width, pad=pad, **fields)
        bottleneck = functools.partial(
            Bottleneck,
            4 * width,
            width * self.width_per_group // 64 * self.groups,
            groups=self.groups,
            stride_first=self.stride_first,
            **fields,
        )
        return lookup({"basic": basic, "bottleneck": bottleneck}, self.block, kind="block")


CARD = dict(
    module=ResNet,
    task="classification",
    input=(224, 224, 3),
    paper="He, Zhang, Ren, Sun 2016, Deep Residual Learning for Image Recognition",
    preprocessing=dict(**IMAGENET_NORM, crop=0.875),
)

WIDE_FIELDS = "Zagoruyko, Komodakis 2016, Wide Residual Networks"
RESNEXT_PAPER = "Xie et al. 2017, Aggregated Residual Transformations for Deep Neural Networks"

CIFAR_CARD = dict(input=(32, 32, 3), preprocessing=IMAGENET_NORM)
CIFAR_FIELDS = dict(block="basic", width=16, stem="cifar", shortcut="A", num_classes=10)

VARIANTS = {  # fields of ResNet; parameters
    "resnet18": dict(  # 11,689,512
        depths=(2, 2, 2, 2),
        block="basic",
        card=dict(reported="ImageNet top-1 69.758 % (torchvision)"),
    ),
    "resnet34": dict(  # 21,797,672
        depths=(3, 4, 6, 3),
        block="basic",
        card=dict(reported="ImageNet top-1 73.314 % (torchvision)"),
    ),
    "resnet50": dict(  # 25,557,032
        depths=(3, 4, 6, 3),
        card=dict(reported="ImageNet top-1 76.13 %, retrained 80.858 % (torchvision)"),
    ),
    "resnet101": dict(  # 44,549,160
        depths=(3, 4, 23, 3),
        card=dict(reported="ImageNet top-1 77.374 %, retrained 81.886 % (torchvision)"),
    ),
    "resnet152": dict(  # 60,192,808
        depths=(3, 8, 36, 3),
        card=dict(reported="ImageNet top-1 78.312 %, retrained 82.284 % (torchvision)"),
    ),
    "wide_resnet50_2": dict(  # 68,883,240
        depths=(3, 4, 6, 3),
        width_per_group=128,
        card=dict(paper=WIDE_FIELDS, reported="ImageNet top-1 78.468 % (torchvision)"),
    ),
    "wide_resnet101_2": dict(  # 126,886,696
        depths=(3, 4, 23, 3),
        width_per_group=128,
        card=dict(paper=WIDE_FIELDS, reported="ImageNet top-1 78.848 % (torchvision)"),
    ),
    "resnext50_32x4d": dict(  # 25,028,904
        depths=(3, 4, 6, 3),
        groups=32,
        width_per_group=4,
        card=dict(paper=RESNEXT_PAPER, reported="ImageNet top-1 77.618 % (torchvision)"),
    ),
    "resnext101_32x8d": dict(  # 88,791,336
        depths=(3, 4, 23, 3),
        groups=32,
        width_per_group=8,
        card=dict(paper=RESNEXT_PAPER, reported="ImageNet top-1 79.312 % (torchvision)"),
    ),
    "resnet20": dict(  # 269,722
        depths=(3, 3, 3),
        **CIFAR_FIELDS,
        card=dict(**CIFAR_CARD, reported="CIFAR-10 test error 8.75 %"),
    ),
    "resnet32": dict(  # 464,154
        depths=(5, 5, 5),
        **CIFAR_FIELDS,
        card=dict(**CIFAR_CARD, reported="CIFAR-10 test error 7.51 %"),
    ),
    "resnet44": dict(  # 658,586
        depths=(7, 7, 7),
        **CIFAR_FIELDS,
        card=dict(**CIFAR_CARD, reported="CIFAR-10 test error 7.17 %"),
    ),
    "resnet56": dict(  # 853,018
        depths=(9, 9, 9),
        **CIFAR_FIELDS,
        card=dict(**CIFAR_CARD, reported="CIFAR-10 test error 6.97 %"),
    ),
    "resnet110": dict(  # 1,727,962
        depths=(18, 18, 18),
        **CIFAR_FIELDS,
        card=dict(**CIFAR_CARD, reported="CIFAR-10 test error 6.43 %"),
    ),
    "resnet1202": dict(  # 19,421,274
        depths=(200, 200, 200),
        **CIFAR_FIELDS,
        card=dict(**CIFAR_CARD, reported="CIFAR-10 test error 7.93 %"),
    ),
}
