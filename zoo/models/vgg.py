"""VGG: configurations A to E, with and without BatchNorm."""

import functools
from typing import final

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from zoo.layers.activation import lookup_activation
from zoo.layers.conv_norm import ConvNorm
from zoo.layers.initializer import lookup_initializer
from zoo.ops.local_response_norm import local_response_norm
from zoo.ops.pooling import adaptive_avg_pool, ceil_padding, max_pool
from zoo.preprocess import IMAGENET_NORM


@final
class VGG(nn.Module):
    """VGG.

    The stages are the inputs of the five max-poolings, of stride 1, 2, 4, 8 and 16: stage4 is
    conv4_3 of configuration D, and `nn.max_pool(stage4, (2, 2), (2, 2))` is pool4. `pooled` is the
    mean of the last pooling's map. The head flattens that map by rows, columns and channels, after
    averaging it to 7 x 7 if the image is not 224 x 224.

    Attributes:
        num_classes: number of classes; 0 removes fc6, fc7 and the logits.
        depths: number of convolutions of each stage.
        pointwise: make the last convolution of stages 3, 4 and 5 a 1 x 1.
        lrn: (size, alpha, beta, k) of `zoo.ops.local_response_norm` after the first convolution.
        padding: padding of the convolutions; "torch" and "SAME" are equal at stride 1.
        ceil: give an odd last row a window of its own in the poolings, as in Caffe.
        remat: recompute the maps of a stage in the backward pass.

    Args:
        image: images [B, H, W, C].
        train: use batch statistics and dropout.

    Returns:
        `stage1` to `stage5`, `pooled` [B, D], `fc7` [B, 4096] and `logits` [B, K].

    Raises:
        ValueError: if the image is smaller than 32 x 32.

    Source: Simonyan & Zisserman 2015, Very Deep Convolutional Networks for Large-Scale Image
    Recognition, table 1; torchvision's vgg for the initializers, BatchNorm and the pooling of other
    sizes.

    >>> image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    >>> out, _ = jax.eval_shape(VGG().init_with_output, jax.random.key(0), image)
    >>> out["stage5"].shape, out["logits"].shape
    ((1, 14, 14, 512), (1, 1000))
    """

    num_classes: int = 1000
    depths: tuple[int, ...] = (1, 1, 2, 2, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    hidden: int = 4096
    pointwise: bool = False
    lrn: tuple[int, float, float, float] | None = None
    dropout: float = 0.5
    padding: str | int = "torch"
    ceil: bool = False
    act: str = "relu"
    norm: str | None = None
    kernel_init: str = "he_fan_out"
    remat: bool = False
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        chex.assert_rank(image, 4)
        if min(image.shape[1:3]) < 32:
            raise ValueError(f"expected images of at least 32 x 32 for VGG, got {image.shape}")
        stage = nn.remat(VGG.stage, static_argnums=(2, 3)) if self.remat else VGG.stage
        outputs = {}
        x = image
        for k in range(1, 6):
            outputs[f"stage{k}"] = stage(self, x, k, train)
            x = outputs[f"stage{k}"]
            edges = ceil_padding(x.shape[1:3], (2, 2), (2, 2)) if self.ceil else "VALID"
            x = max_pool(x, (2, 2), (2, 2), edges)
        outputs["pooled"] = x.mean((1, 2))
        if self.num_classes:
            outputs |= self.head(x, train=train)
        return outputs

    def stage(self, x: jax.Array, k: int, train: bool) -> jax.Array:
        """Applies the convolutions of stage k."""
        depth = self.depths[k - 1]
        for i in range(depth):
            x = ConvNorm(
                self.widths[k - 1],
                1 if self.pointwise and k >= 3 and i == depth - 1 else 3,
                padding=self.padding,
                act=lookup_activation(self.act),
                norm=self.norm,
                use_bias=True,
                kernel_init=lookup_initializer(self.kernel_init),
                dtype=self.dtype,
                axis_name=self.axis_name,
                name=f"stage{k}_{i}",
            )(x, train=train)
            if self.lrn and k == 1:
                size, alpha, beta, offset = self.lrn
                x = local_response_norm(x, size=size, alpha=alpha, beta=beta, k=offset)
        return x

    def head(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Applies fc6, fc7 and the logits."""
        dense = functools.partial(nn.Dense, kernel_init=nn.initializers.normal(0.01))
        act, drop = lookup_activation(self.act), nn.Dropout(self.dropout, deterministic=not train)
        x = adaptive_avg_pool(x, size=(7, 7)).reshape(x.shape[0], -1)
        x = drop(act(dense(self.hidden, dtype=self.dtype, name="fc6")(x)))
        x = drop(act(dense(self.hidden, dtype=self.dtype, name="fc7")(x)))
        wide = jnp.promote_types(jnp.float32, self.dtype)
        return dict(fc7=x, logits=dense(self.num_classes, dtype=wide, name="head")(x))


CARD = dict(
    module=VGG,
    task="classification",
    input=(224, 224, 3),
    paper="Simonyan & Zisserman 2015, Very Deep Convolutional Networks for Large-Scale Image "
    "Recognition",
    preprocessing=dict(**IMAGENET_NORM, crop=0.875),
)

A, B, D, E = (1, 1, 2, 2, 2), (2, 2, 2, 2, 2), (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)

VARIANTS = {  # fields of VGG; parameters
    "vgg11": dict(  # 132,863,336
        depths=A,
        card=dict(reported="ImageNet top-1 69.02 %, top-5 88.628 % (torchvision)"),
    ),
    "vgg11_lrn": dict(depths=A, lrn=(5, 5e-4, 0.75, 2.0)),  # 132,863,336; constants as AlexNet's
    "vgg13": dict(  # 133,047,848
        depths=B,
        card=dict(reported="ImageNet top-1 69.928 %, top-5 89.246 % (torchvision)"),
    ),
    "vgg16_c": dict(depths=D, pointwise=True),  # 133,638,952
    "vgg16": dict(  # 138,357,544
        depths=D,
        card=dict(reported="ImageNet top-1 71.592 %, top-5 90.382 % (torchvision)"),
    ),
    "vgg19": dict(  # 143,667,240
        depths=E,
        card=dict(reported="ImageNet top-1 72.376 %, top-5 90.876 % (torchvision)"),
    ),
    "vgg11_bn": dict(  # 132,868,840
        depths=A,
        norm="batch",
        card=dict(reported="ImageNet top-1 70.37 %, top-5 89.81 % (torchvision)"),
    ),
    "vgg13_bn": dict(  # 133,053,736
        depths=B,
        norm="batch",
        card=dict(reported="ImageNet top-1 71.586 %, top-5 90.374 % (torchvision)"),
    ),
    "vgg16_bn": dict(  # 138,365,992
        depths=D,
        norm="batch",
        card=dict(reported="ImageNet top-1 73.36 %, top-5 91.516 % (torchvision)"),
    ),
    "vgg19_bn": dict(  # 143,678,248
        depths=E,
        norm="batch",
        card=dict(reported="ImageNet top-1 74.218 %, top-5 91.842 % (torchvision)"),
    ),
}
