"""The proposal layer against torchvision's and py-faster-rcnn's steps in plain numpy."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden import roi_fixtures
from tests.zoo.ops.test_nms import slow_nms
from zoo.ops.proposals import select_proposals


def test_as_torchvision():
    """Three maps; the best anchors of the first lie beside the picture and take its places."""
    golden = roi_fixtures.golden("proposals")
    fields = dict(
        pre_nms_top_n=roi_fixtures.BEFORE,
        post_nms_top_n=roi_fixtures.AFTER,
        nms_thresh=roi_fixtures.KEPT,
        min_size=1e-3,
    )
    f = functools.partial(select_proposals, levels=roi_fixtures.LEVELS, **fields)
    boxes, scores, valid = jax.jit(f)(*roi_fixtures.levels(), size=jnp.array(roi_fixtures.SIZE))
    assert valid.sum() == len(golden["scores"])
    np.testing.assert_allclose(boxes[valid], golden["boxes"], atol=1e-4)
    np.testing.assert_allclose(scores[valid], golden["scores"], atol=1e-6)


def slow_proposals(
    logits, deltas, anchors, size, pre_nms_top_n, post_nms_top_n, nms_thresh, min_size
):
    """proposal_layer.py: all boxes, clipped; the large ones; the best; suppression."""
    sides = anchors[:, 2:] - anchors[:, :2] + 1
    center = anchors[:, :2] + sides / 2 + deltas[:, :2] * sides
    half = np.exp(deltas[:, 2:]) * sides / 2
    boxes = np.concatenate([center - half, center + half], 1)
    boxes = boxes.clip(0, np.array([size[1], size[0]] * 2) - 1)
    large = ((boxes[:, 2:] - boxes[:, :2] + 1) >= min_size).all(1)
    boxes, logits = boxes[large], logits[large]
    best = np.argsort(-logits, kind="stable")[:pre_nms_top_n]
    kept = slow_nms(boxes[best], logits[best], nms_thresh, pixel_offset=1.0)[:post_nms_top_n]
    return boxes[best][kept], logits[best][kept]


def test_as_in_the_paper():
    logits, deltas, anchors = roi_fixtures.levels()
    options = dict(pre_nms_top_n=40, post_nms_top_n=20, nms_thresh=0.5, min_size=12.0)
    expected, ranks = slow_proposals(logits, deltas, anchors, roi_fixtures.SIZE, **options)
    f = functools.partial(
        select_proposals,
        pixel_offset=1.0,
        max_log_ratio=math.inf,
        filter_small_first=True,
        **options,
    )
    boxes, scores, valid = jax.jit(f)(logits, deltas, anchors, size=jnp.array(roi_fixtures.SIZE))
    assert valid.sum() == len(ranks)
    np.testing.assert_allclose(boxes[valid], expected, atol=1e-4)
    np.testing.assert_allclose(scores[valid], 1 / (1 + np.exp(-ranks)), atol=1e-6)


def test_few_and_broken():
    """Fewer anchors than asked for; offsets of NaN are no proposals; no gradient, a batch, bfloat16."""
    logits, deltas, anchors = (each[-6:] for each in roi_fixtures.levels())
    deltas = deltas.copy()
    deltas[0] = np.nan
    f = functools.partial(
        select_proposals, pre_nms_top_n=50, post_nms_top_n=9, nms_thresh=0.9, min_size=1e-3
    )

    def total(logits, deltas):
        boxes, scores, valid = f(logits, deltas, anchors, size=roi_fixtures.SIZE)
        return jnp.sum(boxes) + jnp.sum(scores), (boxes, valid)

    arguments = [jnp.asarray(each, jnp.bfloat16)[None] for each in (logits, deltas)]
    slopes, (boxes, valid) = jax.jit(jax.vmap(jax.grad(total, (0, 1), has_aux=True)))(*arguments)
    assert boxes.dtype == jnp.float32 and boxes.shape == (1, 9, 4)
    assert np.isfinite(boxes).all() and 0 < valid.sum() <= 5
    assert not boxes[~valid].any() and not any(each.any() for each in slopes)


def test_mistakes():
    logits, deltas, anchors = roi_fixtures.levels()
    with pytest.raises(ValueError, match=r"levels that sum to 126 anchors, got \(3, 4\)"):
        select_proposals(
            logits,
            deltas,
            anchors,
            size=(9, 9),
            pre_nms_top_n=1,
            post_nms_top_n=1,
            nms_thresh=0.7,
            min_size=1,
            levels=(3, 4),
        )
