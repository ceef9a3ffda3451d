"""Selection of region proposals from scored anchors."""

import functools
import math
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from zoo.ops.boxes import clip_boxes, decode_boxes
from zoo.ops.nms import batched_nms


def select_proposals(
    logits: jax.Array,
    deltas: jax.Array,
    anchors: jax.Array,
    *,
    size: jax.Array | Sequence[float],
    pre_nms_top_n: int,
    post_nms_top_n: int,
    nms_thresh: float,
    min_size: jax.Array | float,
    pixel_offset: float = 0.0,
    max_log_ratio: float = math.log(1000 / 16),
    levels: Sequence[int] | None = None,
    filter_small_first: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Decodes the best anchors and removes small and overlapping boxes.

    No gradient flows through the proposals.

    Args:
        logits: objectness logits [A]. For two outputs (background, object) pass their difference.
        deltas: box offsets [A, 4].
        anchors: anchors [A, 4].
        size: height and width of the image, to which boxes are clipped.
        pre_nms_top_n: number of anchors per level that are kept before suppression.
        post_nms_top_n: number P of proposals.
        nms_thresh: IoU above which the worse box is removed.
        min_size: boxes with a shorter side are removed.
        pixel_offset: see `zoo.ops.boxes.box_area`.
        max_log_ratio: bound on the decoded log sizes.
        levels: number of anchors of each pyramid level. Each level has its own `pre_nms_top_n` and
            its own suppression.
        filter_small_first: remove small boxes before they are counted in `pre_nms_top_n`, as in the
            paper.

    Returns:
        Boxes [P, 4], scores [P] (sigmoid of the logits) and `valid` [P] bool, best first; boxes and
        scores past the last valid one are 0.

    Raises:
        ValueError: if `levels` does not sum to the number of anchors.

    Source: torchvision's RegionProposalNetwork.filter_proposals, with `min_size=1e-3`. With
    `pixel_offset=1`, `max_log_ratio=math.inf` and `filter_small_first` it is the proposal_layer of
    py-faster-rcnn, whose `min_size` is 16 times the scale of the image.

    >>> anchors = jnp.array([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 9.0], [20.0, 0.0, 28.0, 8.0]])
    >>> options = dict(size=(16, 32), pre_nms_top_n=3, post_nms_top_n=3, nms_thresh=0.7)
    >>> logits, deltas = jnp.array([1.0, 2, 3]), jnp.zeros((3, 4))
    >>> boxes, _, valid = select_proposals(logits, deltas, anchors, min_size=1.0, **options)
    >>> boxes.tolist(), valid.tolist()
    ([[20.0, 0.0, 28.0, 8.0], [0.0, 0.0, 8.0, 9.0], [0.0, 0.0, 0.0, 0.0]], [True, True, False])
    """
    chex.assert_equal_shape([deltas, anchors])
    chex.assert_shape(logits, (len(anchors),))
    levels = (len(anchors),) if levels is None else tuple(levels)
    if sum(levels) != len(anchors):
        raise ValueError(f"expected levels that sum to {len(anchors)} anchors, got {levels}")
    logits, deltas, anchors = lax.stop_gradient((logits, deltas, anchors))
    decode = functools.partial(
        _decode_and_clip,
        size=size,
        min_size=min_size,
        pixel_offset=pixel_offset,
        max_log_ratio=max_log_ratio,
    )
    rank = logits
    if filter_small_first:
        rank = jnp.where(decode(deltas, anchors)[1], rank, jnp.full_like(rank, -jnp.inf))
    candidates, level = _top_k_per_level(rank, levels, pre_nms_top_n)
    boxes, is_large = decode(deltas[candidates], anchors[candidates])
    scores = jax.nn.sigmoid(logits[candidates].astype(boxes.dtype))
    selected, valid = batched_nms(
        boxes,
        scores,
        level,
        valid=is_large,
        iou_threshold=nms_thresh,
        max_outputs=post_nms_top_n,
        pixel_offset=pixel_offset,
    )
    boxes, scores = boxes[selected], scores[selected]
    return (
        jnp.where(valid[:, None], boxes, jnp.zeros_like(boxes)),
        jnp.where(valid, scores, jnp.zeros_like(scores)),
        valid,
    )


def _decode_and_clip(deltas, anchors, *, size, min_size, pixel_offset, max_log_ratio):
    """Decodes and clips boxes [A, 4]; also returns whether both sides reach `min_size` [A]."""
    boxes = clip_boxes(
        decode_boxes(deltas, anchors, pixel_offset=pixel_offset, max_log_ratio=max_log_ratio),
        size,
        pixel_offset=pixel_offset,
    )
    sides = boxes[:, 2:] - boxes[:, :2] + jnp.asarray(pixel_offset, boxes.dtype)
    return boxes, jnp.all(sides >= jnp.asarray(min_size, boxes.dtype), -1)


def _top_k_per_level(
    rank: jax.Array, levels: Sequence[int], pre_nms_top_n: int
) -> tuple[jax.Array, jax.Array]:
    """Returns the indices of the best anchors of each level, and their levels."""
    selected, start = [], 0
    for count in levels:
        level_rank = lax.slice_in_dim(rank, start, start + count)
        selected.append(lax.top_k(level_rank, min(pre_nms_top_n, count))[1] + start)
        start += count
    level = np.repeat(
        np.arange(len(levels), dtype=np.int32), [len(indices) for indices in selected]
    )
    return jnp.concatenate(selected), jnp.asarray(level)
