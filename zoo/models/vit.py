"""Vision transformer."""

import functools
import math
from collections.abc import Mapping
from typing import Any, final

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from zoo.layers.attention import DotProductAttention
from zoo.layers.initializer import lookup_initializer
from zoo.ops.dense_general import dot_general, gelu
from zoo.ops.fusion import fusion_barrier
from zoo.preprocess import IMAGENET_NORM

EPSILON = 1e-6  # of every LayerNorm, as in the authors' code, torchvision and timm


def resize_positions(
    positions: jax.Array, *, old: tuple[int, int], new: tuple[int, int]
) -> jax.Array:
    """Resizes the position embeddings of a grid of patches.

    The n embeddings before those of the grid stay unchanged. The interpolation is bicubic,
    antialiased where the grid shrinks.

    Args:
        positions: embeddings [1, n + H * W, D].
        old: old grid (H, W).
        new: new grid (h, w).

    Returns:
        Embeddings [1, n + h * w, D].

    Source: Dosovitskiy et al. 2021, section 3.2; Keys's kernel with a = -0.5, as in timm's
    resample_abs_pos_embed: within 2e-6 of timm 1.0.31 from 14 x 14 to 7, 13, 20 and 24
    (torchvision's interpolate_embeddings aligns the corners).

    >>> resize_positions(jnp.ones((1, 1 + 4 * 4, 8)), old=(4, 4), new=(6, 3)).shape
    (1, 19, 8)
    """
    if old == new:
        return positions
    prefix = positions.shape[1] - old[0] * old[1]
    width = positions.shape[-1]
    grid = positions[:, prefix:].reshape(1, *old, width)
    grid = jax.image.resize(grid, (1, *new, width), "cubic").reshape(1, -1, width)
    return jnp.concatenate([positions[:, :prefix], grid], 1)


def patch_grid(image_size: int | tuple[int, int], patch: int) -> tuple[int, int]:
    """Returns the rows and columns of patches of an image.

    Args:
        image_size: side, or (height, width), in pixels.
        patch: side of a patch.

    Returns:
        (rows, columns).

    Raises:
        ValueError: if the patch does not divide the sides.

    Source: Dosovitskiy et al. 2021, section 3.1.

    >>> patch_grid((224, 192), 16)
    (14, 12)
    """
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    if any(side < patch or side % patch for side in sides):
        raise ValueError(
            f"expected sides that are multiples of the patch size {patch}, got "
            f"{' x '.join(map(str, sides))}; resize the images or set image_size to a multiple"
        )
    return sides[0] // patch, sides[1] // patch


@final
class SelfAttention(nn.Module):
    """Multi-head self-attention.

    One dense layer computes query, key and value, in this order; the heads are contiguous in each.

    Attributes:
        maps: also return the attention weights.

    Args:
        x: tokens [B, L, D].

    Returns:
        Tokens [B, L, D] and the weights [B, heads, L, L], or None.

    Source: Dosovitskiy et al. 2021, An Image Is Worth 16x16 Words, appendix A.

    >>> x = jnp.ones((2, 5, 24))
    >>> layer = SelfAttention(heads=3)
    >>> (y, maps), _ = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    >>> y.shape, maps
    ((2, 5, 24), None)
    """

    heads: int
    maps: bool = False
    kernel_init: str = "xavier"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        width = x.shape[-1]
        dense = functools.partial(
            nn.Dense,
            kernel_init=lookup_initializer(self.kernel_init),
            dtype=self.dtype,
            dot_general=dot_general,
        )
        packed = dense(3 * width, name="qkv")(x)
        # split instead of indexing: the gradient of three slices is a sum of three padded arrays
        projections = (
            projection.reshape(*x.shape[:2], self.heads, width // self.heads)
            for projection in jnp.split(packed, 3, -1)
        )
        y, maps = DotProductAttention(self.maps, name="attend")(*projections)
        return dense(width, name="out")(y.reshape(x.shape)), maps


@final
class Block(nn.Module):
    """Transformer block: self-attention and a two-layer perceptron, both residual.

    Attributes:
        maps: also return the attention weights.
        stochastic_depth: in training, the rate at which either branch is dropped.

    Args:
        x: tokens [B, L, D].
        train: use dropout and stochastic depth.

    Returns:
        Tokens [B, L, D] and attention weights, or None.

    Source: Dosovitskiy et al. 2021, An Image Is Worth 16x16 Words, equations 2 and 3; Huang et al.
    2016, Deep Networks with Stochastic Depth.

    >>> x = jnp.ones((2, 5, 24))
    >>> (y, _), _ = jax.eval_shape(Block(heads=3).init_with_output, jax.random.key(0), x)
    >>> y.shape
    (2, 5, 24)
    """

    heads: int
    maps: bool = False
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    kernel_init: str = "xavier"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, jax.Array | None]:
        width = x.shape[-1]
        norm = functools.partial(
            nn.LayerNorm, epsilon=EPSILON, use_fast_variance=False, dtype=self.dtype
        )
        dense = functools.partial(
            nn.Dense,
            kernel_init=lookup_initializer(self.kernel_init),
            dtype=self.dtype,
            dot_general=dot_general,
        )
        drop = nn.Dropout(self.dropout, deterministic=not train)
        # one draw per example drops or keeps the complete branch
        skip = nn.Dropout(self.stochastic_depth, broadcast_dims=(1, 2), deterministic=not train)

        attention = SelfAttention(
            self.heads, self.maps, self.kernel_init, self.dtype, name="attention"
        )
        y, maps = attention(norm(name="norm1")(x))
        x = fusion_barrier(x + skip(drop(y)))
        y = dense(4 * width, name="expand")(norm(name="norm2")(x))
        y = drop(gelu(y))
        y = drop(dense(width, name="reduce")(y))
        return fusion_barrier(x + skip(y)), maps


