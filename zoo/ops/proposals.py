"""Which of a map's anchors, moved by their offsets, are worth a second look."""

import functools
import math
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from zoo.ops.boxes import clip_boxes as clipped
from zoo.ops.boxes import decode_boxes
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
    """`[A], [A, 4], [A, 4] -> [after, 4], [after], [after]`: boxes, scores, valid; best first.

    The `pre_nms_top_n` best anchors, as `deltas` move them, within a picture of `size` (height, width);
    none with a side under `min_size`; none that overlaps with a better one by more than `nms_thresh`;
    of these the `post_nms_top_n` best. `levels` are numbers of anchors, map after map, where there are several:
    each then has its own `pre_nms_top_n` and its own suppression. With `filter_small_first` the small ones do not
    count among `pre_nms_top_n`, as in the paper. Scores are the sigmoid of `logits`: of two outputs
    (background, object) their difference. Past the valid, boxes and scores are 0.

    No gradient flows through it.

    Source: torchvision's RegionProposalNetwork.filter_proposals, with `min_size` 1e-3; with `pixel_offset` =
    1, `max_log_ratio` = math.inf and `filter_small_first` the proposal_layer of py-faster-rcnn, whose `min_size` is
    16 times the image's scale.

    >>> anchors = jnp.array([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 9.0], [20.0, 0.0, 28.0, 8.0]])
    >>> fields = dict(size=(16, 32), pre_nms_top_n=3, post_nms_top_n=3, nms_thresh=0.7, min_size=1.0)
    >>> boxes, _, valid = select_proposals(jnp.array([1.0, 2, 3]), jnp.zeros((3, 4)), anchors, **fields)
    >>> boxes.tolist(), valid.tolist()
    ([[20.0, 0.0, 28.0, 8.0], [0.0, 0.0, 8.0, 9.0], [0.0, 0.0, 0.0, 0.0]], [True, True, False])
    """
    chex.assert_equal_shape([deltas, anchors])
    chex.assert_shape(logits, (len(anchors),))
    levels = (len(anchors),) if levels is None else tuple(levels)
    if sum(levels) != len(anchors):
        raise ValueError(f"the levels {levels} have {sum(levels)} anchors, got {len(anchors)}")
    logits, deltas, anchors = lax.stop_gradient((logits, deltas, anchors))
    moved = functools.partial(
        _decode_and_clip,
        size=size,
        min_size=min_size,
        pixel_offset=pixel_offset,
        max_log_ratio=max_log_ratio,
    )
    rank = logits
    if filter_small_first:
        rank = jnp.where(moved(deltas, anchors)[1], rank, jnp.full_like(rank, -jnp.inf))
    chosen, level = _top_k_per_level(rank, levels, pre_nms_top_n)
    boxes, large = moved(deltas[chosen], anchors[chosen])
    scores = jax.nn.sigmoid(logits[chosen].astype(boxes.dtype))
    kept, valid = batched_nms(
        boxes,
        scores,
        level,
        valid=large,
        iou_threshold=nms_thresh,
        max_outputs=post_nms_top_n,
        pixel_offset=pixel_offset,
    )
    boxes, scores = boxes[kept], scores[kept]
    return (
        jnp.where(valid[:, None], boxes, jnp.zeros_like(boxes)),
        jnp.where(valid, scores, jnp.zeros_like(scores)),
        valid,
    )


def _decode_and_clip(deltas, anchors, *, size, min_size, pixel_offset, max_log_ratio):
    """`[A, 4], [A, 4] -> [A, 4], [A]`: the boxes within the picture, and whether they are large."""
    boxes = clipped(
        decode_boxes(deltas, anchors, pixel_offset=pixel_offset, max_log_ratio=max_log_ratio),
        size,
        pixel_offset=pixel_offset,
    )
    sides = boxes[:, 2:] - boxes[:, :2] + jnp.asarray(pixel_offset, boxes.dtype)
    return boxes, jnp.all(sides >= jnp.asarray(min_size, boxes.dtype), -1)


def _top_k_per_level(
    rank: jax.Array, levels: Sequence[int], pre_nms_top_n: int
) -> tuple[jax.Array, jax.Array]:
    """Indices of the `pre_nms_top_n` best of each level, and their levels."""
    chosen, start = [], 0
    for count in levels:
        own = lax.slice_in_dim(rank, start, start + count)
        chosen.append(lax.top_k(own, min(pre_nms_top_n, count))[1] + start)
        start += count
    level = np.repeat(np.arange(len(levels), dtype=np.int32), [len(each) for each in chosen])
    return jnp.concatenate(chosen), jnp.asarray(level)
