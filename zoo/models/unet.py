"""U-Net: of 2015 with valid convolutions, with padding and norms, or over another family's stages."""

import math
from collections.abc import Sequence
from typing import final

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from zoo.layers.activation import lookup_activation
from zoo.layers.backbone import configure_backbone
from zoo.layers.conv_norm import ConvNorm
from zoo.layers.conv_transpose import ConvTranspose
from zoo.layers.initializer import lookup_initializer
from zoo.lookup import lookup
from zoo.ops.convolution import conv_general_dilated
from zoo.ops.pooling import max_pool
from zoo.ops.resize import resize

# He's N counts the nodes that come in: of the 2 x 2 taps of stride 2 one meets each output, where
# the initializer counts four.
UP_INIT = nn.initializers.variance_scaling(2.0 * 4, "fan_in", "normal")


def valid_margin(*, depth: int) -> int:
    """`[B, H, W, C] -> [B, H - 2 m, W - 2 m, K]`: the m pixels that valid convolutions cost a side.

    Source: Ronneberger et al. 2015, U-Net, figure 1: 572 to 388 at depth 4.

    >>> valid_margin(depth=4)
    92
    """
    return 2 * (3 * 2**depth - 2)


def nearest_valid_sizes(side: int, *, depth: int) -> tuple[int | None, int]:
    """`side -> [largest below or None, smallest from it on]` of which valid convolutions can be taken.

    These are the sides whose maps are even before each pooling: 16 k + 60 from 188 on at depth 4.

    Source: Ronneberger et al. 2015, U-Net, section 2, last sentence.

    >>> nearest_valid_sizes(572, depth=4), nearest_valid_sizes(100, depth=4)
    ((556, 572), (None, 188))
    """
    step = 2**depth
    first = 2 * valid_margin(depth=depth) + 1
    first += (-4 - first) % step
    if side <= first:
        return None, first
    above = side + (-4 - side) % step
    return above - step, above


def center_crop_or_pad(x: jax.Array, size: Sequence[int]) -> jax.Array:
    """`[B, h, w, C], (H, W) -> [B, H, W, C]`: rows and columns cut at the end, or the last repeated.

    A map that was enlarged so covers one whose side was odd, from the same corner on.

    Source: what a pooling or a stride of 2 makes of an odd side: rounded down, or up.

    >>> center_crop_or_pad(jnp.arange(4.0).reshape(1, 2, 2, 1), (1, 3))[0, :, :, 0].tolist()
    [[0.0, 1.0, 1.0]]
    """
    x = x[:, : size[0], : size[1]]
    more = [(0, max(0, side - n)) for side, n in zip(size, x.shape[1:3], strict=True)]
    return jnp.pad(x, [(0, 0), *more, (0, 0)], mode="edge") if any(n for _, n in more) else x


