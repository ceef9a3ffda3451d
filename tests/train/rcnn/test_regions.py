"""Regions of a set: what they overlap, how they are drawn, what becomes of their scores."""

import numpy as np
import pytest

from train.data.detection.selective_search import SourceWithProposals
from train.rcnn.detect import detections
from train.rcnn.regions import SampledRegions, WarpedRegions, collect_regions, recall

OBJECTS = np.float32([[10, 10, 30, 30], [40, 10, 60, 40], [5, 35, 15, 45], [0, 0, 0, 0]])
PROPOSALS = np.float32(
    [
        [10, 10, 30, 28],  # IoU 0.9 with the first object, of class 1
        [10, 10, 30, 18],  # 0.4 with it
        [40, 12, 60, 40],  # 0.93 with the second, of class 0
        [5, 35, 15, 44],  # 0.9 with a crowd
        [48, 40, 60, 48],  # nothing
    ]
)


class Pictures:
    """Two pictures of 48 x 64 on canvases of 64 x 64, the second without an object."""

    name, classes = "pictures", ("a", "b", "c")

    def __len__(self):
        return 2

    def __getitem__(self, i):
        canvas = np.full((64, 64, 3), 255, np.uint8)
        canvas[:48] = 100 + i
        return {
            "image": canvas,
            "boxes": OBJECTS,
            "labels": np.int32([1, 0, 2, 0]),
            "box_valid": np.array([True, True, True, False]) & (i == 0),
            "crowd": np.array([False, False, True, False]),
            "size": np.int32([48, 64]),
            "scale": np.float32([1, 1]),
        }


@pytest.fixture
def source():
    return SourceWithProposals(Pictures(), (PROPOSALS, PROPOSALS[3:]), 6)


def warped(source, regions):
    return WarpedRegions(source, regions, size=8, context=1, fill=[1, 2, 3])


def test_what_regions_overlap(source):
    regions = collect_regions(source)
    assert regions.image.tolist() == [0] * 7 + [1] * 2
    assert regions.truth.tolist() == [1, 0, -1, -1, -1, -1, -1, -1, -1]
    np.testing.assert_array_equal(regions.box[:2], OBJECTS[:2])
    overlap = [[0, 1], [1, 0], [0, 0.9], [0, 0.4], [28 / 30, 0], [0, 0], [0, 0], [0, 0], [0, 0]]
    np.testing.assert_allclose(regions.iou[:, :2], overlap, atol=1e-6)
    assert not regions.iou[:, 2].any()
    np.testing.assert_array_equal(regions.nearest[2, 1], OBJECTS[0])
    np.testing.assert_array_equal(regions.nearest[4, 0], OBJECTS[1])
    assert regions.crowd.tolist() == [False] * 5 + [True] + [False] * 3
    alone = collect_regions(source, objects=False)
    np.testing.assert_array_equal(alone.box, np.concatenate([PROPOSALS, PROPOSALS[3:]]))
    assert (alone.truth == -1).all()


@pytest.mark.parametrize(("iou", "share"), [(0.4, 1.0), (0.92, 0.5), (0.95, 0.0)])
def test_recall(iou, share, source):
    assert recall(source, iou=iou) == share


def test_regions_as_images(source):
    images = warped(source, collect_regions(source))
    assert images.classes == ("background", "a", "b", "c") and len(images) == 9
    assert [int(images[i]["label"]) for i in range(9)] == [2, 1, 2, 0, 1, 0, 0, 0, 0]
    assert images.labels.tolist() == [2, 1, 2, 0, 1, 0, 0, 0, 0]
    assert (images[2]["image"] == 100).all() and (images[7]["image"][0, 1:7] == 101).all()
    below = images[6]["image"]  # ends at the picture's border: the canvas beyond it is not seen
    assert below[0, 4].tolist() == [100] * 3 and below[-1, 4].tolist() == [1, 2, 3]


def test_a_quarter_of_every_batch_has_an_object(source):
    drawn = SampledRegions(warped(source, collect_regions(source)), 64, 8)
    assert len(drawn) == 64 and drawn.classes[0] == "background"
    labels = np.array([drawn.draw(0, number=n, seed=3)["label"] for n in range(64)])
    assert ((labels.reshape(8, 8) > 0) == (np.arange(8) < 2)).all()
    assert {*labels.tolist()} == {0, 1, 2}
    again = [drawn.draw(5, number=n, seed=3)["label"] for n in range(64)]
    np.testing.assert_array_equal(labels, again)
    other = [drawn.draw(0, number=n, seed=4)["label"] for n in range(64)]
    assert (labels != other).any()
    assert drawn[9]["label"] == drawn.draw(0, number=9, seed=0)["label"]


def test_nothing_to_draw(source):
    empty = SourceWithProposals(Pictures(), (PROPOSALS[4:], PROPOSALS[4:]), 6)
    regions = collect_regions(empty, objects=False)
    with pytest.raises(ValueError, match=r"^pictures: no proposal overlaps an object"):
        SampledRegions(warped(empty, regions), 8, 8)


def test_detections(source):
    """Best first, over classes; of a class what a better one overlaps by more than 0.3 is dropped."""
    regions = collect_regions(source, objects=False)
    scores = np.full((7, 3), -1.0, np.float32)
    scores[:5, 1] = [2, 3, 0, 1, -np.inf]
    scores[2, 0] = 2.5
    boxes = np.repeat(regions.box[:, None], 3, 1)
    boxes[2, 0] += np.float32([0, 0, 30, 0])  # beyond the picture
    found = detections(source, image=regions.image, scores=scores, boxes=boxes)
    assert found["boxes"].shape == (2, 100, 4) and found["labels"].dtype == np.int32
    first = {name: value[0] for name, value in found.items()}
    assert first["scores"][:4].tolist() == [3, 2.5, 1, 0] and first["labels"][:4].tolist() == [
        1,
        0,
        1,
        1,
    ]
    np.testing.assert_array_equal(first["boxes"][0], PROPOSALS[1])
    np.testing.assert_array_equal(first["boxes"][1], [40, 12, 64, 40])
    assert first["valid"].sum() < 15 and np.isfinite(found["scores"][found["valid"]]).all()
