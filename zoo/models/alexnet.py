"""AlexNet: the two-group network of 2012 and the single tower of 2014."""

import functools
from typing import final

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from zoo.layers.activation import lookup_activation
from zoo.layers.initializer import lookup_initializer
from zoo.ops.convolution import conv_general_dilated
from zoo.ops.local_response_norm import local_response_norm
from zoo.ops.pooling import adaptive_avg_pool, ceil_padding, max_pool
from zoo.preprocess import IMAGENET_MEAN, IMAGENET_NORM

KERNELS = (11, 5, 3, 3, 3)
STAGES = ((1,), (2,), (3, 4, 5))  # numbers of the convolutions between two poolings


@final
class AlexNet(nn.Module):
    """AlexNet.

    The stages are the inputs of the three max-poolings: convolutions 1, 2 and 5, of stride 4, 8 and
    16. `pooled` is the mean of the last pooling's map. The head flattens that map by rows, columns
    and channels, after averaging it to 6 x 6 if the image has another size than the card's.

    Attributes:
        num_classes: number of classes; 0 removes fc6, fc7 and the logits.
        groups: groups of convolutions 2, 4 and 5.
        padding: padding of the first convolution, a number or "SAME".
        lrn: (size, alpha, beta, k) of `zoo.ops.local_response_norm` after convolutions 1 and 2.
        lrn_last: normalize after the poolings instead, as Caffe's CaffeNet does.
        ceil: let the last window of a pooling be cut short, as in Caffe.
        bias: initial bias of convolutions 2, 4 and 5, fc6 and fc7; the others start at 0.
        drop_inputs: apply dropout to the inputs of fc6 and fc7 instead of their outputs.
        remat: recompute the maps of a stage in the backward pass.

    Args:
        image: images [B, H, W, C].
        train: apply dropout.

    Returns:
        `stage1` to `stage3`, `pooled` [B, D], `fc7` [B, 4096] and `logits` [B, K].

    Raises:
        ValueError: if the image is too small for three poolings: below 63 x 63 (without padding 67
            x 67).

    Source: Krizhevsky et al. 2012, ImageNet Classification with Deep Convolutional Neural Networks,
    section 3; Krizhevsky 2014, One Weird Trick for Parallelizing Convolutional Neural Networks, as
    in torchvision (whose biases start at random values, not at 0).

    >>> image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    >>> out, _ = jax.eval_shape(AlexNet().init_with_output, jax.random.key(0), image)
    >>> out["stage3"].shape, out["logits"].shape
    ((1, 13, 13, 256), (1, 1000))
    """

    num_classes: int = 1000
    widths: tuple[int, ...] = (64, 192, 384, 256, 256)
    hidden: int = 4096
    groups: int = 1
    padding: int | str = 2
    lrn: tuple[int, float, float, float] | None = None
    lrn_last: bool = False
    ceil: bool = False
    bias: float = 0.0
    dropout: float = 0.5
    drop_inputs: bool = True
    act: str = "relu"
    kernel_init: str = "torch"
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        chex.assert_rank(image, 4)
        side = 57 if self.padding == "SAME" else 67 - 2 * int(self.padding)  # first map: 15 x 15
        if min(image.shape[1:3]) < side:
            raise ValueError(
                f"expected images of at least {side} x {side} for AlexNet, got {image.shape}"
            )
        stage = nn.remat(AlexNet.stage, static_argnums=(2,)) if self.remat else AlexNet.stage
        outputs = {}
        x = image
        for k, layers in enumerate(STAGES, 1):
            outputs[f"stage{k}"] = stage(self, x, layers)
            x = outputs[f"stage{k}"]
            edges = ceil_padding(x.shape[1:3], (3, 3), (2, 2)) if self.ceil else "VALID"
            x = max_pool(x, (3, 3), (2, 2), edges)
            if self.lrn_last and k <= 2:
                x = self.normalize(x)
        outputs["pooled"] = x.mean((1, 2))
        if self.num_classes:
            outputs |= self.head(x, train=train)
        return outputs

    def stage(self, x: jax.Array, layers: tuple[int, ...]) -> jax.Array:
        """Applies the convolutions of one stage."""
        act = lookup_activation(self.act)
        for layer in layers:
            is_grouped = layer in (2, 4, 5)
            x = nn.Conv(
                self.widths[layer - 1],
                (KERNELS[layer - 1],) * 2,
                strides=4 if layer == 1 else 1,
                padding=self.padding if layer == 1 else KERNELS[layer - 1] // 2,
                feature_group_count=self.groups if is_grouped else 1,
                kernel_init=lookup_initializer(self.kernel_init),
                bias_init=nn.initializers.constant(self.bias if is_grouped else 0.0),
                dtype=self.dtype,
                conv_general_dilated=conv_general_dilated,
                name=f"conv{layer}",
            )(x)
            x = act(x)
            if layer <= 2 and not self.lrn_last:
                x = self.normalize(x)
        return x

    def normalize(self, x: jax.Array) -> jax.Array:
        """Applies local response normalization if the model has it."""
        if self.lrn is None:
            return x
        size, alpha, beta, k = self.lrn
        return local_response_norm(x, size=size, alpha=alpha, beta=beta, k=k)

    def head(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Applies fc6, fc7 and the logits."""
        dense = functools.partial(nn.Dense, kernel_init=lookup_initializer(self.kernel_init))
        bias_init = nn.initializers.constant(self.bias)
        act, drop = lookup_activation(self.act), nn.Dropout(self.dropout, deterministic=not train)
        x = adaptive_avg_pool(x, size=(6, 6)).reshape(x.shape[0], -1)
        for name in ("fc6", "fc7"):
            x = drop(x) if self.drop_inputs else x
            x = act(dense(self.hidden, bias_init=bias_init, dtype=self.dtype, name=name)(x))
            x = x if self.drop_inputs else drop(x)
        wide = jnp.promote_types(jnp.float32, self.dtype)
        return dict(fc7=x, logits=dense(self.num_classes, dtype=wide, name="head")(x))


CARD = dict(
    module=AlexNet,
    task="classification",
    input=(224, 224, 3),
    paper="Krizhevsky 2014, One Weird Trick for Parallelizing Convolutional Neural Networks",
    preprocessing=dict(**IMAGENET_NORM, crop=0.875),
)

GROUPED = dict(
    widths=(96, 256, 384, 384, 256),
    groups=2,
    padding=0,
    bias=1.0,  # Caffe's AlexNet: 0.1
    drop_inputs=False,
    kernel_init="small_normal",  # section 5; Caffe: 0.005 for fc6 and fc7
)
ALEXNET_2012 = dict(
    input=(227, 227, 3),
    paper="Krizhevsky, Sutskever, Hinton 2012, ImageNet Classification with Deep "
    "Convolutional Neural Networks",
    # section 2: the mean is subtracted from pixels of 0 to 255
    preprocessing=dict(mean=IMAGENET_MEAN, std=(1 / 255,) * 3, crop=227 / 256),
)

VARIANTS = {  # fields of AlexNet; parameters
    "alexnet": dict(  # 61,100,840
        card=dict(reported="ImageNet top-1 56.522 %, top-5 79.066 % (torchvision)"),
    ),
    "alexnet_2012": dict(  # 60,965,224
        **GROUPED,
        lrn=(5, 5e-4, 0.75, 2.0),  # the paper's alpha of 1e-4 is not divided by the size
        card=dict(**ALEXNET_2012, reported="ILSVRC-2010 test error: top-1 37.5 %, top-5 17.0 %"),
    ),
    "caffenet": dict(  # 60,965,224; the AlexNet of FCN-AlexNet and R-CNN
        **GROUPED, lrn=(5, 1e-4, 0.75, 1.0), lrn_last=True, card=ALEXNET_2012
    ),
    "rcnn_alexnet": dict(  # 56,954,261; the classes of VOC and the background, on warped regions
        **GROUPED,
        lrn=(5, 1e-4, 0.75, 1.0),
        lrn_last=True,
        num_classes=21,
        card=dict(
            input=(227, 227, 3),
            paper="Girshick et al. 2014, Rich Feature Hierarchies for Accurate Object Detection "
            "and Semantic Segmentation",
            preprocessing=dict(mean=IMAGENET_MEAN, std=(1 / 255,) * 3),
            reported="Pascal VOC 2007 test: mAP 54.2 % by SVMs, 58.5 % with box regression",
        ),
    ),
}
