"""SlowFast: two pathways over one clip, at a low and at a high frame rate; and the Slow one alone."""

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
    """Frames of the clip `[T] -> [T / alpha]` that the Slow pathway sees: even, the ends among them.

    Of 32 by 4 they are 4 or 5 apart, not every fourth. ValueError where alpha does not divide T.

    Source: PySlowFast's pack_pathway_output, a linspace cut down to whole numbers.

    >>> slow_frames(32, 4)
    [0, 4, 8, 13, 17, 22, 26, 31]
    """
    if frames < alpha or frames % alpha:
        raise ValueError(f"expected clips of a multiple of alpha={alpha} frames, got {frames}")
    return np.linspace(0, frames - 1, frames // alpha).astype(int).tolist()


@final
class Bottleneck(nn.Module):
    """t x 1x1, 1x3x3, 1x1x1 and a skip: `[B, T, H, W, C] -> [B, T, H / stride, W / stride, 4 inner]`.

    `frames` is t, of the first convolution. `zero_init` lets the block begin as its skip.

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
        del rate  # of stochastic depth, which `stage` gives every block
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
    """`[B, T, H, W, C] -> [B, T, h, w, D]`: a stem, and the max-pooling where the model has one.

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
    """A model's fields to what makes its ConvNorms, `[B, T, H, W, C] -> [B, t, h, w, D]` each.

    Source: the fields of zoo.layers.conv_norm.ConvNorm.

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
    """`[B, D] -> {pooled [B, D], logits [B, K]}`, inside a compact method; no logits where K is 0.

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
    """`[B, T, H, W, C] -> {stage1 ... stageN, pooled [B, D], logits [B, K]}`, clips of any size.

    A ResNet of bottlenecks whose stem is 1x7x7 and whose blocks begin with convolutions over as many
    `frames` as their stage is told here; frames are never skipped. The layers are called as ResNet's,
    so that zoo.weights.inflate makes its weights out of that one's. The other fields are SlowFast's.

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
    """`[B, T, H, W, C] -> {slow_stage1, fast_stage1, ..., pooled [B, D], logits [B, K]}`.

    The Fast pathway sees all T frames, a multiple of `alpha`, the Slow one T / alpha of them (see
    slow_frames), on `width` channels where the Fast one has width / `beta`. After the stem and every
    stage but the last a convolution over `lateral` frames, of stride alpha, takes the Fast maps to
    twice their channels, which the Slow ones get besides; a stage's output is without them.
    `slow_frames` and `fast_frames` are the frames that the blocks of each stage begin with.
    `stem_stride` and `stem_pool` are for small frames: 2 and True let the first stage have a quarter
    of the sides. `zero_init` lets blocks begin as their skips; `remat` keeps only the blocks' inputs
    for the gradient. Dropout is before the head, which `num_classes=0` leaves out. ValueError where
    alpha does not divide T, or beta the width.

    Source: Feichtenhofer et al. 2019, SlowFast Networks for Video Recognition, section 3 and table 1;
    PySlowFast, and pytorchvideo, which computes the same.

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
            raise ValueError(f"beta={self.beta} does not divide width={self.width}")
        conv, outputs = conv_factory(self), {}
        steps = (1, self.stem_stride, self.stem_stride)
        widths = {"slow": self.width, "fast": self.width // self.beta}
        seen = {
            "slow": video[:, np.array(slow_frames(video.shape[1], self.alpha))],
            "fast": video,
        }
        for path, frames in (("slow", 1), ("fast", 5)):
            stem = conv(widths[path], (frames, 7, 7), steps, name=f"{path}_stem")
            seen[path] = apply_stem(self, seen[path], functools.partial(stem, train=train))
        for k, depth in enumerate(self.depths):
            fused = conv(
                2 * seen["fast"].shape[-1],
                (self.lateral, 1, 1),
                (self.alpha, 1, 1),
                name=f"lateral_{k}",
            )(seen["fast"], train=train)
            seen["slow"] = jnp.concatenate([seen["slow"], fused], -1)
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
                seen[path] = outputs[f"{path}_stage{k + 1}"] = apply_stage(
                    functools.partial(block, stride=2 if k else 1),
                    block,
                    seen[path],
                    name=f"{path}_stage{k + 1}",
                    rates=[0.0] * depth,
                    train=train,
                    remat=self.remat,
                )
        pooled = jnp.concatenate([seen[path].mean((1, 2, 3)) for path in ("slow", "fast")], -1)
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
        lateral=5,  # pytorchvideo's; the authors' 7
        card=dict(reported="Kinetics-400 top-1 77.9 % (pytorchvideo)"),
    ),
}