def center_crop(x: jax.Array, size: Sequence[int]) -> jax.Array:
    """`[B, H, W, C], (h, w) -> [B, h, w, C]`: the middle of the map.

    Source: Ronneberger et al. 2015, U-Net, section 2.

    >>> center_crop(jnp.arange(16.0).reshape(1, 4, 4, 1), (2, 2))[0, :, :, 0].tolist()
    [[5.0, 6.0], [9.0, 10.0]]
    """
    top, left = ((n - side) // 2 for n, side in zip(x.shape[1:3], size, strict=True))
    return x[:, top : top + size[0], left : left + size[1]]


@final
class UNet(nn.Module):
    """`[B, H, W, C] -> {stage1 ... stageN, logits [B, h, w, K]}`, a decision for each pixel.

    `depth` poolings lead down through stages of `width` channels and twice as many in each next,
    each of two 3 x 3 convolutions, and as many steps up to the first's size. A step enlarges the
    map twofold by `upsample`, lays the stage of that size behind it and convolves twice. "transposed"
    is a 2 x 2 convolution that halves the channels, "nearest" and "linear" leave them. `release`
    is the authors' released network: a ReLU after each "transposed", of which the last keeps its
    channels. `dropout` is at the end of the way down: on the last two stages.

    `padding` "VALID" is the paper's: the stages are cropped to the middle, the logits are those of
    the image without a `valid_margin` on every side, and sides are those of `nearest_valid_sizes`; others raise
    ValueError. With any other padding images have any size from 2**depth on, and the logits theirs.

    A `backbone`, a Module that gives stage1 ... stageN, takes the place of the way down (`depth` then
    says nothing). Where its first stage is smaller than the image, more steps without a stage lead
    to the image's size; `width` is the channels there. zoo.create_model looks a name up, and other
    defaults with it: padded, BatchNorm, "nearest", width 16, no dropout. The backbone computes in
    `dtype` and shares `axis_name` and `remat`; its variables stand under "backbone", which is where
    trained ones go: `{kind: {**tree, "backbone": trained[kind]} for kind, tree in fresh.items()}`.

    `remat` recomputes a stage's or a step's maps in the backward pass. `num_classes=0` leaves the way
    up out.

    Source: Ronneberger et al. 2015, U-Net: Convolutional Networks for Biomedical Image
    Segmentation; the authors' release of 2015-10-02, phseg_v5; the steps over a backbone are those
    of segmentation_models_pytorch's Unet, but for a stage of stride 2 and a head of 3 x 3.

    >>> image = jax.ShapeDtypeStruct((1, 572, 572, 1), jnp.float32)
    >>> out, _ = jax.eval_shape(UNet().init_with_output, jax.random.key(0), image)
    >>> out["stage5"].shape, out["logits"].shape
    ((1, 28, 28, 1024), (1, 388, 388, 2))
    """

    num_classes: int = 2
    width: int = 64
    depth: int = 4
    backbone: nn.Module | None = None
    upsample: str = "transposed"
    release: bool = False
    dropout: float = 0.5
    padding: str | int = "VALID"
    act: str = "relu"
    norm: str | None = None
    kernel_init: str = "he"
    remat: bool = False
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.backbone, nn.Module):
            self.backbone = configure_backbone(self.backbone, self)
        super().__post_init__()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        chex.assert_rank(image, 4)
        lookup(dict.fromkeys(("transposed", "nearest", "linear")), self.upsample, kind="upsample")
        maps = (self.down if self.backbone is None else self.backbone_stages)(image, train=train)
        outputs = {f"stage{k}": x for k, x in enumerate(maps, 1)}
        if not self.num_classes:
            return outputs
        step = nn.remat(UNet.up, static_argnums=(3, 4)) if self.remat else UNet.up
        *levels, x = maps
        if self.backbone is not None:
            levels = [*count_levels_without_stage(image, maps[0]), *levels]
        for k in reversed(range(len(levels))):
            x = step(self, x, levels[k], k, train)
        head = nn.Conv(
            self.num_classes,
            (1, 1),
            kernel_init=lookup_initializer(self.kernel_init),
            dtype=jnp.promote_types(jnp.float32, self.dtype),
            conv_general_dilated=conv_general_dilated,
            name="head",
        )
        outputs["logits"] = head(x)
        return outputs

    def down(self, image: jax.Array, *, train: bool) -> list[jax.Array]:
        """The stages of the way down, largest first."""
        self.check(image)
        convs = nn.remat(UNet.convs, static_argnums=(2, 3, 4)) if self.remat else UNet.convs
        maps, x = [], image
        for k in range(self.depth + 1):
            x = max_pool(x, (2, 2), (2, 2)) if k else x
            x = convs(self, [x], k, f"stage{k + 1}", train)
            if k >= self.depth - 1:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
            maps.append(x)
        return maps

    def check(self, image: jax.Array) -> None:
        if not isinstance(self.depth, int) or self.depth < 1:
            raise ValueError(f"depth is a whole number of poolings from 1, got {self.depth!r}")
        if self.padding != "VALID":
            if min(image.shape[1:3]) < 2**self.depth:
                raise ValueError(
                    f"U-Net of depth {self.depth} takes images of {2**self.depth} x {2**self.depth} "
                    f"or more, got {image.shape}"
                )
            return
        near = {side: nearest_valid_sizes(side, depth=self.depth) for side in image.shape[1:3]}
        wrong = [
            f"{side} is not, {' and '.join(str(n) for n in sides if n)} are"
            for side, sides in near.items()
            if side != sides[1]
        ]
        if wrong:
            step, (_, first) = 2**self.depth, nearest_valid_sizes(0, depth=self.depth)
            raise ValueError(
                f"U-Net with valid convolutions takes sides of {step}k + {first % step + 3 * step} "
                f"from {first}: {', '.join(wrong)} (images of {image.shape})"
            )

    def backbone_stages(self, image: jax.Array, *, train: bool) -> list[jax.Array]:
        """The backbone's stages, largest first."""
        kind = type(self.backbone).__name__
        if self.padding == "VALID":
            raise ValueError(
                f"U-Net over a {kind} has padded convolutions, got padding='VALID': "
                "expected 'torch' or 'SAME'"
            )
        outputs = self.backbone(image, train=train)  # pyright: ignore[reportOptionalCall]
        maps = [outputs[f"stage{k}"] for k in range(1, 100) if f"stage{k}" in outputs]
        if not maps:
            raise ValueError(f"a backbone gives stage1 ... stageN, {kind} {', '.join(outputs)}")
        maps[-1] = nn.Dropout(self.dropout, deterministic=not train)(maps[-1])
        return maps

    def convs(self, maps: Sequence[jax.Array], k: int, name: str, train: bool) -> jax.Array:
        x = jnp.concatenate(maps, -1) if len(maps) > 1 else maps[0]
        for index in range(2):
            x = ConvNorm(
                self.width * 2**k,
                padding=self.padding,
                act=lookup_activation(self.act),
                norm=self.norm,
                kernel_init=lookup_initializer(self.kernel_init),
                dtype=self.dtype,
                axis_name=self.axis_name,
                name=f"{name}_{index}",
            )(x, train=train)
        return x

    def up(self, x: jax.Array, level: jax.Array, k: int, train: bool) -> jax.Array:
        """`[B, h, w, C], [B, H, W, D] -> [B, H, W, width 2^k]`; D 0: a step without a stage."""
        size = level.shape[1:3]
        if self.upsample == "transposed":
            width = x.shape[-1] if self.release and k == 0 else self.width * 2**k
            x = ConvTranspose(
                width, (2, 2), (2, 2), kernel_init=UP_INIT, dtype=self.dtype, name=f"up{k + 1}"
            )(x)
            x = lookup_activation(self.act)(x) if self.release else x
        else:
            times = [2, 2]
            if self.backbone is not None:  # stages of other strides than twice the last
                times = [max(1, round(a / b)) for a, b in zip(size, x.shape[1:3], strict=True)]
            shape = (x.shape[0], times[0] * x.shape[1], times[1] * x.shape[2], x.shape[3])
            x = resize(x, shape, self.upsample)
        if self.padding == "VALID":
            level = center_crop(level, x.shape[1:3])
        else:
            x = center_crop_or_pad(x, size)
        maps = [x, level.astype(x.dtype)] if level.shape[-1] else [x]
        return self.convs(maps, k, f"decode{k + 1}", train)


