"""Orders and splits hold for ever, and a split holds each class to its share."""

import numpy as np
import pytest

from train.data.permutation import permutation, stratified_split


def test_permutation_is_the_same_for_ever():
    # Written down once: a numpy or a machine that orders otherwise would change every run.
    assert permutation(10, 0).tolist() == [3, 2, 1, 8, 6, 0, 7, 4, 5, 9]
    assert permutation(10, 7, 2).tolist() == [8, 6, 4, 0, 5, 7, 1, 3, 9, 2]
    with pytest.raises(ValueError, match="^a seed is 0 or more; got -1$"):
        permutation(10, -1, 2)


def test_stratified_holds_each_class_to_its_share():
    for trial in range(50):
        draw = np.random.default_rng(trial)
        labels = np.repeat(np.arange(7), draw.integers(1, 60, 7))
        draw.shuffle(labels)
        held = int(draw.integers(1, len(labels)))
        rest, out = stratified_split(labels, held, seed=trial)
        assert len(out) == held
        np.testing.assert_array_equal(np.sort(np.concatenate([rest, out])), np.arange(len(labels)))
        share = np.bincount(labels, minlength=7) * held / len(labels)
        assert np.abs(np.bincount(labels[out], minlength=7) - share).max() <= 1


def test_stratified_draws_within_a_class_by_seed():
    labels = np.zeros(100, np.int32)
    draws = [stratified_split(labels, 20, seed=s)[1] for s in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert 30 < draws[0].mean() < 70  # not the first twenty, nor the last


def test_stratified_leaves_a_lone_example_in_training():
    labels = np.int32([0] * 6 + [1] + [2] * 6)
    for seed in range(5):
        rest, out = stratified_split(labels, 3, seed=seed)
        assert 6 in rest and len(out) == 3
