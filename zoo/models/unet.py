"""U-Net: the 2015 network with valid convolutions, padded variants, and decoders on backbones."""

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

# He's fan-in counts the incoming nodes: one of the 2 x 2 taps of stride 2 reaches each output, but
# the initializer counts four.
UP_INIT = nn.initializers.variance_scaling(2.0 * 4, "fan_in", "normal")


def valid_margin(*, depth: int) -> int:
    """Returns the pixels that valid convolutions remove on each side of the image.

    Args:
        depth: number of poolings.

    Returns:
        The margin in pixels.

    Source: Ronneberger et al. 2015, U-Net, figure 1: 572 to 388 at depth 4.

    >>> valid_margin(depth=4)
    92
    """
    return 2 * (3 * 2**depth - 2)


def nearest_valid_sizes(side: int, *, depth: int) -> tuple[int | None, int]:
    """Returns the nearest image sides that valid convolutions can process.

    These are the sides whose maps are even before each pooling: 16 k + 60 from 188 on at depth 4.

    Args:
        side: side of the image in pixels.
        depth: number of poolings.

    Returns:
        The largest valid side below `side` (or None), and the smallest one from `side` on.

    Source: Ronneberger et al. 2015, U-Net, section 2, last sentence.

    >>> nearest_valid_sizes(572, depth=4), nearest_valid_sizes(100, depth=4)
    ((556, 572), (None, 188))
    """
    step = 2**depth
    first = 2 * valid_margin(depth=depth) + 1
    first += (-4 - first) % step
    if side <= first:
        return None, first
    next_size = side + (-4 - side) % step
    return next_size - step, next_size


def crop_or_pad_end(x: jax.Array, size: Sequence[int]) -> jax.Array:
    """Crops rows and columns at the end, or repeats the last ones, to a given size.

    An upsampled map thus covers a map with an odd side, aligned at the upper left corner.

    Args:
        x: feature map [B, h, w, C].
        size: target size (H, W).

    Returns:
        Feature map [B, H, W, C].

    >>> crop_or_pad_end(jnp.arange(4.0).reshape(1, 2, 2, 1), (1, 3))[0, :, :, 0].tolist()
    [[0.0, 1.0, 1.0]]
    """
    x = x[:, : size[0], : size[1]]
    missing = [(0, max(0, side - n)) for side, n in zip(size, x.shape[1:3], strict=True)]
    return jnp.pad(x, [(0, 0), *missing, (0, 0)], mode="edge") if any(n for _, n in missing) else x


