"""C3D: a network of 3x3x3 convolutions."""

import functools
from typing import final

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from zoo.layers.activation import lookup_activation
from zoo.ops.convolution import conv_general_dilated
from zoo.ops.pooling import adaptive_avg_pool, ceil_padding, max_pool
from zoo.preprocess import IMAGENET_MEAN


@final
class C3D(nn.Module):
    """C3D video classifier.

    The stages are the inputs of the five max-poolings. The first pools 1x2x2, the others 2x2x2; a
    last window may be cut short, as in Caffe. `pooled` is the mean of the last pooling's map. The
    head flattens that map by rows, columns and channels, after averaging it to one frame of `side`
    x `side`, which is the size for 16 frames of 112 x 112.

    Attributes:
        num_classes: number of classes; 0 removes fc6, fc7 and the logits.
        widths: channels of the convolutions of each stage.
        hidden: units of fc6 and fc7.
        bias: initial bias; 0 for the first convolution and the logits.
        dropout: dropout rate of the outputs of fc6 and fc7.
        remat: recompute the maps of a stage in the backward pass.

    Args:
        video: clips [B, T, H, W, C].
        train: apply dropout.

    Returns:
        `stage1` to `stage5`, `pooled` [B, D], `fc7` [B, 4096] and `logits` [B, K].

    Source: Tran et al. 2015, Learning Spatiotemporal Features with 3D Convolutional Networks,
    section 3.2 and figure 3; the authors' C3D-v1.0 examples for the borders and the initializers.

    >>> clip = jax.ShapeDtypeStruct((1, 16, 112, 112, 3), jnp.float32)
    >>> out, _ = jax.eval_shape(C3D(hidden=8).init_with_output, jax.random.key(0), clip)
    >>> out["stage5"].shape, out["logits"].shape
    ((1, 2, 7, 7, 512), (1, 487))
    """

    num_classes: int = 487
    widths: tuple[tuple[int, ...], ...] = ((64,), (128,), (256, 256), (512, 512), (512, 512))
    hidden: int = 4096
    side: int = 4
    bias: float = 1.0
    dropout: float = 0.5
    act: str = "relu"
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, video: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        chex.assert_rank(video, 5)
        stage = nn.remat(C3D.stage, static_argnums=(2,)) if self.remat else C3D.stage
        x, outputs = video, {}
        for k in range(1, len(self.widths) + 1):
            outputs[f"stage{k}"] = x = stage(self, x, k)
            window = (1 if k == 1 else 2, 2, 2)
            x = max_pool(x, window, window, ceil_padding(x.shape[1:4], window, window))
        outputs["pooled"] = x.mean((1, 2, 3))
        if self.num_classes:
            outputs |= self.head(x, train=train)
        return outputs

    def stage(self, x: jax.Array, k: int) -> jax.Array:
        """Applies the convolutions of stage k."""
        for letter, width in zip("abcdefgh", self.widths[k - 1], strict=False):
            x = nn.Conv(
                width,
                (3, 3, 3),
                padding=1,
                kernel_init=nn.initializers.normal(0.01),
                bias_init=nn.initializers.constant(0.0 if k == 1 else self.bias),
                dtype=self.dtype,
                conv_general_dilated=conv_general_dilated,
                name=f"conv{k}{letter}",
            )(x)
            x = lookup_activation(self.act)(x)
        return x

    def head(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Applies fc6, fc7 and the logits."""
        dense = functools.partial(nn.Dense, kernel_init=nn.initializers.normal(0.005))
        bias = nn.initializers.constant(self.bias)
        act, drop = lookup_activation(self.act), nn.Dropout(self.dropout, deterministic=not train)
        x = adaptive_avg_pool(x.mean(1), size=(self.side, self.side)).reshape(x.shape[0], -1)
        for name in ("fc6", "fc7"):
            x = drop(act(dense(self.hidden, bias_init=bias, dtype=self.dtype, name=name)(x)))
        wide = jnp.promote_types(jnp.float32, self.dtype)
        small = nn.initializers.normal(0.01)
        head = nn.Dense(self.num_classes, kernel_init=small, dtype=wide, name="head")
        return dict(fc7=x, logits=head(x))


CARD = dict(
    module=C3D,
    task="video",
    input=(16, 112, 112, 3),
    paper="Tran et al. 2015, Learning Spatiotemporal Features with 3D Convolutional Networks",
    # the mean is subtracted from pixels of 0 to 255; frames are resized to 128 x 171
    preprocessing=dict(mean=IMAGENET_MEAN, std=(1 / 255,) * 3, crop=112 / 128),
)

VARIANTS = {  # fields of C3D; parameters
    "c3d": {},  # 79,991,015; with 101 classes 78,409,573
    "c3d_small": dict(  # 17,444,965
        num_classes=101,
        widths=((64,), (128,), (256,), (256,), (256,)),
        hidden=2048,
        card=dict(reported="UCF101 from scratch, about 45 %"),
    ),
}
