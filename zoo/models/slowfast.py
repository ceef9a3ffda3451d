"""SlowFast: two pathways over one clip at a low and a high frame rate; and Slow alone."""

import functools
from collections.abc import Callable
from typing import final

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from zoo.layers.activation import lookup_activation
from zoo.layers.conv_norm import ConvNorm
from zoo.layers.initializer import lookup_initializer
from zoo.layers.residual import apply_stage
from zoo.ops.pooling import max_pool


def slow_frames(frames: int, alpha: int) -> list[int]:
    """Returns the evenly spaced frames of the Slow pathway, including both ends.

    With 32 frames and alpha 4 they are 4 or 5 apart, not every fourth.

    Args:
        frames: number of frames T of the clip.
        alpha: ratio of the frame rates.

    Returns:
        T / alpha frame indices.

    Raises:
        ValueError: if alpha does not divide T.

    Source: PySlowFast's pack_pathway_output, a linspace truncated to whole numbers.

    >>> slow_frames(32, 4)
    [0, 4, 8, 13, 17, 22, 26, 31]
    """
    if frames < alpha or frames % alpha:
        raise ValueError(f"expected clips of a multiple of alpha={alpha} frames, got {frames}")
    return np.linspace(0, frames - 1, frames // alpha).astype(int).tolist()


@final
class Bottleneck(nn.Module):
    """Bottleneck block for clips: t x 1x1, 1x3x3 and 1x1x1 convolutions plus a skip connection.

    Attributes:
        frames: extent t of the first convolution along time.
        zero_init: start the block as its skip.

    Args:
        x: feature map [B, T, H, W, C].
        rate: not used; `apply_stage` passes it.
        train: use batch statistics.

    Returns:
        Feature map [B, T, H / stride, W / stride, 4 * inner].

    Source: Feichtenhofer et al. 2019, SlowFast Networks for Video Recognition, table 1.

    >>> x = jnp.ones((1, 4, 8, 8, 16))
    >>> model = Bottleneck(8, 2, frames=3)
    >>> start = functools.partial(model.init_with_output, train=False)
    >>> y, variables = jax.eval_shape(start, jax.random.key(0), x)
    >>> y.shape, sorted(variables["params"])
    ((1, 4, 4, 4, 32), ['expand', 'reduce', 'skip', 'spatial'])
    """

    inner: int
    stride: int = 1
    frames: int = 1
    zero_init: bool = False
    conv: Callable[..., nn.Module] = ConvNorm
    act: Callable[[jax.Array], jax.Array] = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array, rate: float | jax.Array = 0.0, *, train: bool) -> jax.Array:
        del rate  # apply_stage passes the stochastic depth rate to every block
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        width, steps = 4 * self.inner, (1, self.stride, self.stride)
        y = self.conv(self.inner, (self.frames, 1, 1), name="reduce")(x, train=train)
        y = self.conv(self.inner, (1, 3, 3), steps, name="spatial")(y, train=train)
        last = dict(act=None, scale_init=zeros if self.zero_init else ones)
        y = self.conv(width, 1, **last, name="expand")(y, train=train)
        if x.shape != y.shape:
            x = self.conv(width, 1, steps, act=None, name="skip")(x, train=train)
        return self.act(x + y)