def center_crop(x: jax.Array, size: Sequence[int]) -> jax.Array:
    """Crops the center of a map.

    Args:
        x: feature map [B, H, W, C].
        size: target size (h, w).

    Returns:
        Feature map [B, h, w, C].

    Source: Ronneberger et al. 2015, U-Net, section 2.

    >>> center_crop(jnp.arange(16.0).reshape(1, 4, 4, 1), (2, 2))[0, :, :, 0].tolist()
    [[5.0, 6.0], [9.0, 10.0]]
    """
    top, left = ((n - side) // 2 for n, side in zip(x.shape[1:3], size, strict=True))
    return x[:, top : top + size[0], left : left + size[1]]


@final
class UNet(nn.Module):
    """U-Net for semantic segmentation.

    `depth` poolings lead down through stages of `width`, 2 `width`, 4 `width`, ... channels with
    two 3 x 3 convolutions each, and as many steps lead up again. A step upsamples the map by two,
    concatenates the stage of that size and convolves twice.

    With a `backbone` its stages replace the encoder. If its first stage is smaller than the image,
    further steps without a skip lead to the image's size. `zoo.create_model` accepts a variant name
    as backbone and then changes the defaults: padding, BatchNorm, "nearest", width 16 and no
    dropout. The backbone's variables are stored under "backbone", where trained ones go: `{kind:
    {**tree, "backbone": trained[kind]} for kind, tree in fresh.items()}`.

    Attributes:
        num_classes: number of classes; 0 removes the decoder.
        width: channels of the first stage, or of the decoder's full resolution with a backbone.
        depth: number of poolings; not used with a backbone.
        backbone: a module that returns stage1 ... stageN; it gets `dtype`, `axis_name` and `remat`.
        upsample: "transposed" is a 2 x 2 transposed convolution that halves the channels; "nearest"
            and "linear" keep them.
        release: reproduce the authors' released network: a ReLU after each transposed convolution,
            and the last one keeps its channels.
        dropout: dropout rate of the last two stages of the encoder.
        padding: "VALID" is the paper's: the stages are center-cropped, the logits lack a
            `valid_margin` on every side, and the sides must be among `nearest_valid_sizes`. Any
            other padding takes images of any size from 2**depth on.
        remat: recompute the maps of a stage or step in the backward pass.

    Args:
        image: images [B, H, W, C].
        train: use batch statistics and dropout.

    Returns:
        `stage1` ... `stageN` and `logits` [B, h, w, K].

    Raises:
        ValueError: if the image size or the backbone does not fit.

    Source: Ronneberger et al. 2015, U-Net: Convolutional Networks for Biomedical Image
    Segmentation; the authors' release of 2015-10-02, phseg_v5; the decoder on a backbone follows
    segmentation_models_pytorch's Unet, except for a stage of stride 2 and a head of 3 x 3.

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
            levels = [*empty_skips(image, maps[0]), *levels]
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
        """Returns the stages of the encoder, largest first."""
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
        """Raises ValueError if depth or image size is invalid."""
        if not isinstance(self.depth, int) or self.depth < 1:
            raise ValueError(f"expected a depth of at least 1 pooling, got {self.depth!r}")
        if self.padding != "VALID":
            if min(image.shape[1:3]) < 2**self.depth:
                raise ValueError(
                    f"expected images of at least {2**self.depth} x {2**self.depth} for a U-Net of "
                    f"depth {self.depth}, got {image.shape}"
                )
            return
        nearest = {side: nearest_valid_sizes(side, depth=self.depth) for side in image.shape[1:3]}
        wrong = [
            f"{side} is not, {' and '.join(str(n) for n in sides if n)} are"
            for side, sides in nearest.items()
            if side != sides[1]
        ]
        if wrong:
            step, (_, first) = 2**self.depth, nearest_valid_sizes(0, depth=self.depth)
            raise ValueError(
                f"expected sides of {step}k + {first % step + 3 * step} from {first} for valid "
                f"convolutions: {', '.join(wrong)} (images of {image.shape})"
            )

    def backbone_stages(self, image: jax.Array, *, train: bool) -> list[jax.Array]:
        """Returns the stages of the backbone, largest first."""
        kind = type(self.backbone).__name__
        if self.padding == "VALID":
            raise ValueError(
                f"expected padding 'torch' or 'SAME' for a U-Net on a {kind}, got 'VALID'"
            )
        outputs = self.backbone(image, train=train)  # pyright: ignore[reportOptionalCall]
        maps = [outputs[f"stage{k}"] for k in range(1, 100) if f"stage{k}" in outputs]
        if not maps:
            raise ValueError(
                f"expected a backbone that returns stage1 ... stageN, got {kind} with "
                f"{', '.join(outputs)}"
            )
        maps[-1] = nn.Dropout(self.dropout, deterministic=not train)(maps[-1])
        return maps

    def convs(self, maps: Sequence[jax.Array], k: int, name: str, train: bool) -> jax.Array:
        """Applies the two convolutions of level k."""
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
        """Applies one decoder step: [B, h, w, C] and [B, H, W, D] to [B, H, W, width * 2**k].

        D is 0 in a step without a skip.
        """
        size = level.shape[1:3]
        if self.upsample == "transposed":
            width = x.shape[-1] if self.release and k == 0 else self.width * 2**k
            x = ConvTranspose(
                width, (2, 2), (2, 2), kernel_init=UP_INIT, dtype=self.dtype, name=f"up{k + 1}"
            )(x)
            x = lookup_activation(self.act)(x) if self.release else x
        else:
            times = [2, 2]
            if self.backbone is not None:  # its strides need not double from stage to stage
                times = [max(1, round(a / b)) for a, b in zip(size, x.shape[1:3], strict=True)]
            shape = (x.shape[0], times[0] * x.shape[1], times[1] * x.shape[2], x.shape[3])
            x = resize(x, shape, self.upsample)
        if self.padding == "VALID":
            level = center_crop(level, x.shape[1:3])
        else:
            x = crop_or_pad_end(x, size)
        maps = [x, level.astype(x.dtype)] if level.shape[-1] else [x]
        return self.convs(maps, k, f"decode{k + 1}", train)


def empty_skips(image: jax.Array, first: jax.Array) -> list[jax.Array]:
    """Returns empty skip maps for the levels above the first stage of the backbone.

    Args:
        image: images [B, H, W, C].
        first: first stage of the backbone [B, h, w, D].

    Returns:
        Maps without channels [[B, H, W, 0], [B, H / 2, W / 2, 0], ...], all larger than the stage.

    Raises:
        ValueError: if the image is smaller than 16 x 16.

    Source: the steps of segmentation_models_pytorch's decoder without a skip.

    >>> levels = empty_skips(jnp.zeros((1, 50, 64, 3)), jnp.zeros((1, 13, 16, 8)))
    >>> [level.shape for level in levels]
    [(1, 50, 64, 0), (1, 25, 32, 0)]
    """
    batch, height, width, _ = image.shape
    if max(height, width) < 16:
        raise ValueError(
            f"expected images of at least 16 x 16 for a U-Net on a backbone, got {image.shape}"
        )
    # the longer side has the smaller rounding error
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
    # not published; this brings gray values of microscopes to about mean 0 and variance 1
    preprocessing=dict(mean=(0.5,), std=(0.25,)),
    backbone_defaults=dict(
        padding="torch", norm="batch", upsample="nearest", width=16, dropout=0.0
    ),
)

VARIANTS = {  # fields of UNet; parameters
    "unet": {},  # 31,030,658
    "unet_2015_release": dict(release=True),  # 31,100,354
    "unet_same": dict(  # 31,036,546
        padding="torch", norm="batch", dropout=0.0, card=dict(input=(256, 256, 1))
    ),
}
