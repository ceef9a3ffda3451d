"""Which of a map's anchors, moved by their offsets, are worth a second look."""

import functools
import math
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from zoo.ops.boxes import clip as clipped
from zoo.ops.boxes import decode
from zoo.ops.nms import batched_nms


def proposals(
    logits: jax.Array,
    deltas: jax.Array,
    anchors: jax.Array,
    *,
    size: jax.Array | Sequence[float],
    before: int,
    after: int,
    threshold: float,
    smallest: jax.Array | float,
    plus: float = 0.0,
    clip: float = math.log(1000 / 16),
    levels: Sequence[int] | None = None,
    small_first: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`[A], [A, 4], [A, 4] -> [after, 4], [after], [after]`: boxes, scores, valid; best first.

    The `before` best anchors, as `deltas` move them, within a picture of `size` (height, width);
    none with a side under `smallest`; none that overlaps with a better one by more than `threshold`;
    of these the `after` best. `levels` are numbers of anchors, map after map, where there are several:
    each then has its own `before` and its own suppression. With `small_first` the small ones do not
    count among `before`, as in the paper. Scores are the sigmoid of `logits`: of two outputs
    (background, object) their difference. Past the valid, boxes and scores are 0.

    No gradient flows through it.

    Source: torchvision's RegionProposalNetwork.filter_proposals, with `smallest` 1e-3; with `plus` =
    1, `clip` = math.inf and `small_first` the proposal_layer of py-faster-rcnn, whose `smallest` is
    16 times the image's scale.

    >>> anchors = jnp.array([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 9.0], [20.0, 0.0, 28.0, 8.0]])
    >>> fields = dict(size=(16, 32), before=3, after=3, threshold=0.7, smallest=1.0)
    >>> boxes, _, valid = proposals(jnp.array([1.0, 2, 3]), jnp.zeros((3, 4)), anchors, **fields)
    >>> boxes.tolist(), valid.tolist()
    ([[20.0, 0.0, 28.0, 8.0], [0.0, 0.0, 8.0, 9.0], [0.0, 0.0, 0.0, 0.0]], [True, True, False])
    """
    chex.assert_equal_shape([deltas, anchors])
    chex.assert_shape(logits, (len(anchors),))
    levels = (len(anchors),) if levels is None else tuple(levels)
    if sum(levels) != len(anchors):
        raise ValueError(f"the levels {levels} have {sum(levels)} anchors, got {len(anchors)}")
    logits, deltas, anchors = lax.stop_gradient((logits, deltas, anchors))
    moved = functools.partial(_moved, size=size, smallest=smallest, plus=plus, clip=clip)
    rank = logits
    if small_first:
        rank = jnp.where(moved(deltas, anchors)[1], rank, jnp.full_like(rank, -jnp.inf))
    chosen, level = _best(rank, levels, before)
    boxes, large = moved(deltas[chosen], anchors[chosen])
    scores = jax.nn.sigmoid(logits[chosen].astype(boxes.dtype))
    kept, valid = batched_nms(
        boxes, scores, level, valid=large, threshold=threshold, count=after, plus=plus
    )
    boxes, scores = boxes[kept], scores[kept]
    return (
        jnp.where(valid[:, None], boxes, jnp.zeros_like(boxes)),
        jnp.where(valid, scores, jnp.zeros_like(scores)),
        valid,
    )


def _moved(deltas, anchors, *, size, smallest, plus, clip):
    """`[A, 4], [A, 4] -> [A, 4], [A]`: the boxes within the picture, and whether they are large."""
    boxes = clipped(decode(deltas, anchors, plus=plus, clip=clip), size, plus=plus)
    sides = boxes[:, 2:] - boxes[:, :2] + jnp.asarray(plus, boxes.dtype)
    return boxes, jnp.all(sides >= jnp.asarray(smallest, boxes.dtype), -1)


def _best(rank: jax.Array, levels: Sequence[int], before: int) -> tuple[jax.Array, jax.Array]:
    """Indices of the `before` best of each level, and their levels."""
    chosen, start = [], 0
    for count in levels:
        own = lax.slice_in_dim(rank, start, start + count)
        chosen.append(lax.top_k(own, min(before, count))[1] + start)
        start += count
    level = np.repeat(np.arange(len(levels), dtype=np.int32), [len(each) for each in chosen])
    return jnp.concatenate(chosen), jnp.asarray(level)