def apply_stem(
    model: "Slow | SlowFast", x: jax.Array, conv: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """Applies a stem and, where the model has one, the max-pooling.

    Args:
        model: a Slow or SlowFast model.
        x: clip [B, T, H, W, C].
        conv: the convolution of the stem.

    Returns:
        Feature map [B, T, h, w, D].

    Source: Feichtenhofer et al. 2019, table 1, conv1 and pool1.

    >>> model = Slow((1,), frames=(1,), stem_stride=1)
    >>> apply_stem(model, jnp.ones((1, 2, 8, 8, 3)), lambda x: x).shape
    (1, 2, 4, 4, 3)
    """
    x = conv(x)
    if not model.stem_pool:
        return x
    return max_pool(x, (1, 3, 3), (1, 2, 2), ((0, 0), (1, 1), (1, 1)))


def conv_factory(model: "Slow | SlowFast") -> Callable[..., nn.Module]:
    """Returns a constructor of ConvNorm with the fields of a model.

    Args:
        model: a Slow or SlowFast model.

    Returns:
        The constructor.

    >>> conv_factory(Slow((1,), frames=(1,), norm="group"))(8).norm
    'group'
    """
    return functools.partial(
        ConvNorm,
        act=lookup_activation(model.act),
        norm=model.norm,
        kernel_init=lookup_initializer(model.kernel_init),
        dtype=model.dtype,
        axis_name=model.axis_name,
    )


def classify(model: "Slow | SlowFast", x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
    """Applies dropout and the head, inside a compact method.

    Args:
        model: a Slow or SlowFast model.
        x: pooled features [B, D].
        train: apply dropout.

    Returns:
        `pooled` [B, D] and, unless there are no classes, `logits` [B, K].

    Source: Feichtenhofer et al. 2019, section 3.4.

    >>> list(classify(Slow((1,), frames=(1,), num_classes=0), jnp.ones((1, 2)), train=False))
    ['pooled']
    """
    outputs = {"pooled": x}
    if model.num_classes:
        x = nn.Dropout(model.dropout, deterministic=not train)(x)
        wide = jnp.promote_types(jnp.float32, model.dtype)
        small = lookup_initializer("small_normal")
        head = nn.Dense(model.num_classes, kernel_init=small, dtype=wide, name="head")
        outputs["logits"] = head(x)
    return outputs


@final
class Slow(nn.Module):
    """The Slow pathway alone: a ResNet for clips that keeps all frames.

    The layers have the names of ResNet's, so `zoo.weights.inflate` converts its weights. The other
    fields are those of `SlowFast`.

    Attributes:
        frames: extent along time of the first convolution of the blocks of each stage.

    Args:
        video: clips [B, T, H, W, C].
        train: use batch statistics and dropout.

    Returns:
        `stage1` ... `stageN`, `pooled` [B, D] and `logits` [B, K].

    Source: Feichtenhofer et al. 2019, SlowFast Networks for Video Recognition, section 4.1;
    pytorchvideo's slow_r50, which computes the same.

    >>> clip = jax.ShapeDtypeStruct((1, 4, 64, 64, 3), jnp.float32)
    >>> model = Slow((1, 1), frames=(1, 3), num_classes=5)
    >>> out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), clip)
    >>> out["stage2"].shape, out["logits"].shape
    ((1, 4, 8, 8, 512), (1, 5))
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    frames: tuple[int, ...] = (1, 1, 3, 3)
    stem_stride: int = 2
    stem_pool: bool = True
    num_classes: int = 400
    zero_init: bool = True
    dropout: float = 0.5
    act: str = "relu"
    norm: str | None = "batch"
    kernel_init: str = "he_fan_out"
    remat: bool = False
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, video: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        chex.assert_rank(video, 5)
        conv, outputs = conv_factory(self), {}
        steps = (1, self.stem_stride, self.stem_stride)
        stem = functools.partial(conv(self.width, (1, 7, 7), steps, name="stem"), train=train)
        x = apply_stem(self, video, stem)
        for k, (depth, frames) in enumerate(zip(self.depths, self.frames, strict=True)):
            block = functools.partial(
                Bottleneck,
                self.width * 2**k,
                frames=frames,
                zero_init=self.zero_init,
                conv=conv,
                act=lookup_activation(self.act),
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
        return outputs | classify(self, x.mean((1, 2, 3)), train=train)


@final
class SlowFast(nn.Module):
    """SlowFast video classifier.

    The Fast pathway uses all T frames, the Slow pathway T / alpha of them (see `slow_frames`).
    After the stem and every stage but the last, a lateral convolution of stride alpha along time
    doubles the channels of the Fast maps, and the result is concatenated to the Slow maps; a
    stage's output is without them.

    Attributes:
        width: channels of the Slow pathway's first stage.
        alpha: ratio of the frame rates; it divides T.
        beta: inverse ratio of the channels; it divides `width`.
        lateral: extent of the lateral convolutions along time.
        slow_frames: extent along time of the first convolution of the Slow blocks of each stage.
        fast_frames: the same for the Fast blocks.
        stem_stride: spatial stride of the stem; 1 for small frames.
        stem_pool: pool after the stem; False for small frames.
        num_classes: number of classes; 0 removes the head.
        zero_init: start the blocks as their skips.
        dropout: dropout rate before the head.
        remat: keep only the inputs of the blocks for the gradient.

    Args:
        video: clips [B, T, H, W, C].
        train: use batch statistics and dropout.

    Returns:
        `slow_stage1`, `fast_stage1`, ..., `pooled` [B, D] and `logits` [B, K].

    Raises:
        ValueError: if alpha does not divide T, or beta does not divide the width.

    Source: Feichtenhofer et al. 2019, SlowFast Networks for Video Recognition, section 3 and table
    1; PySlowFast, and pytorchvideo, which computes the same.

    >>> clip = jax.ShapeDtypeStruct((1, 8, 64, 64, 3), jnp.float32)
    >>> model = SlowFast((1, 1), width=16, slow_frames=(1, 3), fast_frames=(3, 3), num_classes=5)
    >>> out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), clip)
    >>> out["slow_stage2"].shape, out["fast_stage2"].shape, out["pooled"].shape
    ((1, 2, 8, 8, 128), (1, 8, 8, 8, 16), (1, 144))
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    alpha: int = 4
    beta: int = 8
    lateral: int = 7
    slow_frames: tuple[int, ...] = (1, 1, 3, 3)
    fast_frames: tuple[int, ...] = (3, 3, 3, 3)
    stem_stride: int = 2
    stem_pool: bool = True
    num_classes: int = 400
    zero_init: bool = True
    dropout: float = 0.5
    act: str = "relu"
    norm: str | None = "batch"
    kernel_init: str = "he_fan_out"
    remat: bool = False
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, video: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        chex.assert_rank(video, 5)
        if self.width % self.beta:
            raise ValueError(f"expected a width that beta={self.beta} divides, got {self.width}")
        conv, outputs = conv_factory(self), {}
        steps = (1, self.stem_stride, self.stem_stride)
        widths = {"slow": self.width, "fast": self.width // self.beta}
        slow_input = {
            "slow": video[:, np.array(slow_frames(video.shape[1], self.alpha))],
            "fast": video,
        }
        for path, frames in (("slow", 1), ("fast", 5)):
            stem = conv(widths[path], (frames, 7, 7), steps, name=f"{path}_stem")
            slow_input[path] = apply_stem(
                self, slow_input[path], functools.partial(stem, train=train)
            )
        for k, depth in enumerate(self.depths):
            fused = conv(
                2 * slow_input["fast"].shape[-1],
                (self.lateral, 1, 1),
                (self.alpha, 1, 1),
                name=f"lateral_{k}",
            )(slow_input["fast"], train=train)
            slow_input["slow"] = jnp.concatenate([slow_input["slow"], fused], -1)
            kernels = {"slow": self.slow_frames[k], "fast": self.fast_frames[k]}
            for path in ("slow", "fast"):
                block = functools.partial(
                    Bottleneck,
                    widths[path] * 2**k,
                    frames=kernels[path],
                    zero_init=self.zero_init,
                    conv=conv,
                    act=lookup_activation(self.act),
                )
                slow_input[path] = outputs[f"{path}_stage{k + 1}"] = apply_stage(
                    functools.partial(block, stride=2 if k else 1),
                    block,
                    slow_input[path],
                    name=f"{path}_stage{k + 1}",
                    rates=[0.0] * depth,
                    train=train,
                    remat=self.remat,
                )
        pooled = jnp.concatenate(
            [slow_input[path].mean((1, 2, 3)) for path in ("slow", "fast")], -1
        )
        return outputs | classify(self, pooled, train=train)


KINETICS_NORM = dict(mean=(0.45,) * 3, std=(0.225,) * 3, crop=224 / 256)

CARD = dict(
    module=SlowFast,
    task="video",
    input=(32, 224, 224, 3),
    paper="Feichtenhofer, Fan, Malik, He 2019, SlowFast Networks for Video Recognition",
    preprocessing=dict(**KINETICS_NORM, stride=2),  # 64 frames, at 30 a second
    pathways=("slow", "fast", "lateral"),
)

VARIANTS = {  # fields of SlowFast, and of Slow; parameters
    "slow_r50": dict(  # 32,454,096
        card=dict(
            module=Slow,
            input=(8, 224, 224, 3),
            preprocessing=dict(**KINETICS_NORM, stride=8),
            pathways=(),
            reported="Kinetics-400 top-1 74.58 % (pytorchvideo)",
        )
    ),
    "slowfast_r50": dict(  # 34,566,488; 8 x 8
        card=dict(reported="Kinetics-400 top-1 76.94 % (pytorchvideo)")
    ),
    "slowfast_4x16_r50": dict(  # 34,480,216
        alpha=8,
        lateral=5,
        card=dict(reported="Kinetics-400 top-1 75.34 % (pytorchvideo)"),
    ),
    "slowfast_r101": dict(  # 62,826,968; 8 x 8
        depths=(3, 4, 23, 3),
        lateral=5,  # as in pytorchvideo; the authors use 7
        card=dict(reported="Kinetics-400 top-1 77.9 % (pytorchvideo)"),
    ),
}
