"""Suppression against plain numpy and torchvision, ties included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden import places
from zoo.ops import nms as module
from zoo.ops.nms import batched_nms, nms, soft_nms

GOLDEN = places.golden("nms")


def iou(one, many, plus=0.0):
    low, high = np.maximum(one[:2], many[:, :2]), np.minimum(one[2:], many[:, 2:])
    shared = np.maximum(high - low + plus, 0).prod(1)
    whole = (one[2:] - one[:2] + plus).prod() + (many[:, 2:] - many[:, :2] + plus).prod(1)
    with np.errstate(invalid="ignore"):
        return shared / (whole - shared)


def slow_nms(boxes, scores, labels, threshold, plus=0.0):
    left, kept = list(np.argsort(-scores, kind="stable")), []
    while left:
        best, rest = left[0], np.array(left[1:], int)
        kept.append(int(best))
        falls = (iou(boxes[best], boxes[rest], plus) > threshold) & (labels[rest] == labels[best])
        left = list(rest[~falls])
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


def crowd(count=None):
    boxes, scores, labels = map(jnp.asarray, places.crowded())
    return boxes[:count], scores[:count], labels[:count], jnp.ones(len(boxes[:count]), bool)


@pytest.mark.parametrize("threshold", places.THRESHOLDS)
def test_as_torchvision(threshold, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 32)  # several blocks, several parts of what is kept
    boxes, scores, labels, valid = crowd()
    found = kept(nms(boxes, scores, valid, threshold=threshold, count=300))
    assert found == GOLDEN[f"nms {threshold}"].tolist()
    found = kept(batched_nms(boxes, scores, labels, valid, threshold=threshold, count=300))
    assert found == GOLDEN[f"batched {threshold}"].tolist()


@pytest.mark.parametrize("block", [32, 256])
def test_as_numpy(block, monkeypatch):
    """Jitted, in a batch, some rows padding, with the last pixel counted in or not."""
    monkeypatch.setattr(module, "BLOCK", block)
    boxes, scores, labels, valid = crowd()
    valid = valid.at[::3].set(False)
    both = [jnp.stack([each, each[::-1]]) for each in (boxes, scores, valid)]
    for plus in (0.0, 1.0):

        def suppressed(*arrays, plus=plus):
            return nms(*arrays, threshold=0.4, count=40, plus=plus)

        indices, ours = jax.jit(jax.vmap(suppressed))(*both)
        for k in range(2):
            rows = np.flatnonzero(both[2][k])
            b, s = np.asarray(both[0][k])[rows], np.asarray(both[1][k])[rows]
            expected = slow_nms(b, s, np.zeros(len(rows)), 0.4, plus)
            assert kept((indices[k], ours[k])) == rows[expected][:40].tolist()


def test_a_chain_of_overlaps():
    """Each suppresses the next: every other one is kept, whatever the block."""
    x = jnp.arange(300.0)
    boxes = jnp.stack([x, 0 * x, x + 2.5, 0 * x + 1], 1)
    found = nms(boxes, -x, jnp.ones(300, bool), threshold=0.4, count=200)
    assert kept(found) == list(range(0, 300, 2))


def test_nothing_and_nan():
    boxes, scores, _, valid = crowd(20)
    assert kept(nms(boxes, scores, ~valid, threshold=0.5, count=5)) == []
    broken = boxes.at[0].set(jnp.nan).at[1, 2].set(jnp.nan).at[2].set(jnp.inf)
    scores = scores.at[3].set(jnp.nan).at[4].set(-jnp.inf)
    found = kept(nms(broken, scores, valid, threshold=1.0, count=30))
    assert sorted(found) == [2, *range(4, 20)] and found[-1] == 4
    indices, lowered, some = soft_nms(broken, scores, valid, count=25)
    assert np.isfinite(lowered).all() and not {0, 1, 3, 4} & set(np.asarray(indices[some]).tolist())


def test_integer_labels_do_not_mix():
    boxes = jnp.zeros((3, 4)).at[:, 2:].set(5)
    labels = jnp.array([2**20, 2**20 + 1, 2**20])
    found = batched_nms(boxes, jnp.ones(3), labels, jnp.ones(3, bool), threshold=0.5, count=3)
    assert kept(found) == [0, 1]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_types(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        boxes, scores, labels, valid = crowd(60)
        expected = kept(batched_nms(boxes, scores, labels, valid, threshold=0.5, count=60))
        boxes, scores = boxes.astype(dtype), scores.astype(dtype)  # whole numbers: exact
        found = batched_nms(boxes, scores, labels, valid, threshold=0.5, count=60)
        assert kept(found) == expected


WEIGHTS = {
    "gaussian": lambda x: np.exp(-np.square(x) / 0.5),
    "linear": lambda x: np.where(x > 0.3, 1 - x, 1),
}


@pytest.mark.parametrize("method", WEIGHTS)
def test_soft_nms_as_numpy(method):
    rows = slice(0, 60)
    boxes, valid = places.boxes("soft", 60), jnp.arange(60) < 50
    scores = (np.random.default_rng(0).uniform(size=60) / 2 + 0.5).astype(np.float32)
    expected = slow_soft_nms(boxes[:50], scores[:50], 30, WEIGHTS[method])
    args = (jnp.asarray(boxes[rows]), jnp.asarray(scores), valid)
    indices, lowered, kept = jax.jit(lambda *x: soft_nms(*x, count=30, method=method))(*args)
    order, values = map(np.asarray, expected)
    assert kept.all() and indices.tolist() == order.tolist()
    np.testing.assert_allclose(lowered, values, rtol=1e-4)
    assert (np.diff(lowered) <= 0).all()


def test_soft_nms_ends():
    boxes, scores = jnp.zeros((4, 4)).at[:, 2:].set(9), jnp.array([0.9, 0.5, 0.4, 0.3])
    indices, lowered, some = soft_nms(
        boxes, scores, jnp.ones(4, bool), count=6, method="linear", least=0.01
    )
    assert some.tolist() == [True] + [False] * 5
    assert lowered.tolist()[1:] == [0] * 5 and indices.tolist()[1:] == [0] * 5
    with pytest.raises(ValueError, match="'hard'"):
        soft_nms(boxes, scores, jnp.ones(4, bool), count=2, method="hard")
