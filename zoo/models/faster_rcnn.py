"""Faster R-CNN: on a feature pyramid as in torchvision, and the network of 2015 on VGG-16."""

from collections.abc import Sequence
from functools import partial
from typing import Any, final

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from zoo.heads.fpn import FPN
from zoo.heads.roi import (
    BoxHead,
    RoIConfig,
    feature_scale,
    infer_num_classes,
    pool_from_pyramid,
)
from zoo.heads.rpn import RPNConfig, RPNHead, pyramid_anchors
from zoo.heads.targets import Targets, image_sizes
from zoo.heads.two_stage import prefixed_fields, propose_and_classify, single_map_head
from zoo.layers.backbone import configure_backbone, select_stages
from zoo.ops.anchors import grid_anchors, paper_anchors
from zoo.preprocess import IMAGENET_NORM

TrainEvalPair = tuple[int, int]  # in training, in evaluation


@final
class FasterRCNN(nn.Module):
    """Faster R-CNN on a feature pyramid.

    The defaults are torchvision's. The fields that begin with `rpn_` and `box_` are those of
    `zoo.heads.rpn.RPNConfig` and `zoo.heads.roi.RoIConfig`.

    Attributes:
        backbone: any backbone with stages; it gets `dtype`, `axis_name` and `scan`.
        num_classes: number of classes K without the background; 0 leaves the stages alone.
        width: channels of the pyramid.
        hidden: units of the dense layers of the head.
        anchor_sizes: anchor sizes of each level. The levels are the last stages of the backbone
            and one more.
        aspect_ratios: height / width of the anchors.
        norm: norm of the backbone; None keeps its own. "frozen" does not learn.
        roi_pool_size: cells of RoIAlign along each side.
        canonical_box_size: side of the boxes that are pooled from the map of stride 16.

    Args:
        image: padded images [B, H, W, C].
        targets: in evaluation None, or `size` [B, 2], the size of each image on its canvas; in
            training also `boxes` [B, N, 4], `labels` [B, N] and `box_valid` [B, N].
        train: sample for the losses (random stream "sample") instead of detecting.

    Returns:
        `stage1` ... `stageN`, and in evaluation `boxes` [B, M, 4], `scores`, `labels`, `valid`
        [B, M], `rpn_logits` [B, A], `rpn_deltas` [B, A, 4], `proposals` [B, P, 4],
        `proposal_valid` [B, P], `roi_logits` [B, P, K + 1], background first, and `roi_deltas`
        [B, P, K + 1, 4]; in training the samples of `zoo.losses.rcnn_losses`.

    Source: Ren et al. 2015, Faster R-CNN; Lin et al. 2017, Feature Pyramid Networks, section 4;
    torchvision's fasterrcnn_resnet50_fpn, which computes the same.

    >>> from zoo.models.resnet import ResNet
    >>> model = FasterRCNN(ResNet((1, 1, 1, 1), width=8), num_classes=3, width=16, hidden=32)
    >>> image = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)
    >>> out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    >>> out["boxes"].shape, out["labels"].shape, out["roi_logits"].shape
    ((2, 100, 4), (2, 100), (2, 1000, 4))
    """

    backbone: nn.Module
    num_classes: int = 90
    width: int = 256
    hidden: int = 1024
    dropout: float = 0.0
    anchor_sizes: tuple[tuple[int, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    norm: str | None = None
    rpn_pre_nms_top_n: TrainEvalPair = (2000, 1000)
    rpn_post_nms_top_n: TrainEvalPair = (2000, 1000)
    rpn_nms_thresh: float = 0.7
    rpn_min_size: float = 1e-3
    rpn_fg_iou_thresh: float = 0.7
    rpn_bg_iou_thresh: float = 0.3
    rpn_batch_size_per_image: int = 256
    rpn_positive_fraction: float = 0.5
    roi_pool_size: int = 7
    canonical_box_size: float = 224.0
    box_fg_iou_thresh: float = 0.5
    box_bg_iou_thresh: float = 0.5
    box_batch_size_per_image: int = 512
    box_positive_fraction: float = 0.25
    box_score_thresh: float = 0.05
    box_nms_thresh: float = 0.5
    box_detections_per_img: int = 100
    scan: bool = False
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        fields: dict[str, Any] = {} if self.norm is None else {"norm": self.norm}
        self.backbone = configure_backbone(self.backbone, self, num_classes=0, **fields)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, image: jax.Array, targets: Targets | None = None, *, train: bool = False
    ) -> dict[str, jax.Array]:
        chex.assert_rank(image, 4)
        outputs = select_stages(self.backbone(image, train=train))
        if not self.num_classes:
            return outputs
        canvas = (image.shape[1], image.shape[2])
        maps = last_stages(list(outputs.values()), self.anchor_sizes)
        levels = FPN(self.width, dtype=self.dtype, name="fpn")(maps)
        anchors = pyramid_anchors(
            levels, canvas, sizes=self.anchor_sizes, ratios=self.aspect_ratios
        )
        per_cell = len(self.anchor_sizes[0]) * len(self.aspect_ratios)
        rpn = RPNHead(per_cell, self.width, dtype=self.dtype, name="rpn")
        pool = partial(
            pool_from_pyramid,
            canvas=canvas,
            size=(self.roi_pool_size, self.roi_pool_size),
            canonical_box_size=self.canonical_box_size,
        )
        head = BoxHead(self.num_classes, self.hidden, self.dropout, dtype=self.dtype, name="head")
        dtype = jnp.promote_types(jnp.float32, self.dtype)
        return outputs | propose_and_classify(
            *rpn(levels),
            [jnp.asarray(rows, dtype) for rows in anchors],
            head=lambda rois: head(jax.vmap(pool)(levels[:-1], rois), train=train),
            sizes=image_sizes(image, targets),
            rpn=RPNConfig(**prefixed_fields(self, "rpn_")),
            box=RoIConfig(**prefixed_fields(self, "box_")),
            targets=targets,
            key=self.make_rng("sample") if train else None,
        )


@final
class FasterRCNN2015(nn.Module):
    """Faster R-CNN as published in 2015: on the last stage of the backbone.

    The RPN has a 3x3 convolution of `width` channels, nine anchors per cell (only anchors inside
    the image are trained) and a softmax of two outputs. Boxes include their last pixel
    (`pixel_offset` 1), and RoI pooling replaces RoIAlign. It has the fields of `FasterRCNN`.

    Args:
        image: padded images [B, H, W, C].
        targets: see `FasterRCNN`.
        train: sample for the losses (random stream "sample") instead of detecting.

    Returns:
        `stage1` ... `stageN` and the outputs of `FasterRCNN`, such as `boxes` [B, M, 4].

    Source: Ren et al. 2015, Faster R-CNN, approximate joint training, as in py-faster-rcnn's
    faster_rcnn_end2end.

    >>> from zoo.models.vgg import VGG
    >>> model = FasterRCNN2015(VGG(widths=(2, 2, 2, 2, 4)), num_classes=3, width=8, hidden=8)
    >>> image = jax.ShapeDtypeStruct((1, 64, 96, 3), jnp.float32)
    >>> out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    >>> out["boxes"].shape, out["rpn_logits"].shape
    ((1, 100, 4), (1, 216))
    """

    backbone: nn.Module
    num_classes: int = 20
    width: int = 512
    hidden: int = 4096
    dropout: float = 0.5
    norm: str | None = None
    rpn_pre_nms_top_n: TrainEvalPair = (12000, 6000)
    rpn_post_nms_top_n: TrainEvalPair = (2000, 300)
    rpn_nms_thresh: float = 0.7
    rpn_min_size: float = 16.0
    rpn_fg_iou_thresh: float = 0.7
    rpn_bg_iou_thresh: float = 0.3
    rpn_batch_size_per_image: int = 256
    rpn_positive_fraction: float = 0.5
    roi_pool_size: int = 7
    box_fg_iou_thresh: float = 0.5
    box_bg_iou_thresh: float = 0.5
    box_batch_size_per_image: int = 128
    box_positive_fraction: float = 0.25
    box_score_thresh: float = 0.05
    box_nms_thresh: float = 0.3
    box_detections_per_img: int = 100
    scan: bool = False
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        fields: dict[str, Any] = {} if self.norm is None else {"norm": self.norm}
        if hasattr(self.backbone, "ceil"):
            fields["ceil"] = True  # poolings round up, as in Caffe
        self.backbone = configure_backbone(self.backbone, self, num_classes=0, **fields)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, image: jax.Array, targets: Targets | None = None, *, train: bool = False
    ) -> dict[str, jax.Array]:
        chex.assert_rank(image, 4)
        outputs = select_stages(self.backbone(image, train=train))
        if not self.num_classes:
            return outputs
        x = outputs[f"stage{len(outputs)}"]
        scale = feature_scale(image.shape[1], x.shape[1])
        stride, cell = round(1 / scale), paper_anchors(first=0)
        anchors = grid_anchors(cell, (x.shape[1], x.shape[2]), (stride, stride))
        rpn = RPNHead(len(cell), self.width, softmax=True, dtype=self.dtype, name="rpn")
        dtype = jnp.promote_types(jnp.float32, self.dtype)
        return outputs | propose_and_classify(
            *rpn([x]),
            [jnp.asarray(anchors, dtype)],
            head=single_map_head(self, x, scale, train=train),
            sizes=image_sizes(image, targets),
            rpn=RPNConfig(
                **prefixed_fields(self, "rpn_"),
                pixel_offset=1.0,
                inside_only=True,
                filter_small_first=True,
            ),
            box=RoIConfig(**prefixed_fields(self, "box_"), pixel_offset=1.0),
            targets=targets,
            key=self.make_rng("sample") if train else None,
        )