def count_levels_without_stage(image: jax.Array, first: jax.Array) -> list[jax.Array]:
    """`[B, H, W, C], [B, h, w, D] -> [[B, H, W, 0], [B, H / 2, W / 2, 0], ...]`, all larger than h.

    Source: the steps of segmentation_models_pytorch's decoder without a skip.

    >>> levels = count_levels_without_stage(jnp.zeros((1, 50, 64, 3)), jnp.zeros((1, 13, 16, 8)))
    >>> [level.shape for level in levels]
    [(1, 50, 64, 0), (1, 25, 32, 0)]
    """
    batch, height, width, _ = image.shape
    if max(height, width) < 16:
        raise ValueError(
            f"U-Net over a backbone takes images of 16 x 16 or more, got {image.shape}"
        )
    # by the longer side, which rounding tells the least about
    axis = 1 if height >= width else 2
    doublings = round(math.log2(image.shape[axis] / first.shape[axis]))
    return [
        jnp.zeros((batch, -(-height // 2**k), -(-width // 2**k), 0), first.dtype)
        for k in range(doublings)
    ]


CARD = dict(
    module=UNet,
    task="segmentation",
    input=(572, 572, 1),
    paper="Ronneberger, Fischer, Brox 2015, U-Net: Convolutional Networks for Biomedical Image "
    "Segmentation",
    # none is told; gray values of microscopes come to about mean 0 and variance 1
    preprocessing=dict(mean=(0.5,), std=(0.25,)),
    assembled=dict(padding="torch", norm="batch", upsample="nearest", width=16, dropout=0.0),
)

VARIANTS = {  # fields of UNet; parameters
    "unet": {},  # 31,030,658
    "unet_2015_release": dict(release=True),  # 31,100,354
    "unet_same": dict(  # 31,036,546
        padding="torch", norm="batch", dropout=0.0, card=dict(input=(256, 256, 1))
    ),
}
