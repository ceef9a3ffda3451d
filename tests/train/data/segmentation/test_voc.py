"""Pascal VOC's layout: palette masks, masks in its colors, objects, and what is missing."""

import numpy as np
import pytest
from PIL import Image

from train.data import open_masks
from train.data.segmentation.voc import VOC_CLASSES
from zoo.media.colormap import voc_colormap

MASK = np.array([[0, 0, 15, 15], [255, 20, 15, 1], [0, 20, 255, 1]], np.uint8)
OBJECTS = np.array([[0, 0, 1, 1], [255, 3, 2, 4], [0, 3, 255, 4]], np.uint8)


def palette_png(file, indices):
    image = Image.fromarray(indices, "L")
    image.putpalette(voc_colormap(256).tobytes())
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)


def devkit(folder, lists):
    """One image each for the names in `lists` {part: names}."""
    (folder / "JPEGImages").mkdir(parents=True)
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    for part, names in lists.items():
        (folder / "ImageSets" / "Segmentation" / f"{part}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            Image.fromarray(np.full((3, 4, 3), 90, np.uint8)).save(
                folder / "JPEGImages" / f"{name}.jpg"
            )
            palette_png(folder / "SegmentationClass" / f"{name}.png", MASK)
            palette_png(folder / "SegmentationObject" / f"{name}.png", OBJECTS)
    return folder


def test_a_devkit_is_read(tmp_path):
    folder = devkit(tmp_path / "VOC2012", {"train": ["2007_1", "2007_2"], "val": ["2007_3"]})
    (folder / "ImageSets" / "Segmentation" / "test.txt").write_text("kept_back\n")
    sources = open_masks(f"voc:{folder}", instances=True)
    assert {part: len(source) for part, source in sources.items()} == {"train": 2, "val": 1}
    example = sources["val"][0]
    np.testing.assert_array_equal(example["mask"], MASK)
    np.testing.assert_array_equal(example["instances"], np.where(OBJECTS == 255, 0, OBJECTS))
    assert example["instances"].dtype == np.int32 and example["image"].shape == (3, 4, 3)
    assert sources["val"].classes == VOC_CLASSES and len(VOC_CLASSES) == 21
    assert (
        VOC_CLASSES[1] == "aeroplane"
        and VOC_CLASSES[15] == "person"
        and VOC_CLASSES[20] == "tvmonitor"
    )
    assert sources["val"].palette.tolist() == voc_colormap(21).tolist()
    assert "instances" not in open_masks(f"voc:{folder}")["val"][0]


def test_masks_in_the_palette_s_colors_are_read_too(tmp_path):
    folder = devkit(tmp_path, {"train": ["a"], "val": ["b"]})
    file = folder / "SegmentationClass" / "b.png"
    colors = voc_colormap(256)[MASK]
    Image.fromarray(colors).save(file)
    np.testing.assert_array_equal(open_masks(f"voc:{folder}")["val"][0]["mask"], MASK)
    colors[1, 1] = 1, 2, 3
    Image.fromarray(colors).save(file)
    with pytest.raises(ValueError, match="b.png: color #010203 at row 1, column 1 is that of none"):
        open_masks(f"voc:{folder}")


def test_trainval_alone_is_split(tmp_path):
    folder = devkit(tmp_path, {"trainval": list("abcdefghij")})
    sources = open_masks(f"voc:{folder}")
    assert {part: len(source) for part, source in sources.items()} == {"train": 8, "val": 2}


def missing(case, folder):
    lists = folder / "ImageSets" / "Segmentation"
    match case:
        case "list":
            (lists / "train.txt").unlink()
        case "empty list":
            (lists / "val.txt").write_text("\n")
        case "odd list":
            (lists / "val.txt").write_text("../../b\n")
        case "binary list":
            (lists / "val.txt").write_bytes(b"\xff\xfe\x00")
        case "image":
            (folder / "JPEGImages" / "b.jpg").unlink()
        case "mask":
            (folder / "SegmentationClass" / "b.png").unlink()
        case "objects":
            (folder / "SegmentationObject" / "b.png").unlink()
        case "objects' size":
            palette_png(folder / "SegmentationObject" / "b.png", OBJECTS[:2])
        case "21":
            palette_png(folder / "SegmentationClass" / "b.png", MASK + 6)


MISSING = {
    "list": "neither train.txt nor trainval.txt .*VOCdevkit/VOC2012",
    "empty list": "val.txt is empty",
    "odd list": r"val.txt holds '../../b': expected one name",
    "binary list": "val.txt is no list of names",
    "image": "val.txt lists b, but there is no .*JPEGImages/b.jpg$",
    "mask": "val.txt lists b, but there is no .*SegmentationClass/b.png$",
    "objects": "val.txt lists b, but there is no .*SegmentationObject/b.png$",
    "objects' size": "SegmentationObject/b.png: the mask has 4 x 2 pixels, its image .*b.jpg 4 x 3",
    "21": "SegmentationClass/b.png: value 21 at row 0, column 2 is that of none of the 21 classes",
}


@pytest.mark.parametrize("case", MISSING)
def test_what_is_missing_is_one_line(tmp_path, case):
    folder = devkit(tmp_path, {"train": ["a"], "val": ["b"]})
    missing(case, folder)
    with pytest.raises((ValueError, FileNotFoundError), match=MISSING[case]) as caught:
        open_masks(f"voc:{folder}", instances=True)
    assert "\n" not in str(caught.value)
