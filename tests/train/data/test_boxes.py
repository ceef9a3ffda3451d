"""Detection sources: what their examples hold, what was mended and counted."""

import logging

import numpy as np
import pytest

from train.data import eval_batches, open_boxes, open_masks, train_batches
from train.data.box_files import annotated, mended
from zoo.canvas import Canvas

ENTRIES = {
    "image": np.uint8,
    "boxes": np.float32,
    "labels": np.int32,
    "box_valid": np.bool_,
    "crowd": np.bool_,
    "size": np.int32,
    "scale": np.float32,
}


def test_digit_scenes_are_the_masks_digits():
    canvas = Canvas((128, 128))
    sources = open_boxes("digit_scenes", canvas=canvas, channels=1)
    assert {part: len(s) for part, s in sources.items()} == {"train": 1000, "val": 100, "test": 200}
    source, scenes = sources["val"], open_masks("digit_scenes")["val"]
    assert source.classes == tuple("0123456789") == scenes.classes[1:]
    for i in range(3):
        example, scene = source[i], scenes[i]
        assert {name: value.dtype for name, value in example.items()} == ENTRIES
        for name in ("image", "boxes", "box_valid"):
            np.testing.assert_array_equal(example[name], scene[name])
        labels = np.where(scene["box_valid"], scene["labels"] - 1, 0)
        np.testing.assert_array_equal(example["labels"], labels)
        assert not example["crowd"].any() and example["size"].tolist() == [128, 128]
        assert example["scale"].tolist() == [1, 1] and example["boxes"].shape == (8, 4)
    batch = next(iter(train_batches(sources["train"], batch_size=4, seed=0, start=3, stop=4)))
    assert {name: len(value) for name, value in batch.items()} == dict.fromkeys(
        [*ENTRIES, "index", "valid"], 4
    )
    assert sum(batch["valid"].sum() for batch in eval_batches(source, batch_size=32)) == 100


def test_what_is_mended_is_counted_in_one_line(caplog):
    objects = [
        ((2, 2, 2, 9), 0, False),  # no width
        ((9, 2, 4, 9), 0, False),  # the wrong way round
        ((40, 2, 50, 9), 1, False),  # outside
        ((-3, 2, 8, 99), 1, False),  # over the border
        ((0, 0, 30, 20), 2, True),
        ((1, 1, 3, 3), 0, False),
        ((1, 1, 9, 9), 1, False),
    ]
    records = [annotated("a", (20, 30), objects), annotated("b", (20, 30), [])]
    with caplog.at_level(logging.INFO, "train"):
        first, second = mended(records, objects=2, told=["3 things told"], part="folder:x train")
    assert first.boxes.tolist() == [[0, 2, 8, 20], [1, 1, 9, 9]] and first.labels.tolist() == [1, 1]
    assert second.boxes.shape == (0, 4) and first.boxes.dtype == np.float32
    (line,) = caplog.records
    assert line.getMessage() == (
        "folder:x train: 2 images, 2 objects (0 difficult or crowds); 3 things told; 1 without an "
        "object; 2 of no size dropped; 1 outside of their image dropped; 1 cut at the border; "
        "2 dropped as more than 2 in an image"
    )


@pytest.mark.parametrize(
    ("spec", "more", "message"),
    [
        ("folder", {}, "source folder: expected the form folder:PATH"),
        ("digit_scene", {}, "did you mean digit_scenes?"),
        ("digit_scenes", {"classes": ("a",)}, "knows its classes itself"),
        ("digit_scenes", {"objects": 0}, "1 or more, got 0"),
        ("digit_scenes", {"channels": 4}, "1 or 3 channels, got 4"),
        ("digit_scenes", {"canvas": Canvas((0, 64))}, "positive height and width"),
        ("digit_scenes", {"canvas": Canvas((32, 64))}, "at least 64 x 64"),
    ],
)
def test_knobs_that_cannot_be(spec, more, message):
    with pytest.raises(ValueError, match=message) as caught:
        open_boxes(spec, **{"canvas": Canvas((64, 64))} | more)
    assert "\n" not in str(caught.value)
