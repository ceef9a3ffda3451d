"""Batches are a pure function of (seed, number): any start, any process, any thread."""

import itertools
import threading
import time

import numpy as np
import pytest

from train.data.batches import eval_batches, train_batches
from train.data.source import Arrays, Subset


def numbered(length):
    """A source whose image i holds i, so that a batch tells which examples it was made of."""
    images = np.arange(length, dtype=np.uint8)[:, None, None, None] * np.ones(
        [1, 2, 3, 1], np.uint8
    )
    return Arrays(images, np.arange(length, dtype=np.int32) % 3, "numbered", ("a", "b", "c"))


def content(batch):
    return batch["image"][:, 0, 0, 0]


def test_every_epoch_is_another_permutation_less_its_remainder():
    run = list(train_batches(numbered(23), batch_size=5, seed=3, start=0, stop=12))
    epochs = [np.concatenate([content(b) for b in run[e : e + 4]]) for e in (0, 4, 8)]
    for epoch in epochs:
        assert len(set(epoch)) == 20 and set(epoch) <= set(range(23))
    assert not np.array_equal(epochs[0], epochs[1]) and not np.array_equal(epochs[1], epochs[2])
    # What one epoch drops, others bring: the remainder is not always the same three examples.
    assert set(np.concatenate(epochs)) == set(range(23))
    np.testing.assert_array_equal(np.concatenate([b["index"] for b in run]), np.arange(60))
    assert all(b["valid"].all() for b in run)


def test_every_example_once_where_the_batch_divides_the_set():
    run = train_batches(numbered(24), batch_size=8, seed=0, start=0, stop=3)
    assert sorted(np.concatenate([content(b) for b in run])) == list(range(24))


@pytest.mark.parametrize("batch_size", [7, 21])
def test_restart_at_any_batch_gives_the_same_batches(batch_size):
    def batches(start):
        return train_batches(numbered(21), batch_size=batch_size, seed=1, start=start, stop=9)

    whole = list(batches(0))
    for start in range(10):
        again = list(batches(start))
        assert len(again) == 9 - start
        for expected, got in zip(whole[start:], again, strict=True):
            assert expected.keys() == got.keys() == {"image", "label", "index", "valid"}
            for key in expected:
                np.testing.assert_array_equal(expected[key], got[key])
                assert expected[key].dtype == got[key].dtype


def test_seeds_differ():
    first, second = (
        next(iter(train_batches(numbered(50), batch_size=50, seed=s, start=0, stop=1)))
        for s in (0, 1)
    )
    assert not np.array_equal(content(first), content(second))


@pytest.mark.parametrize("processes", [2, 3, 6])
def test_processes_share_one_batch(processes):
    def both(process, processes):
        split = {"batch_size": 6, "process": process, "processes": processes}
        train = train_batches(numbered(20), seed=5, start=2, stop=6, **split)
        return list(train) + list(eval_batches(numbered(20), **split))

    parts = [both(p, processes) for p in range(processes)]
    for whole, *shares in zip(both(0, 1), *parts, strict=True):
        for key in whole:
            np.testing.assert_array_equal(whole[key], np.concatenate([s[key] for s in shares]))


def test_shapes_and_types():
    for batch in (
        next(iter(train_batches(numbered(9), batch_size=4, seed=0, start=0, stop=1))),
        next(iter(eval_batches(numbered(9), batch_size=4))),
    ):
        kinds = {key: (value.shape, value.dtype.name) for key, value in batch.items()}
        assert kinds == {
            "image": ((4, 2, 3, 1), "uint8"),
            "label": ((4,), "int32"),
            "index": ((4,), "int32"),
            "valid": ((4,), "bool"),
        }


@pytest.mark.parametrize("length, batch_size", [(10, 4), (8, 4), (3, 8), (1, 1)])
def test_evaluation_covers_the_set_in_order_and_pads(length, batch_size):
    batches = list(eval_batches(numbered(length), batch_size=batch_size))
    assert len(batches) == -(-length // batch_size)
    whole = {key: np.concatenate([b[key] for b in batches]) for key in batches[0]}
    assert len(whole["valid"]) == len(batches) * batch_size
    np.testing.assert_array_equal(whole["index"], np.arange(len(whole["index"])))
    np.testing.assert_array_equal(whole["valid"], whole["index"] < length)
    np.testing.assert_array_equal(content({"image": whole["image"]})[:length], np.arange(length))
    np.testing.assert_array_equal(whole["label"][:length], np.arange(length) % 3)


def reader_threads():
    return {t for t in threading.enumerate() if t.name.startswith("grain-prefetch")}


def test_closing_or_dropping_the_iterator_ends_its_threads():
    before = reader_threads()
    closed = train_batches(numbered(9), batch_size=3, seed=0, start=0, stop=10**9)
    dropped = train_batches(numbered(9), batch_size=3, seed=0, start=0, stop=10**9)
    for batches in (closed, dropped):
        assert len(list(itertools.islice(batches, 5))) == 5
    assert reader_threads() - before
    closed.close()
    with pytest.raises(StopIteration):
        next(closed)
    del dropped, batches
    deadline = time.monotonic() + 10
    while reader_threads() - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not reader_threads() - before


class Broken(list):
    name, classes = "broken", ("a",)

    def __getitem__(self, i):
        if i == 3:
            raise ValueError("example 3 is broken")
        return {"image": np.zeros([2, 2 + (i == 5), 1], np.uint8), "label": np.int32(0)}


@pytest.mark.parametrize("length, says", [(5, "example 3 is broken"), (3, None)])
def test_an_error_in_a_thread_arrives_in_the_loop(length, says):
    batches = eval_batches(Broken([0] * length), batch_size=2)
    if says is None:
        assert len(list(batches)) == 2
    else:
        with pytest.raises(ValueError) as caught:
            list(batches)
        assert str(caught.value) == says


def test_ragged_examples_are_told():
    source = Subset(Broken([0] * 9), np.array([0, 5, 7]))
    with pytest.raises(ValueError, match=r"^broken: .* one shape, not .*\(2, 2, 1\).*\(2, 3, 1\)"):
        list(eval_batches(source, batch_size=3))


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"batch_size": 11}, "^batch_size 11 is larger than the training set, 10 examples of num"),
        ({"batch_size": 0}, "^batch_size 0 .* positive multiple of 1$"),
        ({"batch_size": -4}, "^batch_size -4 "),
        ({"batch_size": 5, "processes": 2}, "^batch_size 5 does not divide by 2 processes"),
        ({"batch_size": 4, "process": 2, "processes": 2}, r"^process is one of 0\.\.1; got 2$"),
        ({"batch_size": 4, "process": -1, "processes": 2}, r"^process is one of 0\.\.1; got -1$"),
    ],
)
def test_wrong_arguments_are_told_at_the_call(wrong, says):
    with pytest.raises(ValueError, match=says):
        train_batches(numbered(10), seed=0, start=0, stop=1, **wrong)
    if wrong["batch_size"] != 11:  # evaluation pads
        with pytest.raises(ValueError, match=says):
            eval_batches(numbered(10), **wrong)


def test_an_empty_set_is_told():
    with pytest.raises(ValueError, match="^numbered holds no example"):
        eval_batches(numbered(0), batch_size=2)
    with pytest.raises(ValueError, match="^batch_size 1 is larger than the training set, 0 exam"):
        train_batches(numbered(0), batch_size=1, seed=0, start=0, stop=1)
