"""Overlaps and offsets against plain numpy and torchvision; no NaN out of any box."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden import roi_fixtures
from zoo.ops import boxes
from zoo.ops.boxes import MAX_COORDINATE, box_diou, box_giou, box_iou, decode_boxes, encode_boxes

GOLDEN = roi_fixtures.golden("boxes")
OVERLAPS = {"box_iou": box_iou, "generalized_box_iou": box_giou, "distance_box_iou": box_diou}
WORST = np.array(  # with each other and with good ones
    [
        [10, 10, 50, 40],
        [0, 0, 0, 0],
        [5, 5, 5, 9],
        [30, 30, 20, 20],
        [np.nan] * 4,
        [0, np.nan, 3, 4],
        [-np.inf, 0, np.inf, 9],
        [0, 0, np.inf, np.inf],
        [-MAX_COORDINATE, -MAX_COORDINATE, MAX_COORDINATE, MAX_COORDINATE],
        [-3e38, 0, 3e38, 3e38],
        [1, 1, 1 + 1e-6, 1 + 1e-6],
        [1e-30, 1e-30, 2e-30, 2e-30],
    ],
    np.float32,
)


def jitted(f, **fields):
    return jax.jit(functools.partial(f, **fields))


def pair():
    return (jnp.asarray(roi_fixtures.boxes(name, 12)) for name in "ab")


def slow_iou(a, b, pixel_offset):
    """Pixel by pixel of the arithmetic, one pair at a time."""
    found = np.zeros((len(a), len(b)))
    for i, (ax0, ay0, ax1, ay1) in enumerate(np.asarray(a, np.float64)):
        for j, (bx0, by0, bx1, by1) in enumerate(np.asarray(b, np.float64)):
            width = max(min(ax1, bx1) - max(ax0, bx0) + pixel_offset, 0)
            height = max(min(ay1, by1) - max(ay0, by0) + pixel_offset, 0)
            whole = (ax1 - ax0 + pixel_offset) * (ay1 - ay0 + pixel_offset) + (
                bx1 - bx0 + pixel_offset
            ) * (by1 - by0 + pixel_offset)
            found[i, j] = width * height / (whole - width * height)
    return found


@pytest.mark.parametrize("name", OVERLAPS)
def test_as_torchvision(name):
    a, b = pair()
    slope = jnp.asarray(roi_fixtures.slope(name, (12, 12)))

    def both(a, b):
        y, back = jax.vjp(lambda x: OVERLAPS[name](x, b), a)
        return y, back(slope)[0]

    y, gradient = jax.jit(both)(a, b)
    np.testing.assert_allclose(y, GOLDEN[name], atol=1e-6)
    np.testing.assert_allclose(gradient, GOLDEN[f"{name} gradient"], atol=2e-6)


@pytest.mark.parametrize("pixel_offset", [0.0, 1.0])
def test_iou_as_numpy(pixel_offset):
    a, b = pair()
    np.testing.assert_allclose(
        jitted(box_iou, pixel_offset=pixel_offset)(a, b), slow_iou(a, b, pixel_offset), atol=1e-6
    )
    sides = np.asarray(b)[:, 2:] - np.asarray(b)[:, :2] + pixel_offset
    np.testing.assert_allclose(
        jitted(boxes.box_area, pixel_offset=pixel_offset)(b), sides.prod(1), rtol=1e-6
    )


def test_coder_as_torchvision():
    a, b = pair()
    deltas = jitted(encode_boxes, weights=roi_fixtures.WEIGHTS)(a, b)
    np.testing.assert_allclose(deltas, GOLDEN["encode"], rtol=1e-5, atol=2e-5)
    far = jitted(decode_boxes, weights=roi_fixtures.WEIGHTS)(GOLDEN["encode"] * 4, b)
    np.testing.assert_allclose(far, GOLDEN["decode"], rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(
        jitted(boxes.clip_boxes, size=roi_fixtures.SIZE)(a), GOLDEN["clip"]
    )


@pytest.mark.parametrize("pixel_offset", [0.0, 1.0])
def test_decode_inverts_encode(pixel_offset):
    a, b = pair()
    fields = dict(weights=roi_fixtures.WEIGHTS, pixel_offset=pixel_offset)
    again = jax.jit(lambda a, b: decode_boxes(encode_boxes(a, b, **fields), b, **fields))(a, b)
    # with pixel_offset, py-faster-rcnn's x1 is center + width / 2, the pixel after the last
    grown = np.asarray(a) + np.array([0, 0, pixel_offset, pixel_offset])
    np.testing.assert_allclose(again, grown, atol=1e-4)


def test_growth_is_bounded():
    _, b = pair()
    sides = [
        boxes.to_center_form(jitted(decode_boxes, **fields)(jnp.full((12, 4), 50.0), b))[:, 2:]
        for fields in ({}, dict(max_log_ratio=math.inf))
    ]
    np.testing.assert_allclose(sides[0], boxes.to_center_form(b)[:, 2:] * 62.5, rtol=1e-4)
    assert (sides[1] > 1e20).all()


def test_encode_by_hand():
    """R-CNN, appendix C, with pixels that count in: bbox_transform of py-faster-rcnn."""
    box, anchor = jnp.array([[10.0, 20, 29, 59]]), jnp.array([[5.0, 5, 14, 24]])
    expected = [(20 - 10) / 10, (40 - 15) / 20, math.log(2), math.log(2)]
    np.testing.assert_allclose(
        jitted(encode_boxes, pixel_offset=1.0)(box, anchor)[0], expected, rtol=1e-6
    )


def test_centers():
    a, _ = pair()
    centers = boxes.to_center_form(a)
    np.testing.assert_allclose(centers[:, 0], (a[:, 0] + a[:, 2]) / 2)
    np.testing.assert_allclose(boxes.from_center_form(centers), a, atol=1e-5)


def test_clip_within_pixels():
    found = boxes.clip_boxes(
        jnp.array([[[-5.0, -5.0, 500.0, 500.0]]]), jnp.array([30, 40]), pixel_offset=1.0
    )
    assert found.tolist() == [[[0, 0, 39, 29]]]


@pytest.mark.parametrize("f", [functools.partial(box_iou, pixel_offset=1.0), box_giou, box_diou])
def test_overlaps_of_the_worst(f):
    def total(a, b):
        y = f(a, b)
        return jnp.sum(y), y

    slopes, y = jax.jit(jax.grad(total, (0, 1), has_aux=True))(WORST, WORST)
    assert np.isfinite(y).all() and all(np.isfinite(each).all() for each in slopes)
    assert y[0, 0] == 1 and np.abs(y[0, 1:]).max() < 1.5


@pytest.mark.parametrize(
    "f", [encode_boxes, functools.partial(encode_boxes, pixel_offset=1.0), decode_boxes]
)
def test_offsets_of_the_worst(f):
    usual = jnp.asarray(WORST[:1])
    offsets = jnp.array([[0.3, -0.2, 0.1, 4.0]] * len(WORST))
    one = jnp.repeat(usual, len(WORST), 0)
    pairs = (
        [(offsets, WORST)] if f is decode_boxes else [(one, WORST), (WORST, one), (WORST, WORST)]
    )
    if f is decode_boxes:
        pairs.append((offsets * 1e20, one))

    @jax.jit
    def both(a, b):
        y, back = jax.vjp(f, a, b)
        return y, back(jnp.ones_like(y))

    for a, b in pairs:
        y, slopes = both(a, b)
        assert np.isfinite(y).all()
        assert all(np.isfinite(each).all() for each in slopes)
    if f is encode_boxes:
        assert (y[1:8] == 0).all()


def test_a_regressor_that_diverges_is_seen():
    assert np.isnan(decode_boxes(jnp.full((1, 4), jnp.nan), jnp.asarray(WORST[:1]))).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_types(dtype):
    wide = jnp.float64 if dtype == jnp.float64 else jnp.float32
    with jax.enable_x64(dtype == jnp.float64):
        a, b = (jnp.asarray(roi_fixtures.boxes(name, 12), dtype) for name in "ab")
        assert jax.eval_shape(box_giou, a, b.astype(jnp.float32)).dtype == wide
        deltas = jax.jit(encode_boxes)(a, b)
        assert deltas.dtype == wide
        again = jax.jit(decode_boxes)(deltas, b)
        assert again.dtype == wide
        np.testing.assert_allclose(again, a.astype(wide), atol=1e-4)


def test_vmap():
    a, b = pair()
    many = jax.jit(jax.vmap(box_giou))(jnp.stack([a, b]), jnp.stack([b, a]))
    np.testing.assert_allclose(many[0], many[1].T, atol=1e-6)
    per_class = jax.jit(decode_boxes)(jnp.zeros((12, 3, 4)), b[:, None])
    np.testing.assert_allclose(per_class, jnp.repeat(b[:, None], 3, 1), atol=1e-5)


def test_mistakes():
    with pytest.raises(AssertionError):
        box_iou(jnp.zeros((2, 5)), jnp.zeros((2, 4)))
    with pytest.raises(AssertionError):
        decode_boxes(jnp.zeros((2, 3, 4)), jnp.zeros((2, 4)))
