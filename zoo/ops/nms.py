"""Non-maximum suppression with a fixed number of results: indices, best first, and which are any.

Sorted boxes go by blocks of BLOCK: those that one already kept suppresses fall, then the block is
settled within itself by repeating "kept is what none that is kept suppresses" until nothing changes,
which is the greedy answer as each depends on earlier ones alone. It ends when `count` are kept or
the valid ones are through. Milliseconds of CPU time, float32, IoU 0.7, two cores with AVX-512, jax
0.10.1 (boxes, of which are kept; the sort alone; with it, the whole matrix, a loop over the kept
boxes, blocks of 128 and of 256):

    2000, 300     0.5   30    1.4   0.5   0.7
    2000, 1000    0.5   30    3.1   1.3   1.3
    6000, 300     1.1   600   3.6   1.6   1.3
    12000, 2000   2.7         32    4.9   5.2

The loop over kept boxes takes a step for each, which a GPU waits for; blocks of 256 take the fewest.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax

from zoo.ops.boxes import box_iou
from zoo.ops.conv_spec import accumulation_dtype

BLOCK_SIZE = 256


def nms(
    boxes: jax.Array,
    scores: jax.Array,
    valid: jax.Array,
    *,
    iou_threshold: float,
    max_outputs: int,
    pixel_offset: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """`[N, 4], [N], [N] -> [count], [count]`: indices (int32) of the boxes that are kept, and valid.

    A box falls where its IoU with a better one that is kept is more than `iou_threshold`; of equal
    scores the earlier is the better. Boxes and scores of NaN are not valid. Indices past the kept
    ones are 0.

    Source: torchvision.ops.nms; with `pixel_offset` = 1 nms of py-faster-rcnn.

    >>> boxes = jnp.array([[0.0, 0, 4, 4], [0, 0, 4, 3], [5, 5, 9, 9]])
    >>> scores, valid = jnp.array([0.5, 0.9, 0.3]), jnp.ones(3, bool)
    >>> nms(boxes, scores, valid, iou_threshold=0.5, max_outputs=3)
    (Array([1, 2, 0], dtype=int32), Array([ True,  True, False], dtype=bool))
    """
    chex.assert_shape(boxes, (None, 4))
    return _suppress(boxes, scores, valid, iou_threshold, max_outputs, pixel_offset)


def batched_nms(
    boxes: jax.Array,
    scores: jax.Array,
    labels: jax.Array,
    *,
    valid: jax.Array,
    iou_threshold: float,
    max_outputs: int,
    pixel_offset: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """`[N, 4], [N], [N], [N] -> [count], [count]`: `nms` within each label, the best of all first.

    Source: torchvision.ops.batched_nms, of which one way moves the labels apart and rounds: IoU
    within 1e-4 of the threshold may be decided otherwise there.

    >>> boxes = jnp.array([[0.0, 0, 4, 4], [0, 0, 4, 3], [0, 0, 4, 4]])
    >>> scores, labels, valid = jnp.array([0.5, 0.9, 0.3]), jnp.array([1, 1, 2]), jnp.ones(3, bool)
    >>> found, _ = batched_nms(boxes, scores, labels, valid=valid, iou_threshold=0.5, max_outputs=3)
    >>> found.tolist()
    [1, 2, 0]
    """
    chex.assert_shape(boxes, (None, 4))
    classes = labels.astype(accumulation_dtype(boxes.dtype))[:, None]
    boxes = jnp.concatenate([boxes.astype(classes.dtype), classes], -1)
    return _suppress(boxes, scores, valid, iou_threshold, max_outputs, pixel_offset)


def soft_nms(
    boxes: jax.Array,
    scores: jax.Array,
    valid: jax.Array,
    *,
    max_outputs: int,
    method: str = "gaussian",
    sigma: float = 0.5,
    iou_threshold: float = 0.3,
    min_score: float = 0.001,
    pixel_offset: float = 0.0,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`[N, 4], [N], [N] -> [count], [count], [count]`: indices, lowered scores, and valid.

    The best is taken and what overlaps with it loses score: "gaussian" by exp(-IoU^2 / sigma),
    "linear" by 1 - IoU where IoU is more than `iou_threshold`; and so on, down to the score `min_score`.
    ValueError for another method.

    Source: Bodla et al. 2017, Soft-NMS, figure 2 and equations 2 and 3. Their program lowers by
    boxes of `pixel_offset` = 1, and drops by `min_score` only what has been lowered.

    >>> boxes, scores = jnp.array([[0.0, 0, 4, 4], [0, 0, 4, 2]]), jnp.array([0.5, 1.0])
    >>> soft_nms(boxes, scores, jnp.ones(2, bool), max_outputs=2, method="linear")[1].tolist()
    [1.0, 0.25]
    """
    if method not in ("gaussian", "linear"):
        raise ValueError(f"method is 'gaussian' or 'linear', got {method!r}")
    scores = scores.astype(accumulation_dtype(scores.dtype))
    nothing = jnp.asarray(-jnp.inf, scores.dtype)
    usable = valid & ~jnp.isnan(scores) & ~jnp.any(jnp.isnan(boxes), -1)

    def step(left, _):
        best = jnp.argmax(left)
        score = left[best]
        iou = box_iou(boxes[best][None], boxes, pixel_offset=pixel_offset)[0].astype(scores.dtype)
        if method == "gaussian":
            loss = jnp.exp(-jnp.square(iou) / jnp.asarray(sigma, iou.dtype))
        else:
            loss = jnp.where(
                iou > jnp.asarray(iou_threshold, iou.dtype), 1 - iou, jnp.ones_like(iou)
            )
        left = jnp.where(left == nothing, left, left * loss).at[best].set(nothing)
        return left, (best.astype(jnp.int32), score)

    _, (indices, lowered) = lax.scan(step, jnp.where(usable, scores, nothing), length=max_outputs)
    kept = lowered >= jnp.asarray(min_score, scores.dtype)
    return (
        jnp.where(kept, indices, jnp.zeros_like(indices)),
        jnp.where(kept, lowered, jnp.zeros_like(lowered)),
        kept,
    )


