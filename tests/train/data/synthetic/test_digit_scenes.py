"""Scenes of digits: a pure function of seed, index and part; masks, instances and boxes agree."""

import numpy as np
import pytest

from train.data import eval_batches, open_masks
from train.data.classification.digits import open_digits
from train.data.synthetic.digit_scenes import CLASSES, MAX_OBJECTS, SPLIT_SIZES, open_digit_scenes

SOME = 12


@pytest.fixture(scope="module")
def scenes():
    return open_digit_scenes(size=None, seed=0)


def test_what_a_scene_holds(scenes):
    assert {part: len(source) for part, source in scenes.items()} == SPLIT_SIZES
    assert CLASSES == ("background", *"0123456789")
    for part in scenes.values():
        assert part.palette.shape == (11, 3)
        example = part[len(part) - 1]
        assert {key: (value.shape, value.dtype.name) for key, value in example.items()} == {
            "image": ((128, 128, 1), "uint8"),
            "mask": ((128, 128), "uint8"),
            "instances": ((128, 128), "int32"),
            "boxes": ((MAX_OBJECTS, 4), "float32"),
            "labels": ((MAX_OBJECTS,), "int32"),
            "box_valid": ((MAX_OBJECTS,), "bool"),
        }
        with pytest.raises(IndexError):
            part[len(part)]


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def test_a_scene_is_a_function_of_seed_index_and_part(scenes):
    again, other = (open_digit_scenes(size=None, seed=seed) for seed in (0, 1))
    for part in scenes:
        assert equal(scenes[part][3], again[part][3])
        assert not equal(scenes[part][3], scenes[part][4])
        assert equal(scenes[part][3], other[part][3]) == (part != "train")
    first = [scenes[part][0]["image"] for part in scenes]
    assert not np.array_equal(first[0], first[1]) and not np.array_equal(first[1], first[2])


def test_boxes_hold_the_pixels_of_their_instances_tightly(scenes):
    for i in range(SOME):
        example = scenes["train"][i]
        count = example["box_valid"].sum()
        assert 1 <= count <= MAX_OBJECTS and example["box_valid"][:count].all()
        assert set(np.unique(example["instances"])) == set(range(count + 1))
        for n in range(MAX_OBJECTS):
            box, label = example["boxes"][n], example["labels"][n]
            if n >= count:
                assert not box.any() and label == 0
                continue
            own = example["instances"] == n + 1
            assert (example["mask"][own] == label).all() and 1 <= label <= 10
            x0, y0, x1, y1 = box.astype(int)
            assert own[y0:y1, x0:x1].sum() == own.sum()
            assert own[y0].any() and own[y1 - 1].any()
            assert own[:, x0].any() and own[:, x1 - 1].any()
            assert own.sum() >= 40, "large enough to be seen"
        np.testing.assert_array_equal(example["mask"] > 0, example["instances"] > 0)


def test_digits_differ_from_what_is_around_them(scenes):
    """Told apart by brightness, in most pixels: the task can be learnt, and is not a threshold."""
    right = []
    for i in range(SOME):
        example = scenes["train"][i]
        inside, gray = example["mask"] > 0, example["image"][..., 0].astype(float)
        middle = (gray[inside].mean() + gray[~inside].mean()) / 2
        bright = gray[inside].mean() > middle
        right.append(((gray > middle) == (inside == bright)).mean())
    assert 0.85 < np.mean(right) < 0.995


def test_every_digit_comes_and_both_polarities(scenes):
    labels = np.concatenate([scenes["val"][i]["labels"] for i in range(len(scenes["val"]))])
    counts = np.bincount(labels, minlength=11)[1:]
    assert counts.min() > 0.4 * counts.mean() and counts.sum() > 4 * len(scenes["val"])
    means = [np.median(scenes["val"][i]["image"]) for i in range(40)]
    assert min(means) < 60 and max(means) > 180


def test_no_digit_crosses_the_split(scenes):
    digits = open_digits()
    for part, source in scenes.items():
        np.testing.assert_array_equal(source.digits.images, digits[part].images)
    held = {image.tobytes() for part in ("val", "test") for image in digits[part].images}
    train = [image.tobytes() in held for image in digits["train"].images]
    assert not any(train)


def test_color_and_other_sizes(scenes):
    color = open_digit_scenes(size=(96, 160, 3), seed=0)["val"]
    image = color[0]["image"]
    assert image.shape == (96, 160, 3) and color[0]["mask"].shape == (96, 160)
    assert np.ptp(image.astype(int), axis=-1).mean() > 3
    same = open_digit_scenes(size=(128, 128, 3), seed=0)["val"][0]
    np.testing.assert_array_equal(same["mask"], scenes["val"][0]["mask"])


def test_batches_of_scenes(scenes):
    source = open_masks("digit_scenes")["val"]
    batch = next(eval_batches(source, batch_size=3))
    assert batch["boxes"].shape == (3, MAX_OBJECTS, 4) and batch["mask"].shape == (3, 128, 128)
    assert equal({key: batch[key][2] for key in source[2]}, scenes["val"][2])
