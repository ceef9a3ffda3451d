"""FCN: of 2015 over VGG and AlexNet, and over a dilated ResNet as torchvision has it."""

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

CROP_OFFSETS = (5, 9)  # where pool4's scores and pool3's begin to meet those from below
NORMAL = nn.initializers.normal(0.01)


@final
class FCN(nn.Module):
    """`[B, H, W, C] -> {stage1 ... stageN, logits [B, H, W, K]}`, images of any size.

    `backbone` is a VGG or an AlexNet. The head of the classifier slides over its last pooling as
    convolutions fc6, of `kernel` x `kernel`, and fc7, and a 1x1 scores them; one `score_pool` more
    for each of `scales`, by which pool4, then pool3 are multiplied first, is added to the scores
    enlarged twice. Score layers begin at 0, so that a finer net begins as the coarser does. All of
    a coarser net's weights stand under the same names in the finer:
    `{**finer["params"], **coarser["params"]}` begins the next stage of the paper's training, and
    `convert_classifier` the first.

    As published, the image gets `pad` zeros on every side, one less than 100 where the first
    convolution adds one itself; `upsampling` is the kernel of the last transposed convolution, and
    where in its map the image begins. All of them interpolate, without weights. `pad` None is the
    modern form: convolutions that keep the size, and scores resized to the next map's and to the
    image's.

    `window` is the pooling's. `dtype`, `axis_name` and `remat` are the backbone's too, whose
    poolings are rounded up as in Caffe (`ceil`). `num_classes=0` leaves all but the stages out.

    Source: Shelhamer, Long, Darrell 2016, Fully Convolutional Networks for Semantic Segmentation,
    sections 4.1 to 4.3; net.py of the authors' voc-fcn32s, voc-fcn16s, voc-fcn8s, voc-fcn8s-atonce
    and voc-fcn-alexnet, and the crops in their prototxt: 19, 27, 31, 31 and 18 at the end.

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
                f"scales are at most {len(CROP_OFFSETS)}, pool4's and pool3's: {self.scales}"
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
        window = (self.window, self.window)
        return max_pool(x, window, (2, 2), ceil_padding(x.shape[1:3], window, (2, 2)))

    def fully_connected(self, x: jax.Array, train: bool) -> jax.Array:
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
        return nn.Conv(
            self.num_classes,
            (1, 1),
            kernel_init=nn.initializers.zeros,
            dtype=jnp.promote_types(jnp.float32, self.dtype),
            conv_general_dilated=conv_general_dilated,
            name=name,
        )

    def fuse(self, scores: jax.Array, skip: jax.Array, *, crop: int) -> jax.Array:
        """`[B, h, w, K], [B, H, W, K] -> [B, 2 h + 2, 2 w + 2, K]`, modern `[B, H, W, K]`."""
        if self.pad is None:
            return resize(scores, skip.shape, "linear") + skip
        scores = bilinear_deconvolution(scores, kernel=4, stride=2)
        height, width = scores.shape[1:3]
        return scores + skip[:, crop : crop + height, crop : crop + width]

    def enlarge(self, scores: jax.Array, image: jax.Array) -> jax.Array:
        """`[B, h, w, K], [B, H, W, C] -> [B, H, W, K]`."""
        height, width = image.shape[1:3]
        if self.pad is None:
            return resize(scores, (*image.shape[:3], self.num_classes), "linear")
        kernel, crop = self.upsampling
        x = bilinear_deconvolution(scores, kernel=kernel, stride=(kernel + 1) // 2)
        return x[:, crop : crop + height, crop : crop + width]


@final
class FCNHead(nn.Module):
    """`[B, H, W, C] -> [B, H, W, K]`: 3x3 to a quarter of the channels, norm, ReLU, dropout, 1x1.

    Source: FCNHead of torchvision's fcn, the laws of its weights included.

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
    """`[B, H, W, C] -> {stage1 ..., logits, auxiliary_logits [B, H, W, K]}`, images of any size.

    A head on the last stage of `backbone`, and with `auxiliary` one on the stage before, whose loss
    counts 0.5 in torchvision's training; both are resized to the image's size. `output_stride` is
    set on the backbone, which then has to have that field, as ResNets do; None keeps its own.

    `dtype`, `axis_name`, `remat` and `scan` are the backbone's too, `norm` and `dropout` the heads'
    alone. `num_classes=0` leaves the heads out.

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
        wished = {} if self.output_stride is None else {"output_stride": self.output_stride}
        self.backbone = configure_backbone(self.backbone, self, num_classes=0, **wished)
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
        *_, before, last = outputs.values()
        scores = {"logits": head(name="head")(last, train=train)}
        if self.auxiliary:
            scores["auxiliary_logits"] = head(name="auxiliary")(before, train=train)
        shape = (*image.shape[:3], self.num_classes)
        return outputs | {name: resize(x, shape, "linear") for name, x in scores.items()}


def convert_classifier(
    variables: Mapping[str, Any], classifier: Mapping[str, Any]
) -> dict[str, Any]:
    """`{fc6 [7, 7, 512, 4096], ...}, {fc6 [7 * 7 * 512, 4096], ...} -> {fc6 [7, 7, 512, 4096], ...}`.

    An FCN's variables, out of its own and those of a classifier, VGG or AlexNet, as loaded: its
    stages, and fc6 and fc7 as convolutions, which compute the same where they lie on the map that
    the dense layers read. The score layers stay the FCN's, the classifier's head has no use.
    ValueError where the two are not of one architecture.

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
    given: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(dict(classifier))
    made: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(dict(variables))
    places = {}  # of the classifier's, by ours
    for path in made:
        if path[1] in ("backbone", "fc6", "fc7"):
            places[path] = (path[0], *path[2:]) if path[1] == "backbone" else path
    over = {path for path in given if path[1] != "head"} ^ set(places.values())
    over |= {
        place
        for path, place in places.items()
        if place in given and given[place].size != made[path].size
    }
    if over:
        names = ", ".join(sorted("/".join(path) for path in over))
        raise ValueError(f"the classifier is not the FCN's: expected the same tensors, but {names}")
    for path, place in places.items():
        made[path] = given[place].reshape(made[path].shape)
    return traverse_util.unflatten_dict(made)


IMAGENET_NORM = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

CARD = dict(
    module=FCN,
    task="segmentation",
    input=(500, 500, 3),
    paper="Shelhamer, Long, Darrell 2016, Fully Convolutional Networks for Semantic Segmentation",
    preprocessing=IMAGENET_NORM,  # of the classifiers that it begins from here; the authors' take the mean alone
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
