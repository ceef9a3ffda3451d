"""Detection sources: what their examples hold, what was mended and counted."""

import dataclasses
import logging

import numpy as np
import pytest

from train.data import concat_sources, eval_batches, open_boxes, open_masks, train_batches
from train.data.detection.annotations import annotate, clean_boxes
from train.data.detection.sources import BoxSource, check_canvas_fits
from train.data.permutation import grouped_permutation
from train.data.source import Subset
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
    records = [annotate("a", (20, 30), objects), annotate("b", (20, 30), [])]
    with caplog.at_level(logging.INFO, "train"):
        first, second = clean_boxes(records, objects=2, log=["3 notes"], split="folder:x train")
    assert first.boxes.tolist() == [[0, 2, 8, 20], [1, 1, 9, 9]] and first.labels.tolist() == [1, 1]
    assert second.boxes.shape == (0, 4) and first.boxes.dtype == np.float32
    (line,) = caplog.records
    assert line.getMessage() == (
        "folder:x train: 2 images, 2 objects (0 difficult or crowds); 3 notes; 1 without an "
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


SIZES = [(30, 40)] * 9 + [(40, 30)] * 5
WIDE = Canvas((32, 48), "short", 30, 48), Canvas((16, 24), "short", 15, 24)
TALL = tuple(canvas._replace(size=canvas.size[::-1]) for canvas in WIDE)


def several(training=(*WIDE, *TALL)):
    """Pictures of two shapes, whose only object has the number of the picture as its label."""

    def read(i):
        box = (0, 0, i + 1, i + 2)
        return np.full((*SIZES[i], 1), i, np.uint8), annotate("", SIZES[i], [(box, i, False)])

    names = tuple(map(str, range(len(SIZES))))
    return BoxSource(read, SIZES, "several", names, Canvas((48, 48), "short", 30, 48), 1, training)


def batches(source, start=0, stop=12, **more):
    return list(train_batches(source, batch_size=4, seed=5, start=start, stop=stop, **more))


def test_a_batch_is_of_one_canvas_and_of_one_shape():
    source = several()
    drawn = batches(source)
    shapes = {batch["image"].shape[1:3] for batch in drawn}
    assert shapes == {canvas.size for canvas in (*WIDE, *TALL)}
    for batch in drawn:
        own = batch["labels"][:, 0]
        height, width = batch["image"].shape[1:3]
        assert {SIZES[i][0] > SIZES[i][1] for i in own} == {height > width}
        scale = (min(width, height)) // 16 / 2
        np.testing.assert_allclose(batch["boxes"][:, 0, 2], (own + 1) * scale, rtol=0.05)
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], own)
    epochs = [np.concatenate([b["labels"][:, 0] for b in drawn[i : i + 3]]) for i in (0, 3, 6, 9)]
    # Three batches of 14 pictures: two wide ones, one upright; of the others none can be made.
    assert all(len(set(epoch.tolist())) == 12 and sum(epoch >= 9) == 4 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    later = batches(source, start=5)
    rows = [batches(source, process=p, processes=2)[7] for p in (0, 1)]
    for name, value in drawn[7].items():
        np.testing.assert_array_equal(later[2][name], value)
        np.testing.assert_array_equal(np.concatenate([row[name] for row in rows]), value)
    assert [e["image"].shape[1:3] for e in eval_batches(source, batch_size=7)] == [(48, 48)] * 2


def test_what_wraps_a_source_keeps_its_canvases():
    whole = several()
    subset = Subset(whole, np.arange(13))
    for source in (
        subset,
        concat_sources(Subset(whole, np.arange(6)), Subset(whole, np.arange(6, 13))),
    ):
        for expected, batch in zip(batches(subset), batches(source), strict=True):
            for name, value in expected.items():
                np.testing.assert_array_equal(batch[name], value)
    wide = several(training=(Canvas((32, 48)),))
    assert wide.groups.tolist() == [0] * 14 and batches(wide)[0]["image"].shape == (4, 32, 48, 1)
    with pytest.raises(ValueError, match="digits and several differ in their classes"):
        concat_sources(whole, dataclasses.replace(whole, name="digits", classes=("a",)))


@pytest.mark.parametrize(("counts", "size"), [((7, 3), 5), ((3, 3, 3), 4), ((1, 9), 10), ((8,), 4)])
def test_grouped_orders(counts, size):
    groups = np.repeat(np.arange(len(counts)), counts)
    order = grouped_permutation(groups, size, 1, 2)
    rows = groups[order].reshape(-1, size)
    assert len(rows) == len(groups) // size and (rows == rows[:, :1]).all()
    for group, count in enumerate(counts):
        times = np.bincount(order[groups[order] == group], minlength=len(groups))
        assert times.max() <= -(-size // count) + 1


def test_a_picture_that_fits_on_no_canvas_is_told(tmp_path):
    records = [annotate("a.jpg", (30, 40), []), annotate("b.jpg", (60, 40), [])]
    with pytest.raises(
        ValueError,
        match="^b.jpg: expected a canvas of at least 30 x 45 for an image of 40 x 60 pixels",
    ):
        check_canvas_fits(records, WIDE[0], ())
    with pytest.raises(ValueError, match=r"^b.jpg: .* got 48 x 32"):
        check_canvas_fits(records, Canvas((48, 48), "short", 30, 48), WIDE)
    check_canvas_fits(records, Canvas((48, 48), "short", 30, 48), (*WIDE, *TALL))
