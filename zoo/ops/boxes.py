"""Boxes (x0, y0, x1, y1) in pixels: overlap, and the offsets that a regressor learns.

All is computed in float32 or more, whatever comes. A box that is not finite, or further away than
LARGEST, counts as one without area; what has no area overlaps with nothing and has no gradient, so
that padding, broken annotations and a diverging regressor give no NaN.
"""

import math
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

MAX_LOG_RATIO = 1e15  # a coordinate; squares of it, and quotients by LEAST, are finite in float32
MIN_SIDE = 1e-9  # a side, below it a box has no area; the inverse square of its area is finite


def box_area(boxes: jax.Array, *, pixel_offset: float = 0.0) -> jax.Array:
    """`[..., 4] -> [...]`: width times height; 0 where a side is negative.

    `pixel_offset` = 1 counts the last pixel in, as py-faster-rcnn and the first VOC toolkits do: a box
    from 3 to 5 is 3 wide.

    Source: torchvision.ops.box_area.

    >>> box_area(jnp.array([[0.0, 0.0, 4.0, 2.0], [3.0, 3.0, 1.0, 1.0]])).tolist()
    [8.0, 0.0]
    """
    width, height = _side_lengths(_is_finite(boxes)[0], pixel_offset)
    return width * height


def to_center_form(boxes: jax.Array) -> jax.Array:
    """`[..., 4] -> [..., 4]`: (x0, y0, x1, y1) to (center x, center y, width, height).

    Source: torchvision.ops.box_convert, "xyxy" to "cxcywh".

    >>> to_center_form(jnp.array([0.0, 0.0, 4.0, 2.0])).tolist()
    [2.0, 1.0, 4.0, 2.0]
    """
    first, last = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([(first + last) / 2, last - first], -1)


def from_center_form(boxes: jax.Array) -> jax.Array:
    """`[..., 4] -> [..., 4]`: (center x, center y, width, height) to (x0, y0, x1, y1).

    Source: torchvision.ops.box_convert, "cxcywh" to "xyxy".

    >>> from_center_form(jnp.array([2.0, 1.0, 4.0, 2.0])).tolist()
    [0.0, 0.0, 4.0, 2.0]
    """
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return jnp.concatenate([center - half, center + half], -1)


def clip_boxes(
    boxes: jax.Array, size: jax.Array | Sequence[float], *, pixel_offset: float = 0.0
) -> jax.Array:
    """`[..., 4], [2] -> [..., 4]`: the parts of the boxes inside of a picture of (height, width).

    With `pixel_offset` = 1 the last pixel of a row is at width - 1.

    Source: torchvision.ops.clip_boxes_to_image; clip_boxes of py-faster-rcnn.

    >>> clip_boxes(jnp.array([[-3.0, 1.0, 7.0, 9.0]]), (5, 6)).tolist()
    [[0.0, 1.0, 6.0, 5.0]]
    """
    height, width = (jnp.asarray(side, boxes.dtype) for side in size)
    least = jnp.zeros((), boxes.dtype)
    last = jnp.stack([width, height, width, height]) - jnp.asarray(pixel_offset, boxes.dtype)
    return jnp.clip(boxes, least, last.reshape((1,) * (boxes.ndim - 1) + (4,)))


def box_iou(a: jax.Array, b: jax.Array, *, pixel_offset: float = 0.0) -> jax.Array:
    """`[N, 4], [M, 4] -> [N, M]`: intersection over union.

    0 where neither has an area, torchvision's NaN.

    Source: torchvision.ops.box_iou; with `pixel_offset` = 1 bbox_overlaps of py-faster-rcnn.

    >>> box_iou(jnp.array([[0.0, 0.0, 2.0, 2.0]]), jnp.array([[1.0, 0.0, 3.0, 2.0]])).round(4)
    Array([[0.3333]], dtype=float32)
    """
    a, b = _expand_pairs(a, b)
    shared, union = _intersection(a, b, pixel_offset)
    return _safe_divide(shared, union)


