"""AlexNet: of 2012, on two groups, and of 2014, on one tower."""

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

KERNELS = (11, 5, 3, 3, 3)
STAGES = ((1,), (2,), (3, 4, 5))  # the convolutions between two poolings, counted from 1


@final
class AlexNet(nn.Module):
    """`[B, H, W, C] -> {stage1, stage2, stage3, pooled [B, D], fc7 [B, 4096], logits [B, K]}`.

    The stages are what the three max-poolings see: convolutions 1, 2 and 5, of stride 4, 8 and 16.
    `pooled` is the mean of the last pooling's map; the head flattens it, by rows, columns and
    channels, after averaging it to 6 x 6 where the image has another size than the card's.
    `num_classes=0` leaves fc6, fc7 and the logits out. An image too small for three poolings, of
    less than 63 x 63 (without padding 67 x 67), raises ValueError.

    `groups` parts convolutions 2, 4 and 5; `padding` is the first convolution's, a number or
    "SAME"; `lrn` is (size, alpha, beta, k) of zoo.ops.local_response_norm's local_response_norm after
    convolutions 1 and 2, or with `lrn_last`, as in Caffe's CaffeNet, after the poolings behind them.
    With `ceil` a pooling's last window may be cut short, as in Caffe. `bias` is where the biases of convolutions 2, 4 and 5, fc6 and fc7 start,
    the others at 0. Dropout is on the inputs of fc6 and fc7, or where `drop_inputs` is False on
    their outputs. `remat` recomputes a stage's maps in the backward pass instead of keeping them.

    Source: Krizhevsky et al. 2012, ImageNet Classification with Deep Convolutional Neural Networks,
    section 3; Krizhevsky 2014, One Weird Trick for Parallelizing Convolutional Neural Networks, as
    in torchvision (whose biases start at random, not at 0).

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
            raise ValueError(f"AlexNet takes images of {side} x {side} or more, got {image.shape}")
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
        act = lookup_activation(self.act)
        for layer in layers:
            parted = layer in (2, 4, 5)
            x = nn.Conv(
                self.widths[layer - 1],
                (KERNELS[layer - 1],) * 2,
                strides=4 if layer == 1 else 1,
                padding=self.padding if layer == 1 else KERNELS[layer - 1] // 2,
                feature_group_count=self.groups if parted else 1,
                kernel_init=lookup_initializer(self.kernel_init),
                bias_init=nn.initializers.constant(self.bias if parted else 0.0),
                dtype=self.dtype,
                conv_general_dilated=conv_general_dilated,
                name=f"conv{layer}",
            )(x)
            x = act(x)
            if layer <= 2 and not self.lrn_last:
                x = self.normalize(x)
        return x

    def normalize(self, x: jax.Array) -> jax.Array:
        if self.lrn is None:
            return x
        size, alpha, beta, k = self.lrn
        return local_response_norm(x, size=size, alpha=alpha, beta=beta, k=k)

    def head(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
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
    preprocessing=dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop=0.875),
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
    # section 2: the mean is subtracted, and pixels stay between 0 and 255
    preprocessing=dict(mean=(0.485, 0.456, 0.406), std=(1 / 255,) * 3, crop=227 / 256),
)

VARIANTS = {  # fields of AlexNet; parameters
    "alexnet": dict(  # 61,100,840
        card=dict(reported="ImageNet top-1 56.522 %, top-5 79.066 % (torchvision)"),
    ),
    "alexnet_2012": dict(  # 60,965,224
        **GROUPED,
        lrn=(5, 5e-4, 0.75, 2.0),  # the paper's alpha is 1e-4, not divided
        card=dict(**ALEXNET_2012, reported="ILSVRC-2010 test error: top-1 37.5 %, top-5 17.0 %"),
    ),
    "caffenet": dict(  # 60,965,224; what FCN-AlexNet and R-CNN call AlexNet
        **GROUPED, lrn=(5, 1e-4, 0.75, 1.0), lrn_last=True, card=ALEXNET_2012
    ),
    "rcnn_alexnet": dict(  # 56,954,261; the classes of VOC after the background, of warped regions
        **GROUPED,
        lrn=(5, 1e-4, 0.75, 1.0),
        lrn_last=True,
        num_classes=21,
        card=dict(
            input=(227, 227, 3),
            paper="Girshick et al. 2014, Rich Feature Hierarchies for Accurate Object Detection "
            "and Semantic Segmentation",
            preprocessing=dict(mean=(0.485, 0.456, 0.406), std=(1 / 255,) * 3),
            reported="Pascal VOC 2007 test: mAP 54.2 % by SVMs, 58.5 % with box regression",
        ),
    ),
}
