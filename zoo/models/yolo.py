"""YOLO's first version: of the paper, of darknet, tiny; and its grid over any backbone."""

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

MAX_CANDIDATES = (
    1000  # boxes of a class that the suppression of overlaps looks at: the best of an image
)
LEAKY = functools.partial(nn.leaky_relu, negative_slope=0.1)
uniform_init = nn.initializers.variance_scaling(
    2 / 3, "fan_in", "uniform"
)  # darknet's of every layer
local_init = nn.initializers.variance_scaling(2 / 3, "fan_in", "uniform", batch_axis=(0, 1))

Layer = tuple[int, int, int] | None  # width, kernel and stride of a convolution; None pools
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
    """`[H, W, 5 P + K], [2] -> {boxes [M, 4], scores [M], labels [M], valid [M]}`, best first.

    A box's score for a class is its confidence times the cell's probability of the class; those
    over `threshold` count, unless a better one of the class overlaps them by more than `overlap`.
    `size` (height, width), in pixels as `canvas`, is what they are clipped to afterwards, without
    those that lie outside. M is `count`.

    Source: Redmon et al. 2016, You Only Look Once, section 2.3; get_detection_boxes and do_nms_sort
    of darknet.

    >>> grid = jnp.array([0.0, 1.0, 0.5, 0.5, 0.5, 1.0, 1.0]).reshape(1, 1, 7)
    >>> rule = dict(classes=2, score_thresh=0.1, nms_thresh=0.5, detections_per_img=1)
    >>> found = postprocess_detections(grid, jnp.array([6, 8]), canvas=(8, 8), **rule)
    >>> found["boxes"].tolist(), found["labels"].tolist(), found["scores"].tolist()
    ([[0.0, 0.0, 8.0, 6.0]], [1], [0.5])
    """
    ours = split_grid(grid, classes=classes)
    high, wide = canvas
    boxes = decode_grid_boxes(ours.boxes).reshape(-1, 4)
    boxes = boxes * jnp.array([[wide, high, wide, high]], grid.dtype)
    inside = clip_boxes(boxes, size)
    # darknet's linear outputs can both be less than 0, whose product would be a score
    seen = (ours.confidence.reshape(-1) > 0) & (box_area(inside) > 0)
    scores = (ours.confidence[..., None] * ours.classes[..., None, :]).reshape(-1)
    labels = jnp.arange(scores.size, dtype=jnp.int32) % classes
    index, valid = batched_nms(
        jnp.repeat(boxes, classes, 0),
        scores,
        labels,
        valid=jnp.repeat(seen, classes) & (scores > score_thresh),
        iou_threshold=nms_thresh,
        max_outputs=detections_per_img,
    )
    boxes = inside[index // classes]
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
    """`[B, H, W, 5 P + K], [B, h, w, C] -> {boxes [B, M, 4], ...}` by the fields of a YOLO.

    `targets` may hold "size" [B, 2], to which boxes are clipped instead of to the image.

    Source: see detections.

    >>> grid, image = jnp.zeros((2, 1, 1, 7)), jnp.zeros((2, 8, 8, 3))
    >>> add_detections(YOLO(num_classes=2, detections=5), grid, image)["boxes"].shape
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
        score_thresh=model.threshold,
        nms_thresh=model.overlap,
        detections_per_img=model.detections,
    )
    return jax.vmap(one)(grid, sizes)


@final
class YOLO(nn.Module):
    """`[B, H, W, C] -> {stage1 ..., grid [B, S, S, 5 P + K], boxes [B, M, 4], scores, labels, valid}`.

    `layers` are (width, kernel, stride) of convolutions, and None for a max-pooling, by which they
    halve the map down to S = H / 64; the stages are the maps of stride 4, 8, ... before the next
    halving. Then, where they are not 0, a locally connected layer of `local` channels, a dense one
    of `hidden` units, and dropout after either, and the dense layer of the grid: for each cell K
    class probabilities, the confidences of `boxes` (P) boxes, and their places (zoo.ops.yolo_grid's
    cells). All of it is linear at the end, and the loss zoo.losses.yolo_v1.

    Boxes come in evaluation alone; see `postprocess_detections` for them, their `threshold` and `overlap`. M is
    the field `postprocess_detections`. `truth` may hold "size" [B, 2], the picture's part of each image. A net
    takes images of the size that it was initialized with. `num_classes=0`: the stages alone.

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
    threshold: float = 0.001
    overlap: float = 0.5
    detections: int = 100
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
        """Convolutions from that of this number on, and a pooling before them where it is told."""
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
        """`[B, S, S, C] -> [B, S, S, 5 P + K]`: every cell sees all of the image."""
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
            x = drop(LEAKY(local(self.fitting(x, "local"))))
        x = x.reshape(len(x), -1)
        if self.hidden:
            dense = nn.Dense(self.hidden, kernel_init=uniform_init, dtype=self.dtype, name="hidden")
            x = drop(LEAKY(dense(self.fitting(x, "hidden"))))
        wide = jnp.promote_types(jnp.float32, self.dtype)
        dense = nn.Dense(math.prod(shape[1:]), kernel_init=uniform_init, dtype=wide, name="cells")
        return dense(self.fitting(x, "cells")).reshape(shape)

    def fitting(self, x: jax.Array, layer: str) -> jax.Array:
        """x itself; ValueError where the layer's weights are of another size of images."""
        if self.has_variable("params", layer):
            kernel = self.get_variable("params", layer)["kernel"]
            cells = kernel.shape[:2] if layer == "local" else kernel.shape[:1]
            if cells != (x.shape[1:3] if layer == "local" else x.shape[1:]):
                raise ValueError(
                    f"the dense layers of a YOLO have weights for one size of images: {layer} for "
                    f"maps of {cells}, got {x.shape[1:]}; resize the images to that which it was "
                    "trained on"
                )
        return x


def halves_size(layer: Layer) -> bool:
    """`[H, W] -> [H / 2, W / 2]`: whether a layer does so.

    Source: see YOLO.

    >>> halves_size(None), halves_size((64, 7, 2)), halves_size((16, 3, 1))
    (True, True, False)
    """
    return layer is None or layer[2] == 2


def split_blocks(layers: tuple[Layer, ...]) -> list[tuple[Layer, ...]]:
    """`[layer, ...] -> [[layer, ...], ...]`: layers parted before each that halves the map.

    Source: see YOLO.

    >>> split_blocks(((16, 3, 1), None, (32, 3, 1), (32, 3, 2)))
    [((16, 3, 1),), (None, (32, 3, 1)), ((32, 3, 2),)]
    """
    parts: list[tuple[Layer, ...]] = []
    for layer in layers:
        if halves_size(layer) or not parts:
            parts.append(())
        parts[-1] = (*parts[-1], layer)
    return parts


@final
class YOLOGrid(nn.Module):
    """`[B, H, W, C] -> {stage1 ..., grid [B, h, w, 5 P + K], boxes [B, M, 4], scores, labels, valid}`.

    YOLO's grid on a `backbone`, of images of any size: on its stage of `stride`, two convolutions
    3x3 of `width` channels and a 1x1, so that h = H / stride. The channels of a cell, the loss and
    the fields are YOLO's; places begin in the middle of their cell, at a quarter of the image's sides.
    `dtype`, `axis_name`, `remat` and `scan` are the backbone's too. Stages that are deeper than
    `stride` have weights without a use: a backbone that ends there is better.

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
    threshold: float = 0.001
    overlap: float = 0.5
    detections: int = 100
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
        x = self.of_stride(outputs, image)
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

    def of_stride(self, outputs: Mapping[str, jax.Array], image: jax.Array) -> jax.Array:
        """The stage of `stride`; ValueError that tells those there are."""
        axis = 1 if image.shape[1] >= image.shape[2] else 2  # which rounding tells the least about
        strides = {
            2 ** round(math.log2(image.shape[axis] / x.shape[axis])): x for x in outputs.values()
        }
        if self.stride not in strides:
            raise ValueError(
                f"stride {self.stride} is none of the backbone's, which are "
                f"{', '.join(map(str, sorted(strides)))}"
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
            preprocessing=dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        ),
    ),
}
