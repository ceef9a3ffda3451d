"""Suppression against plain numpy and torchvision, ties included."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden import roi_fixtures
from zoo.ops import nms as module
from zoo.ops.nms import batched_nms, nms, soft_nms

GOLDEN = roi_fixtures.golden("nms")


def iou(one, many, pixel_offset=0.0):
    low, high = np.maximum(one[:2], many[:, :2]), np.minimum(one[2:], many[:, 2:])
    shared = np.maximum(high - low + pixel_offset, 0).prod(1)
    whole = (one[2:] - one[:2] + pixel_offset).prod() + (
        many[:, 2:] - many[:, :2] + pixel_offset
    ).prod(1)
    with np.errstate(invalid="ignore"):
        return shared / (whole - shared)


def slow_nms(boxes, scores, threshold, pixel_offset):
    left, kept = list(np.argsort(-scores, kind="stable")), []
    while left:
        best, rest = left[0], np.array(left[1:], int)
        kept.append(int(best))
        left = list(rest[~(iou(boxes[best], boxes[rest], pixel_offset) > threshold)])
    return kept


def slow_soft_nms(boxes, scores, count, weight):
    scores, found = scores.astype(np.float64).copy(), []
    for _ in range(count):
        best = int(scores.argmax())
        found.append((best, scores[best]))
        scores *= weight(iou(boxes[best], boxes))
        scores[[k for k, _ in found]] = -1
    return zip(*found, strict=True)


def kept(result):
    indices, valid = map(np.asarray, result)
    assert indices.dtype == np.int32 and (indices[~valid] == 0).all()
    assert (np.diff(valid.astype(int)) <= 0).all(), "the kept come first"
    return indices[valid].tolist()


def crowd():
    boxes, scores, labels = map(jnp.asarray, roi_fixtures.crowded())
    return boxes, scores, labels, jnp.ones(len(boxes), bool)


@functools.partial(jax.jit, static_argnames="pixel_offset")
def alone(boxes, scores, valid, threshold, pixel_offset=0.0):
    return nms(
        boxes, scores, valid, iou_threshold=threshold, max_outputs=300, pixel_offset=pixel_offset
    )


@jax.jit
def by_label(boxes, scores, labels, valid, threshold):
    return batched_nms(boxes, scores, labels, valid=valid, iou_threshold=threshold, max_outputs=300)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_SIZE", 64)  # several blocks, several parts of what is kept


@pytest.mark.parametrize("threshold", roi_fixtures.THRESHOLDS)
def test_as_torchvision(threshold):
    boxes, scores, labels, valid = crowd()
    assert kept(alone(boxes, scores, valid, threshold)) == GOLDEN[f"nms {threshold}"].tolist()
    found = kept(by_label(boxes, scores, labels, valid, threshold))
    assert found == GOLDEN[f"batched {threshold}"].tolist()


def test_as_numpy(monkeypatch):
    """In a batch, one block, some rows padding, the last pixel counted in, fewer asked for."""
    monkeypatch.setattr(module, "BLOCK_SIZE", 256)
    boxes, scores, _, valid = crowd()
    valid = valid.at[::3].set(False)
    both = [jnp.stack([each, each[::-1]]) for each in (boxes, scores, valid)]
    suppressed = functools.partial(nms, iou_threshold=0.4, max_outputs=40, pixel_offset=1.0)
    indices, ours = jax.jit(jax.vmap(suppressed))(*both)
    for k in range(2):
        rows = np.flatnonzero(both[2][k])
        b, s = np.asarray(both[0][k])[rows], np.asarray(both[1][k])[rows]
        expected = slow_nms(b, s, 0.4, pixel_offset=1.0)
        assert kept((indices[k], ours[k])) == rows[expected][:40].tolist()


def test_a_chain_of_overlaps():
    """Each suppresses the next: every other one is kept, across the blocks."""
    x = jnp.arange(240.0)
    boxes = jnp.stack([x, 0 * x, x + 2.5, 0 * x + 1], 1)
    assert kept(alone(boxes, -x, jnp.ones(240, bool), 0.4)) == list(range(0, 240, 2))


def test_nothing_and_nan():
    boxes, scores, _, valid = crowd()
    assert kept(alone(boxes, scores, ~valid, 0.5)) == []
    broken = boxes.at[0].set(jnp.nan).at[1, 2].set(jnp.nan).at[2].set(jnp.inf)
    scores = scores.at[3].set(jnp.nan).at[4].set(-jnp.inf)
    found = kept(alone(broken, scores, valid, 1.0))
    assert sorted(found) == [2, *range(4, 240)] and found[-1] == 4
    indices, lowered, some = map(np.asarray, soft(broken[:60], scores[:60], valid[:60]))
    assert np.isfinite(lowered).all() and not {0, 1, 3, 4} & set(indices[some].tolist())


def test_labels_do_not_mix():
    boxes, _, _, valid = crowd()
    boxes = jnp.zeros_like(boxes).at[:, 2:].set(5)
    labels = jnp.arange(240) % 2 + 2**20
    assert kept(by_label(boxes, jnp.ones(240), labels, valid, 0.5)) == [0, 1]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_types(dtype):
    expected = GOLDEN["batched 0.5"].tolist()
    with jax.enable_x64(dtype == jnp.float64):
        boxes, scores, labels, valid = crowd()
        boxes, scores = boxes.astype(dtype), scores.astype(dtype)  # whole numbers: exact
        assert kept(by_label(boxes, scores, labels, valid, 0.5)) == expected


WEIGHTS = {
    "gaussian": lambda x: np.exp(-np.square(x) / 0.5),
    "linear": lambda x: np.where(x > 0.3, 1 - x, 1),
}


@functools.partial(jax.jit, static_argnames="method")
def soft(boxes, scores, valid, method="gaussian"):
    return soft_nms(boxes, scores, valid, max_outputs=30, method=method)


@pytest.mark.parametrize("method", WEIGHTS)
def test_soft_nms_as_numpy(method):
    boxes, valid = roi_fixtures.boxes("soft", 60), jnp.arange(60) < 50
    scores = (np.random.default_rng(0).uniform(size=60) / 2 + 0.5).astype(np.float32)
    order, values = map(np.asarray, slow_soft_nms(boxes[:50], scores[:50], 30, WEIGHTS[method]))
    found = soft(jnp.asarray(boxes), jnp.asarray(scores), valid, method=method)
    indices, lowered, kept = map(np.asarray, found)
    assert kept.all() and indices.tolist() == order.tolist()
    np.testing.assert_allclose(lowered, values, rtol=1e-4)
    assert (np.diff(lowered) <= 0).all()


def test_soft_nms_ends():
    boxes = jnp.zeros((60, 4)).at[:, 2:].set(9)  # all alike: the first takes it all
    found = soft(boxes, jnp.linspace(0.9, 0.5, 60), jnp.ones(60, bool), method="linear")
    indices, lowered, some = map(np.asarray, found)
    assert some.tolist() == [True] + [False] * 29
    assert not lowered[1:].any() and not indices.any()
    with pytest.raises(ValueError, match="'hard'"):
        soft_nms(boxes, boxes[:, 0], boxes[:, 0] > 0, max_outputs=2, method="hard")
