"""Box geometry: areas, overlaps, and encoding relative to anchors.

Boxes are (x0, y0, x1, y1) in pixels. Everything is computed in float32 or float64, whatever the
input. A box that is not finite, or whose coordinates exceed MAX_COORDINATE, counts as a box without
area. A box without area overlaps nothing and has no gradient, so padding, broken annotations and a
diverging regressor give no NaN.
"""

import math
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

MAX_COORDINATE = 1e15  # its square, and its quotient by MIN_SIDE, are finite in float32
MIN_SIDE = 1e-9  # a box with a shorter side has no area; the inverse squared area is finite


def box_area(boxes: jax.Array, *, pixel_offset: float = 0.0) -> jax.Array:
    """Computes the area of boxes; 0 where a side is negative.

    Args:
        boxes: boxes [..., 4].
        pixel_offset: 1 counts the last pixel as part of the box, as py-faster-rcnn and the first
            VOC toolkits do: a box from 3 to 5 is 3 wide.

    Returns:
        Areas [...] in square pixels.

    Source: torchvision.ops.box_area.

    >>> box_area(jnp.array([[0.0, 0.0, 4.0, 2.0], [3.0, 3.0, 1.0, 1.0]])).tolist()
    [8.0, 0.0]
    """
    width, height = _side_lengths(_mask_unusable(boxes)[0], pixel_offset)
    return width * height


def to_center_form(boxes: jax.Array) -> jax.Array:
    """Converts (x0, y0, x1, y1) to (center x, center y, width, height).

    Args:
        boxes: boxes [..., 4].

    Returns:
        Boxes in center form [..., 4].

    Source: torchvision.ops.box_convert, "xyxy" to "cxcywh".

    >>> to_center_form(jnp.array([0.0, 0.0, 4.0, 2.0])).tolist()
    [2.0, 1.0, 4.0, 2.0]
    """
    first, last = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([(first + last) / 2, last - first], -1)


def from_center_form(boxes: jax.Array) -> jax.Array:
    """Converts (center x, center y, width, height) to (x0, y0, x1, y1).

    Args:
        boxes: boxes in center form [..., 4].

    Returns:
        Boxes [..., 4].

    Source: torchvision.ops.box_convert, "cxcywh" to "xyxy".

    >>> from_center_form(jnp.array([2.0, 1.0, 4.0, 2.0])).tolist()
    [0.0, 0.0, 4.0, 2.0]
    """
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return jnp.concatenate([center - half, center + half], -1)


def clip_boxes(
    boxes: jax.Array, size: jax.Array | Sequence[float], *, pixel_offset: float = 0.0
) -> jax.Array:
    """Clips boxes to the image.

    Args:
        boxes: boxes [..., 4].
        size: height and width of the image [2].
        pixel_offset: with 1 the last pixel of a row is at width - 1.

    Returns:
        Clipped boxes [..., 4].

    Source: torchvision.ops.clip_boxes_to_image; clip_boxes of py-faster-rcnn.

    >>> clip_boxes(jnp.array([[-3.0, 1.0, 7.0, 9.0]]), (5, 6)).tolist()
    [[0.0, 1.0, 6.0, 5.0]]
    """
    height, width = (jnp.asarray(side, boxes.dtype) for side in size)
    zero = jnp.zeros((), boxes.dtype)
    last = jnp.stack([width, height, width, height]) - jnp.asarray(pixel_offset, boxes.dtype)
    return jnp.clip(boxes, zero, last.reshape((1,) * (boxes.ndim - 1) + (4,)))


def box_iou(a: jax.Array, b: jax.Array, *, pixel_offset: float = 0.0) -> jax.Array:
    """Computes the intersection over union of all pairs; 0 where torchvision returns NaN.

    Args:
        a: boxes [N, 4].
        b: boxes [M, 4].
        pixel_offset: see `box_area`.

    Returns:
        IoU [N, M].

    Source: torchvision.ops.box_iou; with `pixel_offset` = 1 bbox_overlaps of py-faster-rcnn.

    >>> box_iou(jnp.array([[0.0, 0.0, 2.0, 2.0]]), jnp.array([[1.0, 0.0, 3.0, 2.0]])).round(4)
    Array([[0.3333]], dtype=float32)
    """
    a, b = _expand_pairs(a, b)
    intersection, union = _intersection(a, b, pixel_offset)
    return _safe_divide(intersection, union)