def box_giou(a: jax.Array, b: jax.Array) -> jax.Array:
    """`[N, 4], [M, 4] -> [N, M]`: IoU less the share of the pair's hull that is in neither.

    From -1, far apart, to 1, equal; it has a gradient where the boxes do not meet.

    Source: Rezatofighi et al. 2019, Generalized Intersection over Union, algorithm 1;
    torchvision.ops.generalized_box_iou.

    >>> box_giou(jnp.array([[0.0, 0.0, 1.0, 1.0]]), jnp.array([[3.0, 0.0, 4.0, 1.0]])).tolist()
    [[-0.5]]
    """
    a, b = _expand_pairs(a, b)
    shared, union = _intersection(a, b, 0.0)
    width, height = _side_lengths(_enclosing_area(a, b), 0.0)
    hull = width * height
    return _safe_divide(shared, union) - _safe_divide(hull - union, hull)


def box_diou(a: jax.Array, b: jax.Array) -> jax.Array:
    """`[N, 4], [M, 4] -> [N, M]`: IoU less (distance of the centers / diagonal of the hull)^2.

    torchvision adds 1e-7 to the squared diagonal.

    Source: Zheng et al. 2020, Distance-IoU Loss, equation 6; torchvision.ops.distance_box_iou.

    >>> box_diou(jnp.array([[0.0, 0.0, 1.0, 1.0]]), jnp.array([[3.0, 0.0, 4.0, 1.0]])).round(4)
    Array([[-0.5294]], dtype=float32)
    """
    a, b = _expand_pairs(a, b)
    shared, union = _intersection(a, b, 0.0)
    hull = _enclosing_area(a, b)
    diagonal = jnp.sum(jnp.square(hull[..., 2:] - hull[..., :2]), -1)
    apart = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    return _safe_divide(shared, union) - _safe_divide(jnp.sum(jnp.square(apart), -1), diagonal)


def encode_boxes(
    boxes: jax.Array,
    anchors: jax.Array,
    *,
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    pixel_offset: float = 0.0,
) -> jax.Array:
    """`[..., 4], [..., 4] -> [..., 4]`: what `decode_boxes` is to be given to make `boxes` of `anchors`.

    The way between the centers in sides of the anchor, and the logarithm of the sides' ratio, each
    times its weight: (10, 10, 5, 5) are the deviations 0.1, 0.1, 0.2, 0.2 by which py-faster-rcnn
    divides. 0 in all four where one of the two has no area.

    Source: Girshick et al. 2014, R-CNN, appendix C; torchvision's BoxCoder.encode_single; with
    `pixel_offset` = 1 bbox_transform of py-faster-rcnn.

    >>> anchor = jnp.array([[0.0, 0.0, 10.0, 10.0]])
    >>> encode_boxes(jnp.array([[5.0, 0.0, 15.0, 10.0]]), anchor).tolist()
    [[0.5, 0.0, 0.0, 0.0]]
    """
    (box, box_sides, usable), (anchor, anchor_sides, known) = (
        _center_and_size(each, pixel_offset) for each in _check_same_shape(boxes, anchors)
    )
    ratio = box_sides / anchor_sides
    deltas = jnp.concatenate([(box - anchor) / anchor_sides, jnp.log(ratio)], -1)
    deltas = deltas * _weights_like(weights, deltas)
    return jnp.where(usable & known, deltas, jnp.zeros_like(deltas))


def decode_boxes(
    deltas: jax.Array,
    anchors: jax.Array,
    *,
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    pixel_offset: float = 0.0,
    max_log_ratio: float = math.log(1000 / 16),
) -> jax.Array:
    """`[..., 4], [..., 4] -> [..., 4]`: the boxes that `deltas` make of `anchors`; see `encode_boxes`.

    Of equal ranks; axes of 1 repeat, so that [R, K, 4] takes anchors [R, 1, 4]. A side grows by
    exp(`clip_boxes`) at most (math.inf: as it is); NaN of a regressor stays NaN. An anchor without area
    is the box of side 1 around its center, or around 0 where that is not finite.
    With `pixel_offset` = 1 a box is one pixel larger than the one that was encoded, as it was published.

    Source: torchvision's BoxCoder.decode_single; with `pixel_offset` = 1 and `clip_boxes` = math.inf
    bbox_transform_inv of py-faster-rcnn.

    >>> decode_boxes(jnp.array([[0.5, 0.0, 0.0, 0.0]]), jnp.array([[0.0, 0.0, 10.0, 10.0]])).tolist()
    [[5.0, 0.0, 15.0, 10.0]]
    """
    deltas, anchors = _check_same_shape(deltas, anchors)
    center, sides, _ = _center_and_size(anchors, pixel_offset)
    deltas = deltas / _weights_like(weights, deltas)
    growth = deltas[..., 2:]
    if max_log_ratio < math.inf:
        growth = jnp.minimum(growth, jnp.asarray(max_log_ratio, growth.dtype))
    center, half = center + deltas[..., :2] * sides, jnp.exp(growth) * sides / 2
    return jnp.concatenate([center - half, center + half], -1)