def last_stages(
    maps: Sequence[jax.Array], anchor_sizes: Sequence[Sequence[int]]
) -> list[jax.Array]:
    """Selects the backbone stages of a pyramid: one less than there are tuples of anchor sizes.

    Args:
        maps: backbone stages [[B, h, w, C], ...].
        anchor_sizes: anchor sizes of each level.

    Returns:
        The last stages.

    Raises:
        ValueError: if the backbone has too few stages.

    >>> maps = [jnp.zeros((1, side, side, 8)) for side in (32, 16, 8)]
    >>> [stage.shape[1] for stage in last_stages(maps, ((64,), (128,), (256,)))]
    [16, 8]
    """
    count = len(anchor_sizes) - 1
    if not 1 <= count <= len(maps):
        raise ValueError(
            f"expected anchor_sizes of 2 to {len(maps) + 1} levels, one more than stages of the "
            f"backbone, got {len(anchor_sizes)}: {anchor_sizes}"
        )
    return list(maps[-count:])


CARD = dict(
    module=FasterRCNN,
    task="detection",
    input=(800, 800, 3),
    paper="Ren, He, Girshick, Sun 2015, Faster R-CNN: Towards Real-Time Object Detection with "
    "Region Proposal Networks",
    preprocessing=IMAGENET_NORM,
    infer_fields=infer_num_classes,
)

VARIANTS = {  # fields of FasterRCNN and FasterRCNN2015; parameters
    "fasterrcnn_resnet50_fpn": dict(  # 41,755,286
        backbone="resnet50",
        norm="frozen",
        card=dict(
            preprocessing=dict(**IMAGENET_NORM, size=(800, 1344), sides=(800, 1333)),
            reported="COCO val2017: box AP 37.0 % (torchvision)",
        ),
    ),
    "fasterrcnn_vgg16": dict(  # 137,078,239
        backbone="vgg16",
        card=dict(
            module=FasterRCNN2015,
            input=(600, 1000, 3),
            preprocessing=dict(**IMAGENET_NORM, sides=(600, 1000)),
            reported="PASCAL VOC 2007 test: mAP 69.9 %, trained on 07+12 73.2 % (the authors)",
        ),
    ),
    "faster_rcnn": dict(  # 12,319,672
        backbone="resnet18",
        num_classes=20,
        width=64,
        hidden=256,
        rpn_pre_nms_top_n=(500, 300),
        rpn_post_nms_top_n=(256, 128),
        box_batch_size_per_image=64,
        card=dict(input=(320, 320, 3)),
    ),
}
