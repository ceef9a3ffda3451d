"""YOLO v1: the paper's network, darknet's, the tiny one, and a grid head on any backbone."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, final

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from zoo.layers.backbone import configure_backbone, select_stages
from zoo.layers.conv_norm import ConvNorm
from zoo.ops.boxes import box_area, clip_boxes
from zoo.ops.convolution import conv_general_dilated
from zoo.ops.nms import batched_nms
from zoo.ops.pooling import max_pool
from zoo.ops.yolo_grid import decode_grid_boxes, split_grid
from zoo.preprocess import IMAGENET_NORM

LEAKY = functools.partial(nn.leaky_relu, negative_slope=0.1)
# darknet's initializer of every layer
uniform_init = nn.initializers.variance_scaling(2 / 3, "fan_in", "uniform")
local_init = nn.initializers.variance_scaling(2 / 3, "fan_in", "uniform", batch_axis=(0, 1))

Layer = tuple[int, int, int] | None  # (width, kernel, stride) of a convolution; None is a pooling
YOLO_V1_LAYERS: tuple[Layer, ...] = (
    *((64, 7, 2), None, (192, 3, 1), None),
    *((128, 1, 1), (256, 3, 1), (256, 1, 1), (512, 3, 1), None),
    *((256, 1, 1), (512, 3, 1)) * 4,
    *((512, 1, 1), (1024, 3, 1), None),
    *((512, 1, 1), (1024, 3, 1)) * 2,
    *((1024, 3, 1), (1024, 3, 2), (1024, 3, 1), (1024, 3, 1)),
)
FAST_YOLO_LAYERS: tuple[Layer, ...] = (
    *((16, 3, 1), None, (32, 3, 1), None, (64, 3, 1), None, (128, 3, 1), None),
    *((256, 3, 1), None, (512, 3, 1), None, (1024, 3, 1), (256, 3, 1)),
)


def postprocess_detections(
    grid: jax.Array,
    size: jax.Array,
    *,
    canvas: Sequence[int],
    classes: int,
    score_thresh: float,
    nms_thresh: float,
    detections_per_img: int,
) -> dict[str, jax.Array]:
    """Turns a grid into detections.

    The score of a box for a class is its confidence times the class probability of the cell. Boxes
    above the threshold go through non-maximum suppression per class and are then clipped; boxes
    outside of the image are removed.

    Args:
        grid: network output [H, W, 5 P + K].
        size: height and width [2] of the image in pixels, to which boxes are clipped.
        canvas: height and width of the padded image in pixels.
        classes: number of classes K.
        score_thresh: minimum score.
        nms_thresh: IoU above which the worse box is removed.
        detections_per_img: number M of detections.

    Returns:
        `boxes` [M, 4], `scores` [M], `labels` [M] and `valid` [M], best first.

    Source: Redmon et al. 2016, You Only Look Once, section 2.3; get_detection_boxes and do_nms_sort
    of darknet.

    >>> grid = jnp.array([0.0, 1.0, 0.5, 0.5, 0.5, 1.0, 1.0]).reshape(1, 1, 7)
    >>> options = dict(classes=2, score_thresh=0.1, nms_thresh=0.5, detections_per_img=1)
    >>> found = postprocess_detections(grid, jnp.array([6, 8]), canvas=(8, 8), **options)
    >>> found["boxes"].tolist(), found["labels"].tolist(), found["scores"].tolist()
    ([[0.0, 0.0, 8.0, 6.0]], [1], [0.5])
    """
    outputs = split_grid(grid, classes=classes)
    high, wide = canvas
    boxes = decode_grid_boxes(outputs.boxes).reshape(-1, 4)
    boxes = boxes * jnp.array([[wide, high, wide, high]], grid.dtype)
    clipped = clip_boxes(boxes, size)
    # darknet's linear outputs can both be negative, and their product would be a positive score
    is_visible = (outputs.confidence.reshape(-1) > 0) & (box_area(clipped) > 0)
    scores = (outputs.confidence[..., None] * outputs.classes[..., None, :]).reshape(-1)
    labels = jnp.arange(scores.size, dtype=jnp.int32) % classes
    index, valid = batched_nms(
        jnp.repeat(boxes, classes, 0),
        scores,
        labels,
        valid=jnp.repeat(is_visible, classes) & (scores > score_thresh),
        iou_threshold=nms_thresh,
        max_outputs=detections_per_img,
    )
    boxes = clipped[index // classes]
    return {
        "boxes": jnp.where(valid[:, None], boxes, 0.0),
        "scores": jnp.where(valid, scores[index], 0.0),
        "labels": jnp.where(valid, labels[index], 0),
        "valid": valid,
    }


def add_detections(
    model: Any,
    grid: jax.Array,
    image: jax.Array,
    *,
    targets: Mapping[str, jax.Array] | None = None,
) -> dict[str, jax.Array]:
    """Computes the detections of a batch with the fields of a YOLO model.

    Args:
        model: a YOLO or YOLOGrid.
        grid: network output [B, H, W, 5 P + K].
        image: padded images [B, h, w, C].
        targets: may hold `size` [B, 2], to which boxes are clipped instead of to the canvas.

    Returns:
        `boxes` [B, M, 4], `scores`, `labels` and `valid` [B, M].

    >>> grid, image = jnp.zeros((2, 1, 1, 7)), jnp.zeros((2, 8, 8, 3))
    >>> add_detections(YOLO(num_classes=2, detections_per_img=5), grid, image)["boxes"].shape
    (2, 5, 4)
    """
    canvas = image.shape[1:3]
    sizes = jnp.broadcast_to(jnp.array(canvas, jnp.int32), (len(image), 2))
    if targets is not None and "size" in targets:
        sizes = targets["size"]
    one = functools.partial(
        postprocess_detections,
        canvas=canvas,
        classes=model.num_classes,
        score_thresh=model.score_thresh,
        nms_thresh=model.nms_thresh,
        detections_per_img=model.detections_per_img,
    )
    return jax.vmap(one)(grid, sizes)


@final
class YOLO(nn.Module):
    """YOLO v1.

    Convolutions and poolings reduce the image by 64 to S x S cells; the stages are the maps of
    stride 4, 8, ... before the next reduction. A locally connected layer and a dense layer follow
    where they are not 0, with dropout after either, and a dense layer for the grid: K class
    probabilities, P confidences and P boxes per cell (see `zoo.ops.yolo_grid`). The outputs are
    linear; the loss is `zoo.losses.yolo_v1_loss`. A network takes only images of the size that it
    was initialized with.

    Attributes:
        num_classes: number of classes K; 0 leaves the stages alone.
        boxes: boxes P per cell.
        layers: (width, kernel, stride) of each convolution; None is a max-pooling.
        local: channels of the locally connected layer; 0 for none.
        hidden: units of the dense layer; 0 for none.
        score_thresh: minimum score of a detection.
        nms_thresh: IoU above which the worse box is removed.
        detections_per_img: number M of detections.

    Args:
        image: images [B, H, W, C].
        targets: may hold `size` [B, 2], the size of each image on the canvas.
        train: apply dropout and skip the detections.

    Returns:
        `stage1` ..., `grid` [B, S, S, 5 P + K], and in evaluation `boxes` [B, M, 4], `scores`,
        `labels` and `valid` [B, M].

    Source: Redmon et al. 2016, You Only Look Once, figure 3 and section 2.2; darknet's yolov1.cfg
    and yolov1-tiny.cfg, whose weights load (zoo.weights.formats.darknet).

    >>> image = jax.ShapeDtypeStruct((1, 448, 448, 3), jnp.float32)
    >>> out, _ = jax.eval_shape(YOLO().init_with_output, jax.random.key(0), image)
    >>> out["stage5"].shape, out["grid"].shape, out["boxes"].shape
    ((1, 7, 7, 1024), (1, 7, 7, 30), (1, 100, 4))
    """

    num_classes: int = 20
    boxes: int = 2
    layers: tuple[Layer, ...] = YOLO_V1_LAYERS
    local: int = 0
    hidden: int = 4096
    dropout: float = 0.5
    score_thresh: float = 0.001
    nms_thresh: float = 0.5
    detections_per_img: int = 100
    norm: str | None = None
    remat: bool = False
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        image: jax.Array,
        targets: Mapping[str, jax.Array] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, jax.Array]:
        chex.assert_rank(image, 4)
        block = nn.remat(YOLO.block, static_argnums=(2, 3, 4)) if self.remat else YOLO.block
        outputs, x, number, stride = {}, image, 1, 1
        for layers in split_blocks(self.layers):
            x = block(self, x, layers, number, train)
            number += len(layers) - layers.count(None)
            stride *= 2 if halves_size(layers[0]) else 1
            if stride >= 4:
                outputs[f"stage{stride.bit_length() - 2}"] = x
        if not self.num_classes:
            return outputs
        outputs["grid"] = grid = self.head(x, train=train)
        return outputs if train else outputs | add_detections(self, grid, image, targets=targets)

    def block(self, x: jax.Array, layers: tuple[Layer, ...], number: int, train: bool) -> jax.Array:
        """Applies a reduction, if any, and the convolutions from `number` on."""
        if layers[0] is None:
            x = max_pool(x, (2, 2), (2, 2))
        for k, layer in enumerate(filter(None, layers)):
            x = ConvNorm(
                *layer,
                act=LEAKY,
                norm=self.norm,
                kernel_init=uniform_init,
                dtype=self.dtype,
                axis_name=self.axis_name,
                name=f"conv{number + k}",
            )(x, train=train)
        return x

    def head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies the locally connected and dense layers: [B, S, S, C] to [B, S, S, 5 P + K]."""
        shape = (*x.shape[:3], 5 * self.boxes + self.num_classes)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        if self.local:
            local = nn.ConvLocal(
                self.local,
                (3, 3),
                padding=1,
                kernel_init=local_init,
                dtype=self.dtype,
                name="local",
            )
            x = drop(LEAKY(local(self.check_size(x, "local"))))
        x = x.reshape(len(x), -1)
        if self.hidden:
            dense = nn.Dense(self.hidden, kernel_init=uniform_init, dtype=self.dtype, name="hidden")
            x = drop(LEAKY(dense(self.check_size(x, "hidden"))))
        wide = jnp.promote_types(jnp.float32, self.dtype)
        dense = nn.Dense(math.prod(shape[1:]), kernel_init=uniform_init, dtype=wide, name="cells")
        return dense(self.check_size(x, "cells")).reshape(shape)

    def check_size(self, x: jax.Array, layer: str) -> jax.Array:
        """Returns x; raises ValueError if the layer's weights are for another image size."""
        if self.has_variable("params", layer):
            kernel = self.get_variable("params", layer)["kernel"]
            cells = kernel.shape[:2] if layer == "local" else kernel.shape[:1]
            if cells != (x.shape[1:3] if layer == "local" else x.shape[1:]):
                raise ValueError(
                    f"expected maps of {cells} for {layer}, got {x.shape[1:]}; resize the images "
                    "to the size that the model was trained on"
                )
        return x


