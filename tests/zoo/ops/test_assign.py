"""Matches against torchvision and plain numpy; the law of the sampler."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden import roi_fixtures
from zoo.ops.assign import match_anchors, sample_balanced

HIGH, LOW = roi_fixtures.SHARES
matched = jax.jit(
    functools.partial(match_anchors, fg_iou_thresh=HIGH, bg_iou_thresh=LOW),
    static_argnames="allow_low_quality_matches",
)


@pytest.mark.parametrize("low_quality", [False, True])
def test_as_torchvision(low_quality):
    """Ties between rows and between columns, and rows of padding anywhere."""
    iou, golden = roi_fixtures.overlaps(), roi_fixtures.golden("assign")[f"match {low_quality}"]
    found = matched(iou, jnp.ones(5, bool), allow_low_quality_matches=low_quality)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, golden)
    rows = np.array([1, 2, 4, 5, 7])
    padded = np.ones((8, 60), np.float32)
    padded[rows] = iou
    found = matched(
        padded, jnp.zeros(8, bool).at[rows].set(True), allow_low_quality_matches=low_quality
    )
    np.testing.assert_array_equal(found, np.where(golden < 0, golden, rows[golden]))


def slow_match(iou, valid):
    found = np.full(iou.shape[1], -1)
    for column in range(iou.shape[1]):
        rows = [row for row in range(len(iou)) if valid[row]]
        best = max(rows, key=lambda row, c=column: iou[row, c], default=None)
        if best is None:
            continue
        own = iou[best, column]
        chosen = any(0 < iou[row, column] == iou[row].max() for row in rows)
        found[column] = best if own >= HIGH or chosen else -1 if own < LOW else -2
    return found


def test_as_numpy():
    rng = np.random.default_rng(0)
    iou = (rng.integers(0, 11, (3, 5, 60)) / 20).astype(np.float32)
    valid = rng.uniform(size=(3, 5)) < 0.6
    valid[2] = False
    found = jax.jit(
        jax.vmap(functools.partial(match_anchors, fg_iou_thresh=HIGH, bg_iou_thresh=LOW))
    )(iou, valid)
    np.testing.assert_array_equal(found, list(map(slow_match, iou, valid)))


def test_nothing_overlaps():
    """A box outside of all anchors takes none; neither does one that has no area."""
    iou = np.zeros((5, 60), np.float32)
    iou[0, :9] = 0.9
    assert matched(iou, jnp.ones(5, bool)).tolist() == [0] * 9 + [-1] * 51
    assert matched(iou - 1, jnp.zeros(5, bool)).tolist() == [-1] * 60
    with pytest.raises(
        ValueError, match="expected bg_iou_thresh <= fg_iou_thresh, got 0.7 and 0.3"
    ):
        match_anchors(iou, iou[:, 0] > 0, fg_iou_thresh=0.3, bg_iou_thresh=0.7)


@functools.partial(jax.jit, static_argnames=("count", "share"))
@functools.partial(jax.vmap, in_axes=(0, None, None, None, None))
def draw(key, positive, negative, count, share):
    return sample_balanced(key, positive, negative, batch_size=count, positive_fraction=share)


KEYS = jax.random.split(jax.random.key(0), 200)
CASES = {  # positive, negative, count, share, how many of both are drawn
    "enough of both": (20, 70, 16, 0.25, 4, 12),
    "few positive": (2, 70, 16, 0.25, 2, 14),
    "few negative": (20, 5, 16, 0.25, 4, 5),
    "nothing": (0, 0, 16, 0.25, 0, 0),
    "no share": (20, 70, 16, 0.01, 0, 16),
    "more than there are": (20, 70, 120, 0.5, 20, 70),
}


@pytest.mark.parametrize("case", CASES)
def test_sample(case):
    first, second, count, share, positives, negatives = CASES[case]
    place = np.arange(100)
    positive, negative = place < first, (place >= 30) & (place < 30 + second)
    indices, is_positive, valid = map(
        np.asarray, draw(KEYS[:3], jnp.asarray(positive), jnp.asarray(negative), count, share)
    )
    assert indices.shape == is_positive.shape == valid.shape == (3, count)
    for some, ours, used in zip(indices, is_positive, valid, strict=True):
        assert ours.sum() == positives and used.sum() == positives + negatives
        assert (ours <= used).all() and positive[some[ours]].all()
        assert negative[some[used & ~ours]].all() and not some[~used].any()
        assert len(set(some[used].tolist())) == used.sum(), "without replacement"


def test_draws_are_even():
    """Each of 20 positive in a fifth of 200 draws, each of 70 negative in 12 of 70: within 5 sigma."""
    place = jnp.arange(100)
    indices, is_positive, _ = map(
        np.asarray, draw(KEYS, place < 20, (place >= 30) & (place < 100), 16, 0.25)
    )
    counts = np.bincount(indices[is_positive], minlength=20)
    assert (np.abs(counts - 40) < 5 * np.sqrt(200 * 0.2 * 0.8)).all()
    counts = np.bincount(indices[~is_positive], minlength=100)[30:]
    share = 12 / 70
    assert (np.abs(counts - 200 * share) < 5 * np.sqrt(200 * share * (1 - share))).all()