def box_giou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Computes the generalized IoU of all pairs.

    It is the IoU minus the share of the enclosing box that belongs to neither box. It lies between
    -1 (far apart) and 1 (equal) and has a gradient where the boxes do not meet.

    Args:
        a: boxes [N, 4].
        b: boxes [M, 4].

    Returns:
        GIoU [N, M].

    Source: Rezatofighi et al. 2019, Generalized Intersection over Union, algorithm 1;
    torchvision.ops.generalized_box_iou.

    >>> box_giou(jnp.array([[0.0, 0.0, 1.0, 1.0]]), jnp.array([[3.0, 0.0, 4.0, 1.0]])).tolist()
    [[-0.5]]
    """
    a, b = _expand_pairs(a, b)
    intersection, union = _intersection(a, b, 0.0)
    width, height = _side_lengths(_enclosing_box(a, b), 0.0)
    hull = width * height
    return _safe_divide(intersection, union) - _safe_divide(hull - union, hull)


def box_diou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Computes the distance IoU of all pairs.

    It is the IoU minus (distance of the centers / diagonal of the enclosing box) squared.
    torchvision adds 1e-7 to the squared diagonal.

    Args:
        a: boxes [N, 4].
        b: boxes [M, 4].

    Returns:
        DIoU [N, M].

    Source: Zheng et al. 2020, Distance-IoU Loss, equation 6; torchvision.ops.distance_box_iou.

    >>> box_diou(jnp.array([[0.0, 0.0, 1.0, 1.0]]), jnp.array([[3.0, 0.0, 4.0, 1.0]])).round(4)
    Array([[-0.5294]], dtype=float32)
    """
    a, b = _expand_pairs(a, b)
    intersection, union = _intersection(a, b, 0.0)
    hull = _enclosing_box(a, b)
    diagonal = jnp.sum(jnp.square(hull[..., 2:] - hull[..., :2]), -1)
    center_distance = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    return _safe_divide(intersection, union) - _safe_divide(
        jnp.sum(jnp.square(center_distance), -1), diagonal
    )


def encode_boxes(
    boxes: jax.Array,
    anchors: jax.Array,
    *,
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    pixel_offset: float = 0.0,
) -> jax.Array:
    """Encodes boxes relative to anchors: the inverse of `decode_boxes`.

    The first two values are the distance of the centers in units of the anchor's sides, the last
    two the logarithm of the ratio of the sides. All are 0 where either box has no area.

    Args:
        boxes: ground truth boxes [..., 4].
        anchors: anchors [..., 4].
        weights: factors on the four values. (10, 10, 5, 5) correspond to the standard deviations
            0.1, 0.1, 0.2, 0.2 by which py-faster-rcnn divides.
        pixel_offset: see `box_area`.

    Returns:
        Encoded boxes (dx, dy, dw, dh) [..., 4].

    Source: Girshick et al. 2014, R-CNN, appendix C; torchvision's BoxCoder.encode_single; with
    `pixel_offset` = 1 bbox_transform of py-faster-rcnn.

    >>> anchor = jnp.array([[0.0, 0.0, 10.0, 10.0]])
    >>> encode_boxes(jnp.array([[5.0, 0.0, 15.0, 10.0]]), anchor).tolist()
    [[0.5, 0.0, 0.0, 0.0]]
    """
    (box, box_sides, box_has_area), (anchor, anchor_sides, anchor_has_area) = (
        _center_and_size(array, pixel_offset) for array in _check_same_shape(boxes, anchors)
    )
    ratio = box_sides / anchor_sides
    deltas = jnp.concatenate([(box - anchor) / anchor_sides, jnp.log(ratio)], -1)
    deltas = deltas * _weights_like(weights, deltas)
    return jnp.where(box_has_area & anchor_has_area, deltas, jnp.zeros_like(deltas))


