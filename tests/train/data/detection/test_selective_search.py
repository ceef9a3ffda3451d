"""Proposals: what they find, that they are the same every time, and their cache."""

import sys
import types

import numpy as np
import pytest

from train.data.detection import selective_search as module
from train.data.detection.selective_search import (
    SearchParameters,
    SourceWithProposals,
    attach_proposals,
    cached_search,
    import_contrib,
    selective_search,
    suppress_duplicates,
)

BLOCKS = np.float32([[10, 10, 50, 40], [70, 20, 100, 90], [20, 60, 52, 88]])
SMALL = SearchParameters(count=300)


def picture(channels=3):
    image = np.full((100, 120, channels), 200, np.uint8)
    for k, box in enumerate(BLOCKS.astype(int)):
        image[box[1] : box[3], box[0] : box[2]] = (40 * k, 90, 30)[:channels]
    return image


def best(proposals, boxes):
    low = np.maximum(proposals[:, None, :2], boxes[None, :, :2])
    high = np.minimum(proposals[:, None, 2:], boxes[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), -1)
    areas = [np.prod(each[:, 2:] - each[:, :2], -1) for each in (proposals, boxes)]
    return (shared / (areas[0][:, None] + areas[1] - shared)).max(0)


class Pictures:
    name, classes = "pictures", ("block",)

    def __len__(self):
        return 2

    def __getitem__(self, i):
        canvas = np.zeros((128, 128, 3), np.uint8)
        canvas[:100, :120] = picture() + i
        return {"image": canvas, "size": np.int32([100, 120])}


@pytest.mark.parametrize("channels", [1, 3])
def test_blocks_are_found_twice_alike(channels):
    found = selective_search(picture(channels), SMALL)
    assert found.dtype == np.float32 and 3 <= len(found) <= SMALL.count
    assert (found >= 0).all() and (found <= [120, 100, 120, 100]).all()
    assert best(found, BLOCKS).min() > 0.7
    np.testing.assert_array_equal(found, selective_search(picture(channels), SMALL))


def test_boxes_are_of_the_picture_and_not_of_the_one_searched():
    large = np.kron(picture(), np.ones((4, 4, 1), np.uint8))
    found = selective_search(large, SMALL._replace(width=120))
    assert best(found, 4 * BLOCKS).min() > 0.8


def test_few_small_and_similar_boxes():
    every = selective_search(picture(), SMALL._replace(distinct=1.0, smallest=1))
    assert len(selective_search(picture(), SMALL._replace(distinct=1.0, count=2))) == 2
    apart = selective_search(picture(), SMALL._replace(distinct=0.6))
    for k in range(1, len(apart)):
        assert best(apart[:k], apart[k : k + 1]) <= 0.6
    large = selective_search(picture(), SMALL._replace(distinct=1.0, smallest=30))
    sides = every[:, 2:] - every[:, :2]
    assert len(large) == (sides.min(1) >= 30).sum()
    assert suppress_duplicates(every, 1.0).tolist() == list(range(len(every)))


def test_the_cache(tmp_path, monkeypatch, caplog):
    first = cached_search(picture(), SMALL, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    calls = []

    def searched(image, search):
        calls.append(search)
        return first + 1

    monkeypatch.setattr(module, "selective_search", searched)
    np.testing.assert_array_equal(cached_search(picture(), SMALL, folder=tmp_path), first)
    assert not calls
    for damage in (b"", file.read_bytes()[:60], b"no archive"):
        file.write_bytes(damage)
        np.testing.assert_array_equal(cached_search(picture(), SMALL, folder=tmp_path), first + 1)
        np.testing.assert_array_equal(cached_search(picture(), SMALL, folder=tmp_path), first + 1)
    assert len(calls) == 3 and caplog.text.count("damaged") == 3
    cached_search(picture(), SMALL._replace(scale=60), folder=tmp_path)
    cached_search(picture() + 1, SMALL, folder=tmp_path)
    assert len(calls) == 5 and len(list(tmp_path.iterdir())) == 3


def test_a_cache_that_cannot_be(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(module, "selective_search", lambda image, search: BLOCKS)
    with pytest.raises(ValueError, match=r"^proposals cannot be kept .*FLAX_ZOO_CACHE$"):
        cached_search(picture(), SMALL, folder=tmp_path / "file")


@pytest.mark.parametrize(
    ("cv2", "said"),
    [(None, "is not installed"), (types.SimpleNamespace(__version__="4.0"), "4.0 here lacks")],
)
def test_without_the_contrib(cv2, said, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    with pytest.raises(ValueError, match=f"^[^\n]*{said}[^\n]*opencv-contrib-python-headless$"):
        import_contrib()


def test_a_source_with_proposals(tmp_path, monkeypatch):
    monkeypatch.setenv("FLAX_ZOO_CACHE", str(tmp_path))
    source = attach_proposals(Pictures(), SMALL)
    assert (
        isinstance(source, SourceWithProposals)
        and source.classes == ("block",)
        and len(source) == 2
    )
    example = source[1]
    assert example["proposals"].shape == (300, 4) and example["proposals"].dtype == np.float32
    there = example["proposal_valid"]
    assert 3 <= there.sum() < 300 and not example["proposals"][~there].any()
    np.testing.assert_array_equal(
        example["proposals"][there], selective_search(picture() + 1, SMALL)
    )
    assert len(list(tmp_path.rglob("*.npz"))) == 2