@final
class ViT(nn.Module):
    """Vision transformer.

    Attributes:
        image_size: side, or (height, width), that the position embeddings are made for; they are
            resized for images of another size.
        patch: side of a patch.
        width: size of the embeddings.
        pool: "token" adds a class token and returns it as `pooled`; "mean" returns the mean of the
            patches.
        attention_maps: also return `attention` [B, depth, heads, L, L], whose rows sum to 1. The
            class token is the first of the L tokens.
        dropout: dropout rate after the position embeddings and every dense layer except query, key
            and value.
        stochastic_depth: rate of the last block; it grows linearly from 0.
        remat: recompute the inside of a block in the backward pass.

    Args:
        image: images [B, H, W, C]; the sides are multiples of `patch`.
        train: use dropout and stochastic depth.

    Returns:
        `stage1` [B, H / patch, W / patch, D], `pooled` [B, D] and `logits` [B, K].

    Raises:
        ValueError: if the patch does not divide the sides, or `pool` is unknown.

    Source: Dosovitskiy et al. 2021, An Image Is Worth 16x16 Words, section 3.1 and table 1; the
    authors' code for the exact GELU, LayerNorm's 1e-6 and the final norm; Touvron et al. 2021,
    table 1, for ViT-Ti and ViT-S.

    >>> model = ViT(num_classes=10, image_size=32, patch=8, width=24, depth=2, heads=3)
    >>> image = jnp.zeros((1, 32, 48, 3))
    >>> out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    >>> out["stage1"].shape, out["pooled"].shape, out["logits"].shape
    ((1, 4, 6, 24), (1, 24), (1, 10))
    """

    num_classes: int = 1000
    image_size: int | tuple[int, int] = 224
    patch: int = 16
    width: int = 192
    depth: int = 12
    heads: int = 3
    pool: str = "token"
    attention_maps: bool = False
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    kernel_init: str = "xavier"
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        chex.assert_rank(image, 4)
        if self.pool not in ("token", "mean"):
            raise ValueError(f"expected pool 'token' or 'mean', got {self.pool!r}")
        tokens, grid = self.embed(image)
        tokens = nn.Dropout(self.dropout, deterministic=not train)(tokens)

        def call(block: nn.Module, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
            return block(x, train=train)

        run = nn.remat(call) if self.remat else call
        attention = []
        for index in range(self.depth):
            block = Block(
                self.heads,
                self.attention_maps,
                self.dropout,
                self.stochastic_depth * index / max(self.depth - 1, 1),
                self.kernel_init,
                self.dtype,
                name=f"stage1_{index}",
            )
            tokens, maps = run(block, tokens)
            attention.append(maps)
        norm = nn.LayerNorm(EPSILON, self.dtype, use_fast_variance=False, name="norm")
        tokens = norm(tokens)
        patches = tokens[:, tokens.shape[1] - grid[0] * grid[1] :]
        outputs = dict(stage1=patches.reshape(-1, *grid, self.width))
        outputs["pooled"] = tokens[:, 0] if self.pool == "token" else patches.mean(1)
        if self.attention_maps:
            outputs["attention"] = jnp.stack(attention, 1)
        if self.num_classes:
            wide = jnp.promote_types(jnp.float32, self.dtype)
            head = nn.Dense(self.num_classes, dtype=wide, name="head")
            outputs["logits"] = head(outputs["pooled"])
        return outputs

    def embed(self, image: jax.Array) -> tuple[jax.Array, tuple[int, int]]:
        """Embeds the patches: images [B, H, W, C] to tokens [B, n + h * w, D] and the grid (h, w).

        n is 1 with a class token, else 0.
        """
        trained_grid = patch_grid(self.image_size, self.patch)
        grid = patch_grid((image.shape[1], image.shape[2]), self.patch)
        x = nn.Conv(
            self.width,
            (self.patch, self.patch),
            (self.patch, self.patch),
            padding="VALID",
            dtype=self.dtype,
            name="patch",
        )(image)
        x = x.reshape(x.shape[0], -1, self.width)
        if self.pool == "token":
            token = self.param("class_token", nn.initializers.zeros, (1, 1, self.width))
            token = jnp.broadcast_to(token.astype(x.dtype), (x.shape[0], 1, self.width))
            x = jnp.concatenate([token, x], 1)
        prefix = x.shape[1] - grid[0] * grid[1]
        shape = (1, prefix + trained_grid[0] * trained_grid[1], self.width)
        positions = self.param("positions", nn.initializers.normal(0.02), shape, jnp.float32)
        return x + resize_positions(positions, old=trained_grid, new=grid).astype(x.dtype), grid


def infer_fields(tensors: Mapping[str, Any], *, model: ViT) -> dict[str, Any]:
    """Infers the image size from the position embeddings, for square images.

    Args:
        tensors: arrays by parameter path.
        model: a ViT with the same patch size.

    Returns:
        `{"image_size": side}`, or nothing if it cannot be inferred.

    >>> infer_fields({"params/positions": jnp.zeros((1, 1 + 24 * 24, 192))}, model=ViT())
    {'image_size': 384}
    """
    positions = tensors.get("params/positions")
    if positions is None or positions.ndim != 3:
        return {}
    patches = positions.shape[1] - (model.pool == "token")
    side = math.isqrt(max(patches, 0))
    return {"image_size": side * model.patch} if side and side * side == patches else {}


def resize_position_embeddings(tensors: Mapping[str, Any], *, old: ViT, new: ViT) -> dict[str, Any]:
    """Resizes the position embeddings in a file for a model with another image size.

    Args:
        tensors: arrays by parameter path.
        old: the model of the file.
        new: the new model.

    Returns:
        Arrays for `new`.

    >>> tensors = {"params/positions": jnp.zeros((1, 1 + 14 * 14, 192))}
    >>> resized = resize_position_embeddings(tensors, old=ViT(), new=ViT(image_size=384))
    >>> resized["params/positions"].shape
    (1, 577, 192)
    """
    old_grid, new_grid = (patch_grid(model.image_size, model.patch) for model in (old, new))
    positions = jnp.asarray(tensors["params/positions"], jnp.float32)
    return {**tensors, "params/positions": resize_positions(positions, old=old_grid, new=new_grid)}


CARD = dict(
    module=ViT,
    task="classification",
    input=(224, 224, 3),
    paper="Dosovitskiy et al. 2021, An Image Is Worth 16x16 Words: Transformers for Image "
    "Recognition at Scale",
    preprocessing=dict(**IMAGENET_NORM, crop=0.875),
    infer_fields=infer_fields,
    refit=resize_position_embeddings,
)

VARIANTS = {  # fields of ViT; parameters
    "vit_ti_16": dict(width=192, depth=12, heads=3, patch=16),  # 5,717,416
    "vit_s_16": dict(width=384, depth=12, heads=6, patch=16),  # 22,050,664
    "vit_b_16": dict(width=768, depth=12, heads=12, patch=16),  # 86,567,656
    "vit_b_32": dict(width=768, depth=12, heads=12, patch=32),  # 88,224,232
    "vit_l_16": dict(width=1024, depth=24, heads=16, patch=16),  # 304,326,632
    "vit_l_32": dict(width=1024, depth=24, heads=16, patch=32),  # 306,535,400
    "vit_h_14": dict(width=1280, depth=32, heads=16, patch=14),  # 632,045,800
}