class _State(NamedTuple):
    """How far the loop is, how many are kept, their boxes and their places among the sorted."""

    start: jax.Array
    number: jax.Array
    boxes: jax.Array
    places: jax.Array


def _suppress(boxes, scores, valid, iou_threshold, max_outputs, pixel_offset):
    boxes = boxes.astype(accumulation_dtype(boxes.dtype))
    valid = valid & ~jnp.isnan(scores) & ~jnp.any(jnp.isnan(boxes), -1)
    order = jnp.argsort(jnp.where(valid, -scores, jnp.full_like(scores, jnp.nan)))  # NaN is last
    block = min(BLOCK_SIZE, len(boxes))
    total = jnp.sum(valid, dtype=jnp.int32)
    ranked = jnp.pad(boxes[order], [(0, -len(boxes) % block), (0, 0)])
    room = -(-max_outputs // block) * block
    earlier = jnp.arange(block)[:, None] < jnp.arange(block)[None]
    own = jnp.arange(block, dtype=jnp.int32)

    def suppresses(a, b):
        return _iou_exceeds(a, b, iou_threshold, pixel_offset)

    def part(index, state):
        alive, block_boxes, kept = state
        some = lax.dynamic_slice_in_dim(kept, index * block, block)
        return alive & ~jnp.any(suppresses(some, block_boxes), 0), block_boxes, kept

    def advance(state: _State) -> _State:
        here = lax.dynamic_slice_in_dim(ranked, state.start, block)
        parts = (state.number + block - 1) // block
        first = (state.start + own < total, here, state.boxes)
        alive, _, _ = lax.fori_loop(jnp.zeros_like(parts), parts, part, first)
        keep = _resolve_block(alive, suppresses(here, here) & earlier)
        places = jnp.where(keep, state.number + jnp.cumsum(keep, dtype=jnp.int32) - 1, room)
        return _State(
            state.start + block,
            state.number + jnp.sum(keep, dtype=jnp.int32),
            state.boxes.at[places].set(here, mode="drop"),
            state.places.at[places].set(state.start + own, mode="drop"),
        )

    zero = jnp.zeros((), jnp.int32)
    empty = jnp.full((room, boxes.shape[1]), jnp.nan, boxes.dtype)  # suppresses nothing
    state = _State(zero, zero, empty, jnp.zeros(room, jnp.int32))
    state = lax.while_loop(lambda s: (s.start < total) & (s.number < max_outputs), advance, state)
    kept = jnp.arange(max_outputs, dtype=jnp.int32) < state.number
    indices = order[state.places[:max_outputs]].astype(jnp.int32)
    return jnp.where(kept, indices, jnp.zeros_like(indices)), kept


def _resolve_block(alive: jax.Array, suppresses: jax.Array) -> jax.Array:
    """`[B], [B, B] -> [B]`: which are kept, where row i tells whom i suppresses, later ones alone."""

    def again(state):
        kept, _ = state
        new = alive & ~jnp.any(suppresses & kept[:, None], 0)
        return new, jnp.any(new != kept)

    return lax.while_loop(lambda state: state[1], again, (alive, jnp.any(alive)))[0]


def _iou_exceeds(
    a: jax.Array, b: jax.Array, iou_threshold: float, pixel_offset: float
) -> jax.Array:
    """`[N, 4], [M, 4] -> [N, M]`: IoU above the threshold, rounded as torchvision rounds it; of a
    label in a fifth column the same. 0 / 0 is not above."""
    columns = [(a[:, k, None], b[None, :, k]) for k in range(a.shape[1])]
    one, zero = jnp.asarray(pixel_offset, a.dtype), jnp.zeros((), a.dtype)

    def shared(first, last):
        return jnp.maximum(jnp.minimum(*columns[last]) - jnp.maximum(*columns[first]) + one, zero)

    def whole(side):
        x0, y0, x1, y1 = (pair[side] for pair in columns[:4])
        return (x1 - x0 + one) * (y1 - y0 + one)

    inside = shared(0, 2) * shared(1, 3)
    above = inside / (whole(0) + whole(1) - inside) > jnp.asarray(iou_threshold, a.dtype)
    return above & (columns[4][0] == columns[4][1]) if len(columns) > 4 else above