def halves_size(layer: Layer) -> bool:
    """Returns whether a layer halves the map.

    Args:
        layer: None for a pooling layer, or channels, kernel size and stride of a convolution.

    Returns:
        True for pooling and for a stride of 2.

    >>> halves_size(None), halves_size((64, 7, 2)), halves_size((16, 3, 1))
    (True, True, False)
    """
    return layer is None or layer[2] == 2


def split_blocks(layers: tuple[Layer, ...]) -> list[tuple[Layer, ...]]:
    """Splits layers before each one that halves the map.

    Args:
        layers: layers of the network.

    Returns:
        The layers of each block.

    >>> split_blocks(((16, 3, 1), None, (32, 3, 1), (32, 3, 2)))
    [((16, 3, 1),), (None, (32, 3, 1)), ((32, 3, 2),)]
    """
    blocks: list[tuple[Layer, ...]] = []
    for layer in layers:
        if halves_size(layer) or not blocks:
            blocks.append(())
        blocks[-1] = (*blocks[-1], layer)
    return blocks


@final
class YOLOGrid(nn.Module):
    """YOLO's grid on a backbone, for images of any size.

    Two 3x3 convolutions and a 1x1 convolution on the stage of stride `stride` predict the grid of H
    / stride rows. Channels, loss and the other fields are those of `YOLO`. Initial boxes lie in the
    middle of their cell and have a quarter of the image's sides. Deeper stages of the backbone have
    parameters without use; a backbone that ends at `stride` is better.

    Attributes:
        backbone: any backbone with a stage of that stride; it gets `dtype`, `axis_name`, `remat`
            and `scan`.
        stride: stride of the cells.
        width: channels of the 3x3 convolutions.

    Args:
        image: images [B, H, W, C].
        targets: may hold `size` [B, 2], the size of each image on the canvas.
        train: use batch statistics and skip the detections.

    Returns:
        `stage1` ..., `grid` [B, h, w, 5 P + K], and in evaluation `boxes` [B, M, 4], `scores`,
        `labels` and `valid` [B, M].

    Source: Redmon et al. 2016, You Only Look Once, sections 2 and 2.1, whose dense layers are
    convolutions here, as in Redmon & Farhadi 2017, YOLO9000, section 2.

    >>> from zoo.models.resnet import ResNet
    >>> model = YOLOGrid(ResNet((1, 1, 1), block="basic"), num_classes=3, boxes=3, stride=16)
    >>> image = jax.ShapeDtypeStruct((1, 320, 416, 3), jnp.float32)
    >>> out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    >>> out["grid"].shape, out["boxes"].shape
    ((1, 20, 26, 18), (1, 100, 4))
    """

    backbone: nn.Module
    num_classes: int = 20
    boxes: int = 2
    stride: int = 32
    width: int = 256
    score_thresh: float = 0.001
    nms_thresh: float = 0.5
    detections_per_img: int = 100
    norm: str | None = "batch"
    remat: bool = False
    scan: bool = False
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        self.backbone = configure_backbone(self.backbone, self, num_classes=0)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        image: jax.Array,
        targets: Mapping[str, jax.Array] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, jax.Array]:
        chex.assert_rank(image, 4)
        outputs = select_stages(self.backbone(image, train=train))
        if not self.num_classes:
            return outputs
        x = self.find_stage(outputs, image)
        for name in ("head_0", "head_1"):
            x = ConvNorm(
                self.width,
                act=LEAKY,
                norm=self.norm,
                dtype=self.dtype,
                axis_name=self.axis_name,
                name=name,
            )(x, train=train)
        start = [0.0] * (self.num_classes + self.boxes) + [0.5] * (4 * self.boxes)
        outputs["grid"] = grid = nn.Conv(
            len(start),
            (1, 1),
            kernel_init=nn.initializers.normal(0.01),
            bias_init=lambda key, shape, dtype: jnp.asarray(start, dtype),
            dtype=jnp.promote_types(jnp.float32, self.dtype),
            conv_general_dilated=conv_general_dilated,
            name="cells",
        )(x)
        return outputs if train else outputs | add_detections(self, grid, image, targets=targets)

    def find_stage(self, outputs: Mapping[str, jax.Array], image: jax.Array) -> jax.Array:
        """Returns the stage of the given stride; raises ValueError if it is missing."""
        axis = (
            1 if image.shape[1] >= image.shape[2] else 2
        )  # the longer side has the smaller rounding error
        strides = {
            2 ** round(math.log2(image.shape[axis] / x.shape[axis])): x for x in outputs.values()
        }
        if self.stride not in strides:
            raise ValueError(
                f"expected a stride of the backbone ({', '.join(map(str, sorted(strides)))}), "
                f"got {self.stride}"
            )
        return strides[self.stride]


CARD = dict(
    module=YOLO,
    task="detection",
    input=(448, 448, 3),
    paper="Redmon, Divvala, Girshick, Farhadi 2016, You Only Look Once: Unified, Real-Time Object "
    "Detection",
    preprocessing=dict(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),  # [0, 1], as in darknet
)

VOC_2007 = "VOC 2007 mAP {} % (the paper)"

VARIANTS = {  # fields of YOLO, and of YOLOGrid; parameters
    "yolov1": dict(card=dict(reported=VOC_2007.format(63.4))),  # 271,703,550
    "yolov1_darknet": dict(  # 197,301,875
        local=256, hidden=0, boxes=3, norm="batch"
    ),
    "yolov1_tiny": dict(  # 27,095,374
        layers=FAST_YOLO_LAYERS,
        hidden=0,
        norm="batch",
        card=dict(reported=VOC_2007.format(52.7)),
    ),
    "yolo_grid": dict(  # 12,954,718
        backbone="resnet18",
        card=dict(
            module=YOLOGrid,
            preprocessing=IMAGENET_NORM,
        ),
    ),
}
