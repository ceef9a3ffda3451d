"""Fully convolutional networks: FCN of 2015, and torchvision's FCN on a dilated ResNet."""

import functools
from collections.abc import Mapping
from typing import Any, final

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from flax.typing import Dtype

from zoo.layers.backbone import configure_backbone, select_stages
from zoo.layers.conv_norm import ConvNorm
from zoo.layers.initializer import lookup_initializer
from zoo.ops.convolution import conv_general_dilated
from zoo.ops.pooling import ceil_padding, max_pool
from zoo.ops.resize import bilinear_deconvolution, resize
from zoo.preprocess import IMAGENET_NORM

CROP_OFFSETS = (5, 9)  # crop of pool4's and pool3's scores to the upsampled scores
NORMAL = nn.initializers.normal(0.01)


@final
class FCN(nn.Module):
    """FCN of 2015 on a VGG or an AlexNet, for images of any size.

    The classifier's head slides over the last pooling as convolutions `fc6` and `fc7`, and a 1x1
    convolution scores them. For each of `scales`, the scores of an earlier pooling (pool4, then
    pool3) are added after upsampling by two. Score layers start at 0, so a finer network starts as
    the coarser one. All parameters of a coarser network have the same names in the finer one:
    `{**finer["params"], **coarser["params"]}` starts the next stage of the paper's training, and
    `convert_classifier` the first.

    Attributes:
        backbone: a VGG or an AlexNet; its poolings are rounded up as in Caffe.
        num_classes: number of classes; 0 leaves the stages alone.
        scales: factors on pool4 and pool3 before they are scored.
        upsampling: kernel of the last transposed convolution, and the offset of the image in its
            output. All transposed convolutions interpolate bilinearly without parameters.
        pad: zeros on every side of the image, one less than the published 100 where the first
            convolution pads by one. None is the modern form: padded convolutions, and scores
            resized to the next map and to the image.
        window: window of the poolings.
        kernel: kernel of `fc6`.

    Args:
        image: images [B, H, W, C].
        train: apply dropout.

    Returns:
        `stage1` ... `stageN` and `logits` [B, H, W, K].

    Raises:
        ValueError: if there are more than two scales.

    Source: Shelhamer, Long, Darrell 2016, Fully Convolutional Networks for Semantic Segmentation,
    sections 4.1 to 4.3; net.py of the authors' voc-fcn32s, voc-fcn16s, voc-fcn8s, voc-fcn8s-atonce
    and voc-fcn-alexnet, with the crops of their prototxt: 19, 27, 31, 31 and 18.

    >>> from zoo.models.vgg import VGG
    >>> image = jax.ShapeDtypeStruct((1, 375, 500, 3), jnp.float32)
    >>> out, _ = jax.eval_shape(FCN(VGG()).init_with_output, jax.random.key(0), image)
    >>> out["stage5"].shape, out["logits"].shape
    ((1, 36, 44, 512), (1, 375, 500, 21))
    """

    backbone: nn.Module
    num_classes: int = 21
    scales: tuple[float, ...] = ()
    upsampling: tuple[int, int] = (64, 19)
    pad: int | None = 99
    window: int = 2
    kernel: int = 7
    hidden: int = 4096
    dropout: float = 0.5
    remat: bool = False
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        if len(self.scales) > len(CROP_OFFSETS):
            raise ValueError(
                f"expected at most {len(CROP_OFFSETS)} scales (pool4, pool3), got {self.scales}"
            )
        self.backbone = configure_backbone(self.backbone, self, ceil=True, num_classes=0)
        super().__post_init__()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        chex.assert_rank(image, 4)
        x = image
        if self.pad is not None:
            x = jnp.pad(image, [(0, 0), (self.pad, self.pad), (self.pad, self.pad), (0, 0)])
        outputs = select_stages(self.backbone(x, train=train))
        if not self.num_classes:
            return outputs
        x = self.pool(outputs[f"stage{len(outputs)}"])
        head = FCN.fully_connected
        head = nn.remat(head, static_argnums=(2,)) if self.remat else head
        scores = self.score("score")(head(self, x, train))
        for k, scale in enumerate(self.scales):
            number = len(outputs) - 1 - k
            pool = scale * self.pool(outputs[f"stage{number}"])
            scores = self.fuse(
                scores, self.score(f"score_pool{number}")(pool), crop=CROP_OFFSETS[k]
            )
        outputs["logits"] = self.enlarge(scores, image)
        return outputs

    def pool(self, x: jax.Array) -> jax.Array:
        """Applies a max-pooling that rounds up."""
        window = (self.window, self.window)
        return max_pool(x, window, (2, 2), ceil_padding(x.shape[1:3], window, (2, 2)))

    def fully_connected(self, x: jax.Array, train: bool) -> jax.Array:
        """Applies fc6 and fc7 as convolutions."""
        for name, kernel in (("fc6", self.kernel), ("fc7", 1)):
            x = nn.Conv(
                self.hidden,
                (kernel, kernel),
                padding="SAME" if self.pad is None else "VALID",
                kernel_init=NORMAL,
                dtype=self.dtype,
                conv_general_dilated=conv_general_dilated,
                name=name,
            )(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))
        return x

    def score(self, name: str) -> nn.Conv:
        """Returns a 1x1 score layer."""
        return nn.Conv(
            self.num_classes,
            (1, 1),
            kernel_init=nn.initializers.zeros,
            dtype=jnp.promote_types(jnp.float32, self.dtype),
            conv_general_dilated=conv_general_dilated,
            name=name,
        )

    def fuse(self, scores: jax.Array, skip: jax.Array, *, crop: int) -> jax.Array:
        """Upsamples the scores by two and adds those of a skip connection.

        Args:
            scores: scores [B, h, w, K].
            skip: scores of the earlier pooling [B, H, W, K].
            crop: crop of the skip.

        Returns:
            Scores [B, 2 h + 2, 2 w + 2, K], in the modern form [B, H, W, K].
        """
        if self.pad is None:
            return resize(scores, skip.shape, "linear") + skip
        scores = bilinear_deconvolution(scores, kernel=4, stride=2)
        height, width = scores.shape[1:3]
        return scores + skip[:, crop : crop + height, crop : crop + width]

    def enlarge(self, scores: jax.Array, image: jax.Array) -> jax.Array:
        """Upsamples the scores [B, h, w, K] to the size of the image."""
        height, width = image.shape[1:3]
        if self.pad is None:
            return resize(scores, (*image.shape[:3], self.num_classes), "linear")
        kernel, crop = self.upsampling
        x = bilinear_deconvolution(scores, kernel=kernel, stride=(kernel + 1) // 2)
        return x[:, crop : crop + height, crop : crop + width]


@final
class FCNHead(nn.Module):
    """Head of torchvision's FCN: 3x3 to a quarter of the channels, norm, ReLU, dropout, 1x1.

    Args:
        x: feature map [B, H, W, C].
        train: use batch statistics and dropout.

    Returns:
        Scores [B, H, W, K].

    Source: FCNHead of torchvision's fcn, with its initializers.

    >>> head, x = FCNHead(21), jnp.ones((1, 8, 8, 64))
    >>> y, variables = head.init_with_output(jax.random.key(0), x, train=False)
    >>> y.shape, variables["params"]["reduce"]["conv"]["kernel"].shape
    ((1, 8, 8, 21), (3, 3, 64, 16))
    """

    num_classes: int
    dropout: float = 0.1
    norm: str | None = "batch"
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = ConvNorm(
            x.shape[-1] // 4,
            norm=self.norm,
            kernel_init=lookup_initializer("torch"),
            dtype=self.dtype,
            axis_name=self.axis_name,
            name="reduce",
        )(x, train=train)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Conv(
            self.num_classes,
            (1, 1),
            kernel_init=lookup_initializer("torch"),
            dtype=jnp.promote_types(jnp.float32, self.dtype),
            conv_general_dilated=conv_general_dilated,
            name="score",
        )(x)


@final
class DilatedFCN(nn.Module):
    """torchvision's FCN on a dilated backbone, for images of any size.

    A head scores the last stage, and an auxiliary head the stage before. Both outputs are resized
    to the image.

    Attributes:
        backbone: any backbone with stages; it gets `dtype`, `axis_name`, `remat` and `scan`.
        num_classes: number of classes; 0 removes the heads.
        auxiliary: add the auxiliary head, whose loss has weight 0.5 in torchvision's training.
        output_stride: set on the backbone, which must have that field; None keeps its own.
        norm: norm of the heads.
        dropout: dropout rate of the heads.

    Args:
        image: images [B, H, W, C].
        train: use batch statistics and dropout.

    Returns:
        `stage1` ..., `logits` and `auxiliary_logits` [B, H, W, K].

    Source: torchvision's fcn_resnet50, which computes the same; the auxiliary head is Zhao et al.
    2017, Pyramid Scene Parsing Network, section 3.3.

    >>> from zoo.models.resnet import ResNet
    >>> model = DilatedFCN(ResNet((1, 1, 1, 1), block="basic"), num_classes=11)
    >>> image = jax.ShapeDtypeStruct((1, 90, 120, 3), jnp.float32)
    >>> out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    >>> out["stage4"].shape, out["logits"].shape
    ((1, 12, 15, 512), (1, 90, 120, 11))
    """

    backbone: nn.Module
    num_classes: int = 21
    auxiliary: bool = True
    output_stride: int | None = 8
    dropout: float = 0.1
    norm: str | None = "batch"
    remat: bool = False
    scan: bool = False
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        backbone_fields = (
            {} if self.output_stride is None else {"output_stride": self.output_stride}
        )
        self.backbone = configure_backbone(self.backbone, self, num_classes=0, **backbone_fields)
        super().__post_init__()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        chex.assert_rank(image, 4)
        outputs = select_stages(self.backbone(image, train=train))
        if not self.num_classes:
            return outputs
        head = functools.partial(
            FCNHead,
            self.num_classes,
            dropout=self.dropout,
            norm=self.norm,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )
        *_, previous, last = outputs.values()
        scores = {"logits": head(name="head")(last, train=train)}
        if self.auxiliary:
            scores["auxiliary_logits"] = head(name="auxiliary")(previous, train=train)
        shape = (*image.shape[:3], self.num_classes)
        return outputs | {name: resize(x, shape, "linear") for name, x in scores.items()}


def convert_classifier(
    variables: Mapping[str, Any], classifier: Mapping[str, Any]
) -> dict[str, Any]:
    """Initializes an FCN from a trained classifier: fc6 and fc7 become convolutions.

    The convolutions compute the same where they cover the map that the dense layers read. The score
    layers stay the FCN's, and the classifier's head is dropped.

    Args:
        variables: variables of the FCN.
        classifier: variables of a VGG or an AlexNet, as loaded.

    Returns:
        Variables of the FCN with the classifier's weights.

    Raises:
        ValueError: if the architectures differ.

    Source: Shelhamer, Long, Darrell 2016, section 4.1, figure 2; transplant of their surgery.py.

    >>> from zoo.models.vgg import VGG
    >>> image = jnp.zeros((1, 32, 32, 3))
    >>> fields, key = dict(widths=(1, 1, 1, 1, 2), hidden=3), jax.random.key(0)
    >>> of_classifier = jax.jit(VGG(**fields).init)(key, image)
    >>> fresh = jax.jit(FCN(VGG(**fields), pad=None, hidden=3).init)(key, image)
    >>> of_classifier["params"]["fc6"]["kernel"].shape
    (98, 3)
    >>> convert_classifier(fresh, of_classifier)["params"]["fc6"]["kernel"].shape
    (7, 7, 2, 3)
    """
    source: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(dict(classifier))
    converted: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(dict(variables))
    source_paths = {}  # path in the classifier by path in the FCN
    for path in converted:
        if path[1] in ("backbone", "fc6", "fc7"):
            source_paths[path] = (path[0], *path[2:]) if path[1] == "backbone" else path
    extra = {path for path in source if path[1] != "head"} ^ set(source_paths.values())
    extra |= {
        source_path
        for path, source_path in source_paths.items()
        if source_path in source and source[source_path].size != converted[path].size
    }
    if extra:
        names = ", ".join(sorted("/".join(path) for path in extra))
        raise ValueError(f"expected a classifier with the tensors of the FCN, but {names}")
    for path, source_path in source_paths.items():
        converted[path] = source[source_path].reshape(converted[path].shape)
    return traverse_util.unflatten_dict(converted)


CARD = dict(
    module=FCN,
    task="segmentation",
    input=(500, 500, 3),
    paper="Shelhamer, Long, Darrell 2016, Fully Convolutional Networks for Semantic Segmentation",
    preprocessing=IMAGENET_NORM,  # as the initial classifiers; the authors subtract the mean alone
)

RESNET_FIELDS = dict(module=DilatedFCN, input=(520, 520, 3))
VOC_INPUT = "PASCAL VOC 2011 seg11valid: mean IoU {} % (the authors)"
COCO_INPUT = "COCO val2017, VOC's classes: mean IoU {} %, pixel accuracy {} % (torchvision)"

VARIANTS = {  # fields of FCN, and of DilatedFCN; parameters
    "fcn32s_vgg16": dict(
        backbone="vgg16", card=dict(reported=VOC_INPUT.format(63.6))
    ),  # 134,346,581
    "fcn16s_vgg16": dict(  # 134,357,354
        backbone="vgg16",
        scales=(1.0,),
        upsampling=(32, 27),
        card=dict(reported=VOC_INPUT.format("65.0")),
    ),
    "fcn8s_vgg16": dict(  # 134,362,751
        backbone="vgg16",
        scales=(1.0, 1.0),
        upsampling=(16, 31),
        card=dict(reported=VOC_INPUT.format(65.5) + ", seg12test 67.2 %"),
    ),
    "fcn8s_atonce": dict(  # 134,362,751
        backbone="vgg16",
        scales=(0.01, 0.0001),
        upsampling=(16, 31),
        card=dict(reported=VOC_INPUT.format(65.4)),
    ),
    "fcn32s_alexnet": dict(  # 56,954,261
        backbone="caffenet",
        upsampling=(63, 18),
        pad=100,
        window=3,
        kernel=6,
        card=dict(
            preprocessing=dict(mean=IMAGENET_NORM["mean"], std=(1 / 255,) * 3),
            reported=VOC_INPUT.format("48.0"),
        ),
    ),
    "fcn_resnet50": dict(  # 35,322,218, without the auxiliary head 32,957,013
        backbone="resnet50", card=dict(**RESNET_FIELDS, reported=COCO_INPUT.format(60.5, 91.4))
    ),
    "fcn_resnet101": dict(  # 54,314,346, without the auxiliary head 51,949,141
        backbone="resnet101", card=dict(**RESNET_FIELDS, reported=COCO_INPUT.format(63.7, 91.9))
    ),
}
