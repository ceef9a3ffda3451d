"""Faster R-CNN: over a feature pyramid as torchvision has it, and of 2015 over VGG-16."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, final

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from zoo.heads.fpn import FPN
from zoo.heads.roi import (
    BOX_CODER_WEIGHTS,
    BoxHead,
    feature_scale,
    infer_num_classes,
    pool_from_pyramid,
    postprocess_detections,
    sample_rois,
)
from zoo.heads.rpn import RPNHead, pyramid_anchors, sample_anchors
from zoo.heads.targets import Targets, image_sizes, require_keys
from zoo.layers.backbone import configure_backbone, select_stages
from zoo.ops.anchors import grid_anchors, paper_anchors
from zoo.ops.proposals import select_proposals
from zoo.ops.roi import roi_pool

Outputs = dict[str, jax.Array]
TrainEvalPair = tuple[int, int]  # in training, in evaluation
normal_init = nn.initializers.normal


@final
class FasterRCNN(nn.Module):
    """`[B, H, W, C] -> {stage1 ... stageN, boxes [B, M, 4], scores, labels, valid [B, M], ...}`.

    A region proposal network on the levels of a feature pyramid of `width` channels, and a head of
    `hidden` units on what RoIAlign cuts from them for each proposal. `sizes` are the anchors' on
    each level, which are the last stages of `backbone` and one more; each place has an anchor of
    every size and of every one of `ratios`, height to width. `canonical_box_size` is the side of the boxes
    that are cut from the map of stride 16. `norm` is set on the backbone where it is not None;
    "frozen" does not learn. All defaults are torchvision's.

    Without `pyramid` it is the net of 2015: on the backbone's last stage, 3 x 3 of `width` channels
    and nine anchors, that train where they lie within the picture; a softmax of two outputs; pixels
    that are part of the box on both sides; RoI pooling; `dropout` in the head. `sizes`, `ratios` and
    `canonical_box_size` then say nothing.

    In evaluation `truth` is None, or holds "size" [B, 2], to which boxes are clipped. Beside the M =
    `postprocess_detections` best, highest score first, there are `rpn_logits` [B, N] and `rpn_deltas` of all
    anchors, `select_proposals` [B, P, 4], `proposal_valid`, `roi_logits` [B, P, K + 1], background first,
    and `roi_deltas` [B, P, K + 1, 4].

    In training it also holds boxes, labels and box_valid, and the outputs are what
    zoo.losses.rcnn compares: of `rpn_batch_size_per_image` anchors an image `rpn_logits`, `rpn_deltas`,
    `rpn_positive`, `rpn_targets`, `rpn_valid`, of `box_batch_size_per_image` regions `roi_logits`, `roi_deltas`,
    `roi_labels` (0 the background), `roi_targets`, `roi_valid`. They are drawn with the random
    stream `sample`. Both parts learn at once; no gradient flows through the proposals.

    `dtype`, `axis_name` and `scan` are the backbone's too. `num_classes=0` leaves all but
    the stages out.

    Source: Ren et al. 2015, Faster R-CNN, approximate joint training, as in py-faster-rcnn's
    faster_rcnn_end2end; Lin et al. 2017, Feature Pyramid Networks, section 4; torchvision's
    fasterrcnn_resnet50_fpn, which computes the same.

    >>> from zoo.models.resnet import ResNet
    >>> model = FasterRCNN(ResNet((1, 1, 1, 1), width=8), num_classes=3, width=16, hidden=32)
    >>> image = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)
    >>> out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    >>> out["boxes"].shape, out["labels"].shape, out["roi_logits"].shape
    ((2, 100, 4), (2, 100), (2, 1000, 4))
    """

    backbone: nn.Module
    num_classes: int = 90
    pyramid: bool = True
    width: int = 256
    hidden: int = 1024
    dropout: float = 0.0
    sizes: tuple[tuple[int, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    norm: str | None = None
    rpn_pre_nms_top_n: TrainEvalPair = (2000, 1000)
    rpn_post_nms_top_n: TrainEvalPair = (2000, 1000)
    rpn_nms_thresh: float = 0.7
    rpn_min_size: float = 1e-3
    anchor_iou: tuple[float, float] = (0.3, 0.7)
    rpn_batch_size_per_image: int = 256
    rpn_positive_fraction: float = 0.5
    pool: int = 7
    canonical_box_size: float = 224.0
    roi_iou: float = 0.5
    box_batch_size_per_image: int = 512
    box_positive_fraction: float = 0.25
    score: float = 0.05
    nms: float = 0.5
    detections: int = 100
    scan: bool = False
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        wished: dict[str, Any] = {} if self.norm is None else {"norm": self.norm}
        if not self.pyramid and hasattr(self.backbone, "ceil"):
            wished["ceil"] = True  # Caffe's poolings
        self.backbone = configure_backbone(self.backbone, self, num_classes=0, **wished)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, image: jax.Array, targets: Targets | None = None, *, train: bool = False
    ) -> Outputs:
        chex.assert_rank(image, 4)
        outputs = select_stages(self.backbone(image, train=train))
        if not self.num_classes:
            return outputs
        _, height, width, _ = image.shape
        canvas, sizes = (height, width), image_sizes(image, targets)
        levels = self.levels(list(outputs.values()))
        anchors = self.anchors(levels, canvas)
        rpn = RPNHead(
            count_anchors_per_cell(anchors[0], levels[0]),
            self.width,
            softmax=not self.pyramid,
            dtype=self.dtype,
            name="rpn",
        )
        logits, deltas = rpn(levels)
        rois, valid = self.propose(logits, deltas, sizes, anchors, train=train)
        if train:
            keys = jax.random.split(self.make_rng("sample"), (2, len(image)))
            boxes = require_keys(targets)
            found = self.anchor_targets(keys[0], logits, deltas, anchors, boxes, sizes)
            chosen = self.roi_targets(keys[1], rois, valid, boxes)
            scores, moves = self.judge(levels, chosen.pop("rois"), canvas, train=train)
            found |= {f"roi_{name}": x for name, x in chosen.items()}
            return outputs | found | {"roi_logits": scores, "roi_deltas": moves}
        scores, moves = self.judge(levels, rois, canvas, train=train)
        finish = partial(
            postprocess_detections,
            score_thresh=self.score,
            nms_thresh=self.nms,
            detections_per_img=self.detections,
            pixel_offset=self.pixel_offset,
        )
        outputs |= jax.vmap(finish)(scores, moves, rois, valid=valid, size=sizes)
        outputs |= {"rpn_logits": logits, "rpn_deltas": deltas}
        outputs |= {"proposals": rois, "proposal_valid": valid}
        return outputs | {"roi_logits": scores, "roi_deltas": moves}

    @property
    def pixel_offset(self) -> float:
        """What a box's sides measure more than the distance of its pixels."""
        return 0.0 if self.pyramid else 1.0

    def levels(self, maps: Sequence[jax.Array]) -> list[jax.Array]:
        if not self.pyramid:
            return [maps[-1]]
        count = len(self.sizes) - 1
        if not 1 <= count <= len(maps):
            raise ValueError(
                f"sizes are those of 1 to {len(maps)} stages, which the backbone has, and of one "
                f"level more: got {len(self.sizes)}, {self.sizes}"
            )
        return FPN(self.width, dtype=self.dtype, name="fpn")(maps[-count:])

    def anchors(self, levels: Sequence[jax.Array], canvas: tuple[int, int]) -> list[jax.Array]:
        """`[[B, h, w, D], ...], (H, W) -> [[h * w * A, 4], ...]`."""
        wide = jnp.promote_types(jnp.float32, self.dtype)
        if self.pyramid:
            found = pyramid_anchors(levels, canvas, sizes=self.sizes, ratios=self.ratios)
        else:
            _, h, w, _ = levels[0].shape
            stride = round(1 / feature_scale(canvas[0], h))
            found = [grid_anchors(paper_anchors(first=0), (h, w), (stride, stride))]
        return [jnp.asarray(rows, wide) for rows in found]

    def propose(
        self,
        logits: jax.Array,
        deltas: jax.Array,
        sizes: jax.Array,
        anchors: Sequence[jax.Array],
        *,
        train: bool,
    ) -> tuple[jax.Array, jax.Array]:
        """`[B, N], [B, N, 4], [B, 2] -> [B, P, 4], [B, P]`."""
        of_one = partial(
            select_proposals,
            anchors=jnp.concatenate(anchors),
            levels=[len(rows) for rows in anchors],
            pre_nms_top_n=self.rpn_pre_nms_top_n[not train],
            post_nms_top_n=self.rpn_post_nms_top_n[not train],
            nms_thresh=self.rpn_nms_thresh,
            min_size=self.rpn_min_size,
            pixel_offset=self.pixel_offset,
            filter_small_first=not self.pyramid,
        )
        boxes, _, valid = jax.vmap(of_one)(logits, deltas, size=sizes)
        return boxes, valid

    def judge(
        self, levels: Sequence[jax.Array], rois: jax.Array, canvas: tuple[int, int], *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """`[[B, h, w, D], ...], [B, R, 4] -> [B, R, K + 1], [B, R, K + 1, 4]`."""
        size = (self.pool, self.pool)
        if self.pyramid:
            cut = partial(
                pool_from_pyramid,
                canvas=canvas,
                size=size,
                canonical_box_size=self.canonical_box_size,
            )
            pooled = jax.vmap(cut)(levels[:-1], rois)
            fields: dict[str, Any] = {}
        else:
            scale = feature_scale(canvas[0], levels[0].shape[1])
            pooled = jax.vmap(partial(roi_pool, output_size=size, spatial_scale=scale))(
                levels[0], rois
            )
            fields = {
                f"{name}_init": normal_init(deviation)
                for name, deviation in (("kernel", 0.005), ("logits", 0.01), ("deltas", 0.001))
            }
        head = BoxHead(
            self.num_classes,
            self.hidden,
            self.dropout,
            dtype=self.dtype,
            name="head",
            **fields,
        )
        return head(pooled, train=train)

    def anchor_targets(
        self,
        keys: jax.Array,
        logits: jax.Array,
        deltas: jax.Array,
        anchors: Sequence[jax.Array],
        targets: Mapping[str, jax.Array],
        sizes: jax.Array,
    ) -> Outputs:
        """Keys [B], `[B, N], [B, N, 4] -> {rpn_logits [B, n], rpn_deltas [B, n, 4], ...}`."""
        low, high = self.anchor_iou
        of_one = partial(
            sample_anchors,
            anchors=jnp.concatenate(anchors),
            bg_iou_thresh=low,
            fg_iou_thresh=high,
            batch_size=self.rpn_batch_size_per_image,
            positive_fraction=self.rpn_positive_fraction,
            pixel_offset=self.pixel_offset,
        )
        inside = {} if self.pyramid else {"inside": sizes}
        found = jax.vmap(lambda key, **each: of_one(key, **each))(
            keys, boxes=targets["boxes"], valid=targets["box_valid"], **inside
        )
        rows = found.pop("indices")
        found["logits"] = jnp.take_along_axis(logits, rows, 1)
        found["deltas"] = jnp.take_along_axis(deltas, rows[..., None], 1)
        return {f"rpn_{name}": x for name, x in found.items()}

    def roi_targets(
        self,
        keys: jax.Array,
        rois: jax.Array,
        valid: jax.Array,
        targets: Mapping[str, jax.Array],
    ) -> Outputs:
        """Keys [B], `[B, P, 4], [B, P] -> {rois [B, R, 4], labels, valid [B, R], targets [B, R, 4]}`."""
        of_one = partial(
            sample_rois,
            fg_iou_thresh=self.roi_iou,
            bg_iou_thresh=0.0,
            batch_size=self.box_batch_size_per_image,
            positive_fraction=self.box_positive_fraction,
            weights=BOX_CODER_WEIGHTS,
            pixel_offset=self.pixel_offset,
        )
        return jax.vmap(of_one)(keys, rois, valid, ground_truth=dict(targets))


def count_anchors_per_cell(anchors: jax.Array, level: jax.Array) -> int:
    """`[h * w * A, 4], [B, h, w, D] -> []`: A, the anchors of each place.

    Source: zoo.ops.anchors.grid_anchors.

    >>> count_anchors_per_cell(jnp.zeros((12, 4)), jnp.zeros((1, 2, 2, 5)))
    3
    """
    return len(anchors) // (level.shape[1] * level.shape[2])


IMAGENET_NORM = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

CARD = dict(
    module=FasterRCNN,
    task="detection",
    input=(800, 800, 3),
    paper="Ren, He, Girshick, Sun 2015, Faster R-CNN: Towards Real-Time Object Detection with "
    "Region Proposal Networks",
    preprocessing=IMAGENET_NORM,
    told=infer_num_classes,
)

VARIANTS = {  # fields of FasterRCNN; parameters
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
        num_classes=20,
        pyramid=False,
        width=512,
        hidden=4096,
        dropout=0.5,
        rpn_pre_nms_top_n=(12000, 6000),
        rpn_post_nms_top_n=(2000, 300),
        rpn_min_size=16.0,
        box_batch_size_per_image=128,
        nms=0.3,
        card=dict(
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
