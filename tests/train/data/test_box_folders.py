"""COCO's annotation files, folders of text files and TFDS as sources of boxes."""

import json
import logging
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from train.data import open_boxes
from train.data.detection.tfds import find_tfds_detection
from zoo.canvas import Canvas

CANVAS = Canvas((24, 40))  # twice the size of the images


def image(file, size=(12, 20), orientation=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(file, exif=exif)


def lines(caplog, folder):
    return [line.getMessage().removeprefix(f"folder:{folder} ") for line in caplog.records]


CATEGORIES = [{"id": 90, "name": "cup"}, {"id": 7, "name": "car"}]
ANNOTATIONS = [
    {"id": 1, "image_id": 3, "category_id": 90, "bbox": [1, 2, 4, 5], "iscrowd": 0, "area": 9.5},
    {"id": 2, "image_id": 3, "category_id": 7, "bbox": [0.5, 0, 10.5, 12], "iscrowd": 1},
    {"id": 3, "image_id": 3, "category_id": 7, "bbox": [5, 5, 0, 3]},
]


def coco(folder, **changes):
    for part in ("train", "val"):
        image(folder / f"{part}2017" / "a.png")
        image(folder / f"{part}2017" / "b.png")
        images = [
            {"id": 3, "file_name": "a.png", "height": 12, "width": 20},
            {"id": 1, "file_name": "b.png", "height": 12, "width": 20},
        ]
        content = {"images": images, "annotations": ANNOTATIONS, "categories": CATEGORIES}
        file = folder / "annotations" / f"instances_{part}2017.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content | changes))
    return f"folder:{folder}"


def test_coco(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "train"):
        sources = open_boxes(coco(tmp_path), canvas=CANVAS)
    assert sources["val"].classes == ("car", "cup") and len(sources["train"]) == 2
    bare, example = sources["val"][0], sources["val"][1]  # in the order of the images' ids
    assert not bare["box_valid"].any() and example["box_valid"].all()
    assert example["boxes"].tolist() == [[2, 4, 10, 14], [1, 0, 22, 24]]
    assert example["labels"].tolist() == [1, 0] and example["crowd"].tolist() == [False, True]
    assert example["area"].tolist() == [9.5, 126]  # of the segmentation; not told: of the box
    assert bare["area"].tolist() == [0, 0]
    counted = (
        "2 images, 2 objects (1 difficult or crowds); 1 without an object; 1 of no size dropped"
    )
    assert lines(caplog, tmp_path) == [f"train: {counted}", f"val: {counted}"]
    said = open_boxes(f"folder:{tmp_path}", canvas=CANVAS, classes=("N/A", "cup", "car"))
    assert said["val"][1]["labels"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": [ANNOTATIONS[0] | {"bbox": [1, 2, 3]}]}, r"annotation 1 has the bbox \[1"),
        ({"annotations": [ANNOTATIONS[0] | {"bbox": None}]}, "annotation 1 has the bbox None"),
        ({"annotations": [ANNOTATIONS[0] | {"category_id": 8}]}, "annotation 1 is of category 8"),
        (
            {"categories": [*CATEGORIES, {"id": 2, "name": "dog"}]},
            "the category 'dog', which is none",
        ),
    ],
)
def test_coco_s_mistakes(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        open_boxes(coco(tmp_path, **changes), canvas=CANVAS, classes=("car", "cup"))
    assert "\n" not in str(caught.value)


def test_an_image_of_another_size_than_its_annotation_says(tmp_path):
    spec = coco(tmp_path)
    image(tmp_path / "val2017" / "a.png", (12, 21))
    with pytest.raises(ValueError, match="a.png has 21 x 12 pixels, its annotation says 20 x 12"):
        open_boxes(spec, canvas=CANVAS)["val"][1]


LABELS = "1 0.5 0.5 0.5 0.5\n\n0 .1 .25 .2 .5\n0 0.5 0.5 0 0.5\n"
YOLO = {  # layout: (images, labels) of train, val
    "kinds": ("images/{}", "labels/{}"),
    "parts": ("{}/images", "{}/labels"),
}
NAMES = {
    "classes.txt": "cat\ndog\n",
    "data.yaml": "nc: 2\nnames: [cat, dog]\n",
    "dataset.yaml": "names:\n  0: cat\n  1: dog\n",
    "": None,
}


def yolo(folder, layout="kinds", labels=LABELS):
    images, texts = YOLO[layout]
    for part in ("train", "val"):
        for name in ("1", "2", "10"):
            image(folder / images.format(part) / f"{name}.jpg")
        (folder / texts.format(part)).mkdir(parents=True)
        (folder / texts.format(part) / "10.txt").write_text(labels)
        (folder / texts.format(part) / "2.txt").write_text("")
    return f"folder:{folder}"


@pytest.mark.parametrize(("layout", "names"), [*zip([*YOLO, *YOLO], NAMES, strict=True)])
def test_yolo(tmp_path, caplog, layout, names):
    spec = yolo(tmp_path, layout)
    if names:
        (tmp_path / names).write_text(NAMES[names])
    with caplog.at_level(logging.INFO, "train"):
        source = open_boxes(spec, canvas=CANVAS)["val"]
    assert source.classes == (("cat", "dog") if names else ("0", "1"))
    examples = [source[i] for i in range(len(source))]
    assert [example["box_valid"].sum() for example in examples] == [0, 0, 2]
    np.testing.assert_allclose(examples[2]["boxes"], [[10, 6, 30, 18], [0, 0, 8, 12]], atol=1e-5)
    assert examples[2]["labels"].tolist() == [1, 0]
    told = "1 without a label file; 2 without an object; 1 of no size dropped"
    assert lines(caplog, tmp_path)[1] == (
        f"val: 3 images, 2 objects (0 difficult or crowds); {told}"
    )


def test_yolo_s_shares_are_of_the_upright_image(tmp_path):
    spec = yolo(tmp_path)
    image(tmp_path / "images" / "val" / "10.jpg", (20, 12), orientation=6)
    example = open_boxes(spec, canvas=CANVAS)["val"][2]
    assert example["scale"].tolist() == [2, 2] and example["boxes"][0].tolist() == [10, 6, 30, 18]


MISTAKES = {  # what stands in a label file, or in a file of that name
    ("", "2 .5 .5 .1 .1"): "10.txt: line 1 has the class 2, but 2 classes are 0 to 1",
    ("", "-1 .5 .5 .1 .1"): "10.txt: line 1 has the class -1",
    ("", "0 .5 .5 .1"): "10.txt: line 1 is '0 .5 .5 .1', expected 'class x y width height'",
    ("", "0 .5 .5 .1 .1 .2 .2"): "expected 'class x y width height', shares of the image",
    ("", "cat .5 .5 .1 .1"): "line 1 is 'cat .5 .5 .1 .1', expected",
    ("", "0 nan .5 .1 .1"): "line 1 is '0 nan",
    ("classes.txt", "cat\ncat\n"): "classes.txt: the class 'cat' is named twice",
    ("classes.txt", "\n"): "classes.txt names no class",
    ("data.yaml", "a: &a [x]\nnames: [*a, *a]"): "data.yaml cannot be read as YAML .it has aliases",
    ("data.yaml", "names: !!python/object/apply:os.getcwd []"): "cannot be read as YAML",
    ("data.yaml", "names: ["): "data.yaml cannot be read as YAML",
    ("data.yaml", "names: {1: cat, 2: dog}"): "numbers of its names are not 0 to 1",
    ("data.yaml", "nc: 2"): "data.yaml has no list of names",
    ("labels/val/3.txt", ""): "3.txt has no image of its name in .*images/val",
}


@pytest.mark.parametrize("case", MISTAKES)
def test_yolo_s_mistakes(tmp_path, case):
    file, content = case
    spec = yolo(tmp_path)
    (tmp_path / (file or "labels/train/10.txt")).write_text(content)
    if not file:
        (tmp_path / "classes.txt").write_text(NAMES["classes.txt"])
    with pytest.raises((ValueError, FileNotFoundError), match=MISTAKES[case]) as caught:
        open_boxes(spec, canvas=CANVAS)
    assert "\n" not in str(caught.value)


def test_a_folder_of_no_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere"):
        open_boxes(f"folder:{tmp_path}/nowhere", canvas=CANVAS)
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match="in none of the layouts of boxes: expected Annotations"):
        open_boxes(f"folder:{tmp_path}", canvas=CANVAS)
    spec = yolo(tmp_path)
    for part in ("train", "val"):
        (tmp_path / "labels" / part / "10.txt").unlink()
        (tmp_path / "labels" / part / "2.txt").unlink()
    with pytest.raises(FileNotFoundError, match="has no label file, NAME.txt"):
        open_boxes(spec, canvas=CANVAS)


class Small(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A set whose features and splits the tests say."""

    features, splits = {}, {}

    def _info(self):
        features = tfds.features.FeaturesDict(self.features)
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {name: enumerate(examples) for name, examples in self.splits.items()}

    def _generate_examples(self):
        raise AssertionError("the splits are generators themselves")


def prepared(folder, name, version, crowd, splits):
    """NAME/CONFIG as the library would, whose own builders do not prepare without TensorFlow."""
    name, config = name.split("/")
    if name == "voc":
        features = dict(tfds.builder("voc/2007").info.features)
    else:
        label = tfds.features.ClassLabel(names=["bottle", "car"])
        things = {"bbox": tfds.features.BBoxFeature(), crowd: np.bool_, "label": label}
        features = {"objects": tfds.features.Sequence(things)}
    features["image"] = tfds.features.Image(encoding_format="png")
    configs = [tfds.core.BuilderConfig(name=config, version=version)]
    fields = {"name": name, "BUILDER_CONFIGS": configs, "features": features, "splits": splits}
    builder = type(name, (Small,), fields, skip_registration=True)
    builder(data_dir=folder, config=config, file_format="array_record").download_and_prepare()


@pytest.mark.parametrize(
    ("name", "version", "crowd"),
    [("voc/2007", "5.0.0", "is_difficult"), ("coco/2017", "1.1.0", "is_crowd")],
)
def test_tfds(tmp_path, monkeypatch, caplog, name, version, crowd):
    # In files of Pascal VOC (3, 2, 10, 8), pixels counted from 1.
    things = [(tfds.features.BBox(2 / 12, 3 / 20, 8 / 12, 10 / 20), "car", False)]
    things += [(tfds.features.BBox(0.5, 0.5, 0.5, 0.75), "bottle", True)]
    things += [(tfds.features.BBox(0.5, 0.5, 1.0, 0.75), "bottle", True)]
    objects = [{"bbox": box, "label": label, crowd: flag} for box, label, flag in things]
    some = [{"image": Image.new("RGB", (20, 12)), "objects": o} for o in (objects, [])]
    if name == "voc/2007":
        more = {"image/filename": "a.jpg", "labels": [], "labels_no_difficult": []}
        some = [example | more for example in some]
        objects[:] = [thing | {"pose": "left", "is_truncated": False} for thing in objects]
    prepared(tmp_path, name, version, crowd, {"train": some, "validation": some, "test": some[1:]})
    monkeypatch.setattr(
        "train.data.detection.open.find_tfds_detection",
        lambda name, classes: find_tfds_detection(name, classes, data_dir=str(tmp_path)),
    )
    with caplog.at_level(logging.INFO, "train"):
        sources = open_boxes(f"tfds:{name}", canvas=CANVAS, objects=3)
    assert sources.keys() == {"train", "val"}
    car, bottle = map(sources["val"].classes.index, ("car", "bottle"))
    assert len(sources["val"].classes) == (20 if name == "voc/2007" else 2)
    example, shift = sources["val"][0], 2 * (name == "voc/2007")
    boxes = [[6 - shift, 4 - shift, 20, 16], [20 - shift, 12 - shift, 30, 24], [0, 0, 0, 0]]
    np.testing.assert_allclose(example["boxes"], boxes, atol=1e-5)
    assert example["labels"].tolist() == [car, bottle, 0]
    assert example["crowd"].tolist() == [False, True, False]
    assert "train: 2 images, 2 objects (1 difficult or crowds); 1 without an" in caplog.text
    assert f"tfds:{name} test: nothing is annotated, left out" in caplog.text
    with pytest.raises(ValueError, match="knows its classes itself"):
        open_boxes(f"tfds:{name}", canvas=CANVAS, classes=("cup",))
    shutil.rmtree(tmp_path / name)
    with pytest.raises(ValueError, match=rf"^tfds:{name} is not prepared in .*: pip install"):
        open_boxes(f"tfds:{name}", canvas=CANVAS)