def decode_boxes(
    deltas: jax.Array,
    anchors: jax.Array,
    *,
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    pixel_offset: float = 0.0,
    max_log_ratio: float = math.log(1000 / 16),
) -> jax.Array:
    """Applies encoded offsets to anchors: the inverse of `encode_boxes`.

    The arrays have equal ranks, and axes of length 1 broadcast: [R, K, 4] takes anchors [R, 1, 4].
    NaN of a regressor stays NaN. An anchor without area is replaced by a box of side 1 around its
    center, or around 0 if that is not finite. With `pixel_offset=1` a decoded box is one pixel
    larger than the encoded one, as in the published code.

    Args:
        deltas: encoded boxes (dx, dy, dw, dh) [..., 4].
        anchors: anchors [..., 4].
        weights: see `encode_boxes`.
        pixel_offset: see `box_area`.
        max_log_ratio: bound on dw and dh; `math.inf` for none.

    Returns:
        Boxes [..., 4].

    Source: torchvision's BoxCoder.decode_single; with `pixel_offset=1` and `max_log_ratio=math.inf`
    bbox_transform_inv of py-faster-rcnn.

    >>> anchor = jnp.array([[0.0, 0.0, 10.0, 10.0]])
    >>> decode_boxes(jnp.array([[0.5, 0.0, 0.0, 0.0]]), anchor).tolist()
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


def _to_float(*arrays: jax.Array) -> list[jax.Array]:
    """Casts the arrays to float32, or to float64 if one of them is float64."""
    double = any(array.dtype == jnp.float64 for array in arrays)
    return [jnp.asarray(array, jnp.float64 if double else jnp.float32) for array in arrays]


def _check_same_shape(a: jax.Array, b: jax.Array) -> list[jax.Array]:
    chex.assert_equal_rank([a, b])
    chex.assert_axis_dimension(a, -1, 4)
    chex.assert_axis_dimension(b, -1, 4)
    return _to_float(a, b)


def _expand_pairs(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Broadcasts boxes for all pairs, [N, 1, 4] and [1, M, 4]; unusable boxes become 0."""
    chex.assert_shape([a, b], (None, 4))
    a, b = _to_float(a, b)
    return _mask_unusable(a)[0][:, None], _mask_unusable(b)[0][None]


def _mask_unusable(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Replaces boxes that are not finite by 0 and returns which boxes are usable [..., 1].

    They are replaced before any computation, because the derivative of a value that `where` drops
    afterwards is 0 * inf.
    """
    (boxes,) = _to_float(boxes)
    is_near = jnp.abs(boxes) <= jnp.asarray(MAX_COORDINATE, boxes.dtype)  # False for NaN
    is_usable = jnp.all(is_near, -1, keepdims=True)
    return jnp.where(is_usable, boxes, jnp.zeros_like(boxes)), is_usable


def _side_lengths(boxes: jax.Array, pixel_offset: float) -> tuple[jax.Array, jax.Array]:
    sides = boxes[..., 2:] - boxes[..., :2] + jnp.asarray(pixel_offset, boxes.dtype)
    sides = jnp.maximum(sides, jnp.zeros((), boxes.dtype))
    return sides[..., 0], sides[..., 1]


def _intersection(a: jax.Array, b: jax.Array, pixel_offset: float) -> tuple[jax.Array, jax.Array]:
    """Returns the areas of intersection and union of broadcast boxes."""
    first, last = jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:])
    width, height = _side_lengths(jnp.concatenate([first, last], -1), pixel_offset)
    intersection = width * height
    areas = box_area(a, pixel_offset=pixel_offset) + box_area(b, pixel_offset=pixel_offset)
    return intersection, areas - intersection


def _enclosing_box(a: jax.Array, b: jax.Array) -> jax.Array:
    first, last = jnp.minimum(a[..., :2], b[..., :2]), jnp.maximum(a[..., 2:], b[..., 2:])
    return jnp.concatenate([first, last], -1)


def _safe_divide(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """Divides, with result and gradient 0 where the denominator vanishes."""
    is_nonzero = denominator > jnp.asarray(MIN_SIDE**2, denominator.dtype)
    quotient = numerator / jnp.where(is_nonzero, denominator, jnp.ones_like(denominator))
    return jnp.where(is_nonzero, quotient, jnp.zeros_like(quotient))


def _center_and_size(
    boxes: jax.Array, pixel_offset: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns centers, sides (1 where there is no area) and whether there is area."""
    boxes, is_usable = _mask_unusable(boxes)
    sides = boxes[..., 2:] - boxes[..., :2] + jnp.asarray(pixel_offset, boxes.dtype)
    is_positive = sides > jnp.asarray(MIN_SIDE, boxes.dtype)
    center = boxes[..., :2] + sides / 2
    sides = jnp.where(is_positive, sides, jnp.ones_like(sides))
    return center, sides, is_usable & jnp.all(is_positive, -1, keepdims=True)


def _weights_like(weights: Sequence[float], like: jax.Array) -> jax.Array:
    return jnp.asarray(weights, like.dtype).reshape((1,) * (like.ndim - 1) + (4,))
