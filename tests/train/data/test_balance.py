"""Uneven classes: weights as scikit-learn's, and a source that shows every class equally often."""

import pickle

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from train.data import balance_classes, inverse_frequency, split_source, train_batches
from train.data.source import Arrays, labels_of

LABELS = np.repeat(np.int32([0, 1, 2, 4]), [50, 7, 20, 1])
IMAGES = np.arange(78, dtype=np.uint8)[:, None, None, None]
UNEVEN = Arrays(IMAGES, LABELS, "uneven", tuple("abcde"))


def test_weights_are_scikit_learn_s_balanced_ones():
    weights = inverse_frequency(LABELS, 5)
    there = [0, 1, 2, 4]
    expected = compute_class_weight("balanced", classes=np.array(there), y=LABELS)
    np.testing.assert_allclose(weights[there], expected)
    assert weights[3] == 0 and weights[LABELS].mean() == pytest.approx(1)


def test_every_class_and_example_as_often_as_it_can():
    even = balance_classes(UNEVEN, seed=3)
    assert np.bincount(labels_of(even)).tolist() == [50, 50, 50, 0, 50]
    assert len(even) == 200 and even.classes == UNEVEN.classes
    times = np.bincount(even.indices, minlength=78)
    for label in (0, 1, 2, 4):
        own = times[label == LABELS]
        assert own.min() >= 1 and own.max() - own.min() <= 1
    assert even.name == "uneven, rarer classes repeated"


def test_the_seed_draws_which_are_repeated():
    first, same, other = (balance_classes(UNEVEN, seed=seed).indices for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


def test_batches_of_a_balanced_source_are_a_function_of_seed_and_number():
    even = pickle.loads(pickle.dumps(balance_classes(UNEVEN)))
    knobs = dict(batch_size=20, seed=5, stop=10)
    whole = list(train_batches(even, start=0, **knobs))
    seen = np.concatenate([batch["label"] for batch in whole])
    assert np.bincount(seen).tolist() == [50, 50, 50, 0, 50]
    for batch, again in zip(whole[7:], train_batches(even, start=7, **knobs), strict=True):
        np.testing.assert_array_equal(batch["image"], again["image"])


def test_split_then_balance_keeps_the_parts_apart():
    rest, held = split_source(UNEVEN, 0.3, seed=0)
    even = balance_classes(rest)
    shown = {int(even[i]["image"].item()) for i in range(len(even))}
    assert shown.isdisjoint(int(held[i]["image"].item()) for i in range(len(held)))