def _accumulation_dtype(*arrays: jax.Array) -> list[jax.Array]:
    """The arrays in float32, or in float64 where one of them is."""
    double = any(each.dtype == jnp.float64 for each in arrays)
    return [jnp.asarray(each, jnp.float64 if double else jnp.float32) for each in arrays]


def _check_same_shape(a: jax.Array, b: jax.Array) -> list[jax.Array]:
    chex.assert_equal_rank([a, b])
    chex.assert_axis_dimension(a, -1, 4)
    chex.assert_axis_dimension(b, -1, 4)
    return _accumulation_dtype(a, b)


def _expand_pairs(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`[N, 4], [M, 4] -> [N, 1, 4], [1, M, 4]`, those that are not usable as boxes at 0."""
    chex.assert_shape([a, b], (None, 4))
    a, b = _accumulation_dtype(a, b)
    return _is_finite(a)[0][:, None], _is_finite(b)[0][None]


def _is_finite(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`[..., 4] -> [..., 4], [..., 1]`: boxes that are not finite are 0, before anything is made of
    them: the derivative of what `where` drops afterwards is 0 * inf."""
    (boxes,) = _accumulation_dtype(boxes)
    near = jnp.abs(boxes) <= jnp.asarray(MAX_LOG_RATIO, boxes.dtype)  # False for NaN
    usable = jnp.all(near, -1, keepdims=True)
    return jnp.where(usable, boxes, jnp.zeros_like(boxes)), usable


def _side_lengths(boxes: jax.Array, pixel_offset: float) -> tuple[jax.Array, jax.Array]:
    sides = boxes[..., 2:] - boxes[..., :2] + jnp.asarray(pixel_offset, boxes.dtype)
    sides = jnp.maximum(sides, jnp.zeros((), boxes.dtype))
    return sides[..., 0], sides[..., 1]


def _intersection(a: jax.Array, b: jax.Array, pixel_offset: float) -> tuple[jax.Array, jax.Array]:
    """Areas of what two boxes share and of what they cover; `[..., 4], [..., 4] -> [...], [...]`."""
    first, last = jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:])
    width, height = _side_lengths(jnp.concatenate([first, last], -1), pixel_offset)
    shared = width * height
    return shared, box_area(a, pixel_offset=pixel_offset) + box_area(
        b, pixel_offset=pixel_offset
    ) - shared


def _enclosing_area(a: jax.Array, b: jax.Array) -> jax.Array:
    first, last = jnp.minimum(a[..., :2], b[..., :2]), jnp.maximum(a[..., 2:], b[..., 2:])
    return jnp.concatenate([first, last], -1)


def _safe_divide(part: jax.Array, whole: jax.Array) -> jax.Array:
    """part / whole, and 0, of no gradient, where whole is nothing."""
    some = whole > jnp.asarray(MIN_SIDE**2, whole.dtype)
    quotient = part / jnp.where(some, whole, jnp.ones_like(whole))
    return jnp.where(some, quotient, jnp.zeros_like(quotient))


def _center_and_size(
    boxes: jax.Array, pixel_offset: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`[..., 4] -> [..., 2], [..., 2], [..., 1]`: centers, sides (1 where there is none), whether."""
    boxes, usable = _is_finite(boxes)
    sides = boxes[..., 2:] - boxes[..., :2] + jnp.asarray(pixel_offset, boxes.dtype)
    some = sides > jnp.asarray(MIN_SIDE, boxes.dtype)
    center = boxes[..., :2] + sides / 2
    sides = jnp.where(some, sides, jnp.ones_like(sides))
    return center, sides, usable & jnp.all(some, -1, keepdims=True)


def _weights_like(weights: Sequence[float], like: jax.Array) -> jax.Array:
    return jnp.asarray(weights, like.dtype).reshape((1,) * (like.ndim - 1) + (4,))
