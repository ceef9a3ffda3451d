"""RoI heads: pooling, classification, sampling and postprocessing of regions of interest."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, final

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer

from zoo.layers.initializer import lookup_initializer
from zoo.ops.assign import match_anchors, sample_balanced
from zoo.ops.boxes import box_area, box_iou, clip_boxes, decode_boxes, encode_boxes
from zoo.ops.dense_general import dot_general
from zoo.ops.nms import batched_nms
from zoo.ops.roi import pyramid_roi_align

BOX_CODER_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # 1 / (0.1, 0.1, 0.2, 0.2)
TORCH_UNIFORM = lookup_initializer("torch")


class RoIConfig(NamedTuple):
    """Options of the RoI stage; detectors have fields of these names with `box_`.

    Attributes:
        fg_iou_thresh: IoU from which a region is foreground.
        bg_iou_thresh: IoU below which a region is background.
        batch_size_per_image: regions that are sampled per image.
        positive_fraction: maximum fraction of foreground samples.
        score_thresh: minimum score of a detection.
        nms_thresh: IoU above which the worse detection is removed.
        detections_per_img: detections per image.
        min_bg_iou: IoU from which a region may be background (Fast R-CNN: 0.1).
        weights: weights of the box encoding.
        pixel_offset: see `zoo.ops.boxes.box_area`.
    """

    fg_iou_thresh: float
    bg_iou_thresh: float
    batch_size_per_image: int
    positive_fraction: float
    score_thresh: float
    nms_thresh: float
    detections_per_img: int
    min_bg_iou: float = 0.0
    weights: Sequence[float] = BOX_CODER_WEIGHTS
    pixel_offset: float = 0.0


def feature_scale(image_side: int, map_side: int) -> float:
    """Returns the power of 2 nearest to map_side / image_side.

    Args:
        image_side: side of the image in pixels.
        map_side: side of the feature map.

    Returns:
        The scale.

    Source: torchvision's MultiScaleRoIAlign, which compensates rounded sides this way.

    >>> feature_scale(600, 38)
    0.0625
    """
    return 2.0 ** round(math.log2(map_side / image_side))


def assign_level(
    boxes: jax.Array, *, first: int, count: int, canonical_box_size: float = 224.0
) -> jax.Array:
    """Assigns each box to a pyramid level by its size.

    The level is floor(4 + log2(sqrt(area) / canonical_box_size)), counted from stride 1 and clipped
    to the available maps.

    Args:
        boxes: boxes [R, 4].
        first: log2 of the stride of the first map.
        count: number of maps.
        canonical_box_size: side of the boxes that use the map of stride 16.

    Returns:
        Index of the map of each box [R] int32.

    Source: Lin et al. 2017, Feature Pyramid Networks, equation 1; torchvision's LevelMapper.

    >>> boxes = jnp.array([[0.0, 0, 224, 224], [0, 0, 111, 111], [0, 0, 9, 9]])
    >>> assign_level(boxes, first=2, count=4).tolist()
    [2, 0, 0]
    """
    side = jnp.sqrt(box_area(boxes))
    level = jnp.floor(4 + jnp.log2(jnp.maximum(side, 1e-6) / canonical_box_size) + 1e-6)
    return (jnp.clip(level, first, first + count - 1) - first).astype(jnp.int32)


def pool_from_pyramid(
    maps: Sequence[jax.Array],
    boxes: jax.Array,
    *,
    canvas: tuple[int, int],
    size: tuple[int, int],
    canonical_box_size: float = 224.0,
) -> jax.Array:
    """Pools each box by RoIAlign from its pyramid level, with four samples per cell.

    Args:
        maps: pyramid levels [[h, w, C], ...].
        boxes: boxes [R, 4].
        canvas: height and width (H, W) of the padded image.
        size: number of cells (h, w).
        canonical_box_size: see `assign_level`.

    Returns:
        Pooled features [R, *size, C].

    Source: torchvision's MultiScaleRoIAlign; `assign_level` chooses.

    >>> maps = [jnp.zeros((8, 8, 1)), jnp.ones((4, 4, 1))]
    >>> boxes = jnp.array([[0.0, 0, 16, 16], [0, 0, 32, 32]])
    >>> options = dict(canvas=(32, 32), size=(1, 1), canonical_box_size=64.0)
    >>> pool_from_pyramid(maps, boxes, **options).ravel().tolist()
    [0.0, 1.0]
    """
    scales = tuple(feature_scale(canvas[0], x.shape[0]) for x in maps)
    first = -round(math.log2(scales[0]))
    level = assign_level(boxes, first=first, count=len(maps), canonical_box_size=canonical_box_size)
    return pyramid_roi_align(maps, boxes, level, output_size=size, spatial_scales=scales)


@final
class BoxHead(nn.Module):
    """Two dense layers, then class logits and class-specific box offsets.

    Attributes:
        num_classes: number of classes K, without the background.
        hidden: units of the dense layers.
        dropout: dropout rate after each dense layer in training.

    Args:
        x: pooled features [B, R, h, w, C].
        train: apply dropout.

    Returns:
        Logits [B, R, K + 1], background first, and offsets [B, R, K + 1, 4].

    Source: Girshick 2015, Fast R-CNN, figure 1; torchvision's TwoMLPHead and FastRCNNPredictor.

    >>> head, x = BoxHead(20, hidden=8), jnp.ones((1, 5, 7, 7, 3))
    >>> (logits, deltas), _ = jax.eval_shape(head.init_with_output, jax.random.key(0), x)
    >>> logits.shape, deltas.shape
    ((1, 5, 21), (1, 5, 21, 4))
    """

    num_classes: int
    hidden: int = 1024
    dropout: float = 0.0
    kernel_init: Initializer = TORCH_UNIFORM
    logits_init: Initializer = TORCH_UNIFORM
    deltas_init: Initializer = TORCH_UNIFORM
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        dense = partial(nn.Dense, dot_general=dot_general)
        x = x.reshape(*x.shape[:2], -1)
        for name in ("fc6", "fc7"):
            layer = dense(self.hidden, kernel_init=self.kernel_init, dtype=self.dtype, name=name)
            x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(layer(x)))
        wide = partial(dense, dtype=jnp.promote_types(jnp.float32, self.dtype))
        count = self.num_classes + 1
        logits = wide(count, kernel_init=self.logits_init, name="logits")(x)
        deltas = wide(4 * count, kernel_init=self.deltas_init, name="deltas")(x)
        return logits, deltas.reshape(*x.shape[:2], count, 4)


def infer_num_classes(tensors: Mapping[str, Any], *, model: nn.Module) -> dict[str, Any]:
    """Infers the number of classes from the head's weights, without the background.

    Args:
        tensors: arrays by parameter path.
        model: not used.

    Returns:
        `{"num_classes": K}`, or nothing if the head is missing.

    >>> infer_num_classes({"params/head/logits/bias": jnp.zeros(91)}, model=None)
    {'num_classes': 90}
    """
    bias = tensors.get("params/head/logits/bias")
    return {} if bias is None else {"num_classes": len(bias) - 1}


def sample_rois(
    key: jax.Array,
    rois: jax.Array,
    valid: jax.Array,
    *,
    ground_truth: dict[str, jax.Array],
    fg_iou_thresh: float,
    bg_iou_thresh: float,
    batch_size: int,
    positive_fraction: float,
    min_bg_iou: float = 0.0,
    weights: Sequence[float] = BOX_CODER_WEIGHTS,
    pixel_offset: float = 0.0,
) -> dict[str, jax.Array]:
    """Samples the regions that an image is trained on, with their targets.

    The ground truth boxes are added to the proposals. A region with an IoU of at least
    `fg_iou_thresh` gets the label of its box; one from `bg_iou_thresh` up to there is background.

    Args:
        key: random key.
        rois: proposals [P, 4].
        valid: rows that are not padding [P] bool.
        ground_truth: `boxes` [N, 4], `labels` [N] and `box_valid` [N].
        fg_iou_thresh: IoU from which a region is foreground.
        bg_iou_thresh: IoU below which a region is background.
        batch_size: number of samples R.
        positive_fraction: at most this fraction of the samples is foreground.
        min_bg_iou: IoU from which a region may be background.
        weights: weights of the box encoding.
        pixel_offset: see `zoo.ops.boxes.box_area`.

    Returns:
        `rois` [R, 4], `labels` [R] from 1 to K and 0 for background, `valid` [R] and `targets` [R,
        4].

    Source: Girshick 2015, Fast R-CNN, section 2.3; torchvision's RoIHeads.select_training_samples.

    >>> truth = {"boxes": jnp.array([[0.0, 0, 8, 8]]), "labels": jnp.array([4])}
    >>> truth["box_valid"] = jnp.array([True])
    >>> rois, valid = jnp.array([[20.0, 20, 28, 28]]), jnp.array([True])
    >>> options = dict(fg_iou_thresh=0.5, bg_iou_thresh=0.5, batch_size=2, positive_fraction=0.5)
    >>> samples = sample_rois(jax.random.key(0), rois, valid, ground_truth=truth, **options)
    >>> sorted(samples["labels"].tolist())
    [0, 5]
    """
    boxes, labels, box_valid = (ground_truth[name] for name in ("boxes", "labels", "box_valid"))
    boxes = boxes.astype(rois.dtype)
    rois = jax.lax.stop_gradient(jnp.concatenate([rois, boxes]))
    valid = jnp.concatenate([valid, box_valid])
    iou = box_iou(boxes, rois, pixel_offset=pixel_offset)
    matched = match_anchors(
        iou,
        box_valid,
        fg_iou_thresh=fg_iou_thresh,
        bg_iou_thresh=bg_iou_thresh,
        allow_low_quality_matches=False,
    )
    best = jnp.max(jnp.where(box_valid[:, None], iou, 0.0), 0)
    positive, negative = matched >= 0, (matched == -1) & (best >= min_bg_iou)
    indices, positive, is_sampled = sample_balanced(
        key,
        positive & valid,
        negative & valid,
        batch_size=batch_size,
        positive_fraction=positive_fraction,
    )
    positive = positive & is_sampled
    row = jnp.maximum(matched[indices], 0)
    rois = rois[indices]
    targets = encode_boxes(boxes[row], rois, weights=weights, pixel_offset=pixel_offset)
    return {
        "rois": jnp.where(is_sampled[:, None], rois, 0.0),
        "labels": jnp.where(positive, labels[row] + 1, 0),
        "valid": is_sampled,
        "targets": jnp.where(positive[:, None], targets, 0.0),
    }


def postprocess_detections(
    logits: jax.Array,
    deltas: jax.Array,
    rois: jax.Array,
    *,
    valid: jax.Array,
    size: jax.Array,
    score_thresh: float,
    nms_thresh: float,
    detections_per_img: int,
    min_size: float = 1e-2,
    weights: Sequence[float] = BOX_CODER_WEIGHTS,
    pixel_offset: float = 0.0,
) -> dict[str, jax.Array]:
    """Turns class logits and box offsets of regions into detections.

    Every class of every valid region is a candidate. Candidates above `score_thresh` with both
    sides of at least `min_size` go through non-maximum suppression per class.

    Args:
        logits: logits [R, K + 1], background first.
        deltas: box offsets [R, K + 1, 4].
        rois: regions [R, 4].
        valid: rows that are not padding [R] bool.
        size: height and width of the image [2], to which boxes are clipped.
        score_thresh: minimum score.
        nms_thresh: IoU above which the worse box is removed.
        detections_per_img: number M of detections.
        min_size: minimum side of a box in pixels.
        weights: weights of the box encoding.
        pixel_offset: see `zoo.ops.boxes.box_area`.

    Returns:
        `boxes` [M, 4], `scores` [M], `labels` [M] from 0 to K - 1 and `valid` [M], best first.

    Source: torchvision's RoIHeads.postprocess_detections.

    >>> logits, deltas = jnp.array([[0.0, 9.0, 0.0]]), jnp.zeros((1, 3, 4))
    >>> image = dict(valid=jnp.array([True]), size=jnp.array([9, 9]))
    >>> options = dict(score_thresh=0.5, nms_thresh=0.5, detections_per_img=2)
    >>> rois = jnp.array([[0.0, 0, 8, 10]])
    >>> found = postprocess_detections(logits, deltas, rois, **image, **options)
    >>> found["boxes"][0].tolist(), found["labels"][0].tolist(), found["valid"].tolist()
    ([0.0, 0.0, 8.0, 9.0], 0, [True, False])
    """
    classes = logits.shape[-1] - 1
    scores = jax.nn.softmax(logits)[:, 1:]
    boxes = decode_boxes(deltas[:, 1:], rois[:, None], weights=weights, pixel_offset=pixel_offset)
    boxes = clip_boxes(boxes.reshape(-1, 4), size, pixel_offset=pixel_offset)
    sides = boxes[:, 2:] - boxes[:, :2] + pixel_offset
    labels = jnp.broadcast_to(jnp.arange(classes, dtype=jnp.int32), scores.shape).reshape(-1)
    is_candidate = valid[:, None] & (scores > score_thresh)
    is_candidate = is_candidate.reshape(-1) & (sides >= min_size).all(1)
    scores = scores.reshape(-1)
    indices, is_valid = batched_nms(
        boxes,
        scores,
        labels,
        valid=is_candidate,
        iou_threshold=nms_thresh,
        max_outputs=detections_per_img,
        pixel_offset=pixel_offset,
    )
    return {
        "boxes": jnp.where(is_valid[:, None], boxes[indices], 0.0),
        "scores": jnp.where(is_valid, scores[indices], 0.0),
        "labels": jnp.where(is_valid, labels[indices], 0),
        "valid": is_valid,
    }


def roi_targets(
    keys: jax.Array,
    rois: jax.Array,
    valid: jax.Array,
    *,
    targets: Mapping[str, jax.Array],
    config: RoIConfig,
) -> dict[str, jax.Array]:
    """Samples the regions of a batch, with their targets.

    Args:
        keys: random keys [B].
        rois: proposals [B, P, 4].
        valid: rows that are not padding [B, P] bool.
        targets: ground truth: `boxes` [B, N, 4], `labels` and `box_valid` [B, N].
        config: options.

    Returns:
        `rois` and `targets` [B, R, 4], `labels` and `valid` [B, R].
    """
    sample = partial(
        sample_rois,
        fg_iou_thresh=config.fg_iou_thresh,
        bg_iou_thresh=config.bg_iou_thresh,
        batch_size=config.batch_size_per_image,
        positive_fraction=config.positive_fraction,
        min_bg_iou=config.min_bg_iou,
        weights=config.weights,
        pixel_offset=config.pixel_offset,
    )
    return jax.vmap(sample)(keys, rois, valid, ground_truth=dict(targets))


def detect(
    logits: jax.Array,
    deltas: jax.Array,
    rois: jax.Array,
    *,
    valid: jax.Array,
    sizes: jax.Array,
    config: RoIConfig,
) -> dict[str, jax.Array]:
    """Turns the RoI outputs of a batch into detections.

    Args:
        logits: logits [B, R, K + 1], background first.
        deltas: box offsets [B, R, K + 1, 4].
        rois: regions [B, R, 4].
        valid: rows that are not padding [B, R] bool.
        sizes: height and width of each image [B, 2].
        config: options.

    Returns:
        `boxes` [B, M, 4], `scores`, `labels` and `valid` [B, M], best first.
    """
    finish = partial(
        postprocess_detections,
        score_thresh=config.score_thresh,
        nms_thresh=config.nms_thresh,
        detections_per_img=config.detections_per_img,
        weights=config.weights,
        pixel_offset=config.pixel_offset,
    )
    return jax.vmap(finish)(logits, deltas, rois, valid=valid, size=sizes)
