"""COCO's instances as masks, against pycocotools' own reading and by hand; malformed files."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from train.data import open_masks

CATEGORIES = [
    {"id": 90, "name": "toothbrush"},
    {"id": 1, "name": "person"},
    {"id": 7, "name": "train"},
]
HEIGHT, WIDTH = 20, 30


def rectangle(x0, y0, x1, y1):
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def columns(region):
    """A region [h, w] -> uncompressed RLE: column by column, zeros first."""
    flat = region.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, flat.size]).tolist()
    return {"size": list(region.shape), "counts": counts if not flat[0] else [0, *counts]}


CROWD = np.zeros((HEIGHT, WIDTH), np.uint8)
CROWD[:, 20:] = 1
DISC = np.add.outer((np.arange(HEIGHT) - 12) ** 2, (np.arange(WIDTH) - 8) ** 2) < 25
PACKED = rle.encode(np.asfortranarray(DISC.astype(np.uint8)))
ANNOTATIONS = [
    {"id": 5, "category_id": 7, "iscrowd": 0, "segmentation": [rectangle(12, 4, 24, 9)]},
    {"id": 6, "category_id": 1, "iscrowd": 1, "segmentation": columns(CROWD)},
    {
        "id": 7,
        "category_id": 90,
        "iscrowd": 0,
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": PACKED["counts"].decode()},
    },
    {  # in two pieces, one on the first's
        "id": 8,
        "category_id": 1,
        "iscrowd": 0,
        "segmentation": [rectangle(14, 5, 17, 8), [1.5, 1.25, 5.75, 2.5, 3.0, 6.0]],
    },
]


def written(folder, annotations=ANNOTATIONS, *, part="train2017", place="{part}", **changes):
    images = [
        {"id": 40 - i, "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH} for i in (0, 1)
    ]
    content = {
        "images": images,
        "annotations": [{"image_id": 40} | annotation for annotation in annotations],
        "categories": CATEGORIES,
    } | changes
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    file = folder / "annotations" / f"instances_{part}.json"
    file.write_text(json.dumps(content))
    place = folder / place.format(part=part)
    place.mkdir(parents=True, exist_ok=True)
    for image in images:
        pixels = np.full((HEIGHT, WIDTH, 3), 100 * (image["id"] - 39), np.uint8)
        Image.fromarray(pixels).save(place / image["file_name"])
    return file


@pytest.mark.parametrize("place", ["{part}", "images/{part}", "images", "."])
def test_masks_are_those_of_pycocotools(tmp_path, place):
    file = written(tmp_path, place=place)
    source = open_masks(f"coco:{tmp_path}", instances=True, splits="0/1")["val"]
    assert source.classes == ("background", "person", "train", "toothbrush")
    example = source[0]
    assert example["image"][0, 0].tolist() == [100, 100, 100]  # id 40, the later of the two

    coco = COCO(file)
    expected, numbers = np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((HEIGHT, WIDTH), np.int32)
    order = [6, 7, 5, 8]  # the crowd, then from the greatest to the smallest
    for identity in order:
        (annotation,) = coco.loadAnns(identity)
        region = coco.annToMask(annotation).astype(bool)
        index = {1: 1, 7: 2, 90: 3}[annotation["category_id"]]
        expected[region] = 255 if annotation["iscrowd"] else index
        if not annotation["iscrowd"]:
            numbers[region] = identity - 4
    np.testing.assert_array_equal(example["mask"], expected)
    np.testing.assert_array_equal(example["instances"], numbers)


def test_regions_by_hand(tmp_path):
    written(tmp_path)
    mask = open_masks(f"coco:{tmp_path}", splits="0/1")["val"][0]["mask"]
    expected = np.where(CROWD, 255, 0)
    expected[DISC] = 3
    expected[4:9, 12:24] = 2
    expected[5:8, 14:17] = 1
    triangle = np.s_[1:7, 1:7]
    expected[triangle] = mask[triangle]  # which edge pixels belong to it is pycocotools' to say
    assert (mask[triangle] == 1).sum() > 3
    np.testing.assert_array_equal(mask, expected)


def test_an_image_without_instances_is_background(tmp_path):
    written(tmp_path)
    written(tmp_path, part="val2017")
    sources = open_masks(f"coco:{tmp_path}")
    assert {part: len(source) for part, source in sources.items()} == {"train": 2, "val": 2}
    assert not sources["val"][0]["mask"].any() and "instances" not in sources["val"][0]


def test_names_with_folders_are_found_and_ones_outside_are_not(tmp_path):
    images = [{"id": i, "file_name": f"a/{i}.png", "height": 4, "width": 4} for i in (0, 1)]
    (tmp_path / "train2017" / "a").mkdir(parents=True)
    for image in images:
        Image.new("L", (4, 4)).save(tmp_path / "train2017" / image["file_name"])
    written(tmp_path, [], images=images)
    assert open_masks(f"coco:{tmp_path}", splits="0/1")["val"][0]["mask"].shape == (4, 4)
    written(tmp_path, [], images=[images[0] | {"file_name": "../train2017/a/0.png"}])
    with pytest.raises(FileNotFoundError, match="which is not in"):
        open_masks(f"coco:{tmp_path}", splits="0/1")


def one(**changes):
    return {"annotations": [{"image_id": 40, "id": 3, "category_id": 1} | changes]}


IMAGE = {"id": 40, "file_name": "0.jpg", "height": HEIGHT, "width": WIDTH}
LONG = rle.encode(np.ones((60, 60), np.uint8, order="F"))["counts"].decode()
FAR = [0, 0, 1e9, 0, 0, 1e9]
MALFORMED = {
    "category": (one(category_id=2), "annotation 3 is of category 2, which is none of the file's$"),
    "no categories": ({"categories": []}, "is of category 7"),
    "not instances": ({"categories": None}, "is no annotation file of instances"),
    "no image": ({"images": []}, "names no image$"),
    "a list": ({"images": [1]}, "is no annotation file of instances"),
    "lost": ({"images": [IMAGE | {"file_name": "lost.jpg"}]}, "names the image lost.jpg, which is"),
    "huge": ({"images": [IMAGE | {"height": 10**9}]}, "0.jpg claims 30 x 1000000000 pixels$"),
    "other size": (
        {"images": [IMAGE, IMAGE | {"id": 50, "height": 21}]},
        "instances_train2017.json: the mask has 30 x 21 pixels, its image .*0.jpg 30 x 20$",
    ),
    "no region": (one(), "segmentation of annotation 3.* it has neither polygons nor RLE"),
    "two points": (one(segmentation=[[0, 0, 1, 1]]), "three points or more"),
    "far": (one(segmentation=[FAR]), "not far outside"),
    "words": (one(segmentation=[["a"] * 6]), "annotation 3, .* cannot be read"),
    "size": (one(segmentation={"size": [2, 2], "counts": [4]}), r"has the size \[2, 2\]"),
    "counts": (one(segmentation={"size": [HEIGHT, WIDTH], "counts": [4]}), "counts 4 pixels"),
    "string": (one(segmentation={"size": [HEIGHT, WIDTH], "counts": LONG}), "annotation 3, "),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_files_end_with_one_line(tmp_path, case):
    changes, says = MALFORMED[case]
    file = written(tmp_path, **changes)
    with pytest.raises((ValueError, FileNotFoundError), match=says) as caught:
        source = open_masks(f"coco:{tmp_path}", size=(20, 30, 3), splits="0/1")["val"]
        assert source[0]
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_folders_that_are_no_coco(tmp_path):
    with pytest.raises(FileNotFoundError, match="^coco: there is no folder"):
        open_masks(f"coco:{tmp_path / 'none'}")
    with pytest.raises(FileNotFoundError, match=r"has no annotations/instances_\*.json$"):
        open_masks(f"coco:{tmp_path}")
    file = written(tmp_path)
    written(tmp_path, part="val2017", annotations=[], categories=CATEGORIES[:2])
    with pytest.raises(ValueError, match="differ in their categories$"):
        open_masks(f"coco:{tmp_path}")
    written(tmp_path, part="train2014")
    with pytest.raises(ValueError, match="instances_train2017.json both claim to be train$"):
        open_masks(f"coco:{tmp_path}")
    file.with_name("instances_train2014.json").unlink()
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match="instances_train2017.json is no JSON file"):
        open_masks(f"coco:{tmp_path}")
