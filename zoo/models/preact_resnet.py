"""Pre-activation ResNet for CIFAR, with up to 1001 layers."""

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
from zoo.layers.norm import create_norm
from zoo.layers.residual import StochasticDepth, apply_stage, drop_rates, pad_skip
from zoo.lookup import lookup
from zoo.preprocess import IMAGENET_NORM


@final
class NormAct(nn.Module):
    """Norm and activation that precede a convolution.

    Args:
        x: feature map [B, H, W, C].
        train: use batch statistics.

    Returns:
        Feature map [B, H, W, C].

    Source: He et al. 2016, Identity Mappings in Deep Residual Networks, section 4.1.

    >>> NormAct().init_with_output(jax.random.key(0), -jnp.ones((1, 1, 1, 1)))[0].item()
    0.0
    """

    norm: str | None = "batch"
    act: Callable[[jax.Array], jax.Array] = nn.relu
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        return self.act(
            create_norm(self.norm, axis_name=self.axis_name, dtype=self.dtype)(x, train=train)
        )


@final
class PreactBlock(nn.Module):
    """Pre-activation residual block: 3x3, 3x3 or 1x1, 3x3, 1x1, plus a skip connection.

    Where the shapes differ the skip is a 1x1 convolution (option B) or subsampled pixels with
    padded channels (option A).

    Attributes:
        inner: channels of the bottleneck, whose stride is on the first 1x1; None for two 3x3.
        shared: start the skip after the first norm and activation instead of before.
        pad: use option A.
        conv: constructor of a convolution with the next norm and activation.
        before: constructor of the first norm and activation.

    Args:
        x: feature map [B, H, W, C].
        rate: stochastic depth rate.
        train: use batch statistics.

    Returns:
        Feature map [B, H / stride, W / stride, width].

    Source: He et al. 2016, Identity Mappings in Deep Residual Networks, figure 1b and appendix; the
    authors' resnet-pre-act.lua.

    >>> block, x = PreactBlock(64, inner=16, shared=True), jnp.ones((1, 8, 8, 16))
    >>> y, variables = block.init_with_output(jax.random.key(0), x, train=False)
    >>> y.shape, sorted(variables["params"])
    ((1, 8, 8, 64), ['before', 'expand', 'reduce', 'skip', 'spatial'])
    """

    width: int
    stride: int = 1
    inner: int | None = None
    shared: bool = False
    pad: bool = False
    conv: Callable[..., nn.Module] = ConvNorm
    before: Callable[..., nn.Module] = NormAct

    @nn.compact
    def __call__(self, x: jax.Array, rate: float | jax.Array = 0.0, *, train: bool) -> jax.Array:
        bare = functools.partial(self.conv, self.width, norm=None, use_bias=False, act=None)
        y = self.before(name="before")(x, train=train)
        x = y if self.shared else x
        if self.inner is None:
            y = self.conv(self.width, 3, self.stride, name="first")(y, train=train)
            y = bare(3, name="second")(y)
        else:
            y = self.conv(self.inner, 1, self.stride, name="reduce")(y, train=train)
            y = self.conv(self.inner, 3, name="spatial")(y, train=train)
            y = bare(1, name="expand")(y)
        if x.shape != y.shape:
            x = pad_skip(x, y) if self.pad else bare(1, self.stride, name="skip")(x)
        return x + StochasticDepth(name="drop")(y, rate, train=train)


@final
class PreactResNet(nn.Module):
    """Pre-activation ResNet, for images of any size.

    The stages have stride 1, 2 and 4 and `width`, 2 `width` and 4 `width` channels, four times as
    many with bottlenecks. They are sums; one more norm and activation precedes `pooled`. The first
    block of each stage shares its first norm and activation with its skip. The other fields are
    those of `ResNet`.

    Args:
        image: images [B, H, W, C].
        train: use batch statistics, dropout and stochastic depth.

    Returns:
        `stage1` to `stage3`, `pooled` [B, D] and `logits` [B, K].

    Source: He et al. 2016, Identity Mappings in Deep Residual Networks; the authors'
    resnet-pre-act.lua, with the stride on the first 1x1 and skips without norm.

    >>> model = PreactResNet((1, 1, 1), block="bottleneck")
    >>> image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    >>> out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    >>> out["stage3"].shape, out["logits"].shape
    ((1, 8, 8, 256), (1, 10))
    """

    depths: tuple[int, ...]
    block: str = "basic"
    width: int = 16
    shortcut: str = "B"
    num_classes: int = 10
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
        before = functools.partial(
            NormAct,
            norm=self.norm,
            act=lookup_activation(self.act),
            dtype=self.dtype,
            axis_name=self.axis_name,
        )
        conv = functools.partial(
            ConvNorm,
            padding=self.padding,
            kernel_init=lookup_initializer(self.kernel_init),
            **before.keywords,
        )
        bottleneck = lookup({"basic": False, "bottleneck": True}, self.block, kind="block")
        x = conv(self.width, 3, norm=None, use_bias=False, act=None, name="stem")(image)
        outputs = {}
        for k, rates in enumerate(drop_rates(self.stochastic_depth, self.depths)):
            width = self.width * 2**k
            block = functools.partial(
                PreactBlock,
                4 * width if bottleneck else width,
                inner=width if bottleneck else None,
                pad=lookup({"A": True, "B": False}, self.shortcut, kind="shortcut"),
                conv=conv,
                before=before,
            )
            x = apply_stage(
                functools.partial(block, stride=2 if k else 1, shared=True),
                block,
                x,
                name=f"stage{k + 1}",
                rates=rates,
                train=train,
                remat=self.remat,
                scan=self.scan,
            )
            outputs[f"stage{k + 1}"] = x
        outputs["pooled"] = x = before(name="last")(x, train=train).mean((1, 2))
        if self.num_classes:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            wide = jnp.promote_types(jnp.float32, self.dtype)
            head = nn.Dense(
                self.num_classes, kernel_init=lookup_initializer("torch"), dtype=wide, name="head"
            )
            outputs["logits"] = head(x)
        return outputs


CARD = dict(
    module=PreactResNet,
    task="classification",
    input=(32, 32, 3),
    paper="He, Zhang, Ren, Sun 2016, Identity Mappings in Deep Residual Networks",
    preprocessing=IMAGENET_NORM,
)

VARIANTS = {  # fields of PreactResNet; parameters
    "preact_resnet110": dict(  # 1,727,962
        depths=(18, 18, 18), shortcut="A", card=dict(reported="CIFAR-10 test error 6.37 %")
    ),
    "preact_resnet164": dict(  # 1,703,258
        depths=(18, 18, 18), block="bottleneck", card=dict(reported="CIFAR-10 test error 5.46 %")
    ),
    "preact_resnet1001": dict(  # 10,327,706
        depths=(111, 111, 111),
        block="bottleneck",
        card=dict(reported="CIFAR-10 test error 4.92 %, in batches of 64 4.62 %"),
    ),
}
