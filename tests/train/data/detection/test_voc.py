"""Pascal VOC's XML files: boxes, difficult objects, hostile and broken files."""

import logging

import numpy as np
import pytest
from PIL import Image

from train.data import open_boxes
from train.data.detection.voc import OBJECT_CLASSES
from zoo.canvas import Canvas

CANVAS = Canvas((24, 40))
THING = "<object><name>{}</name>{}<bndbox>{}</bndbox></object>"
EDGES = ("xmin", "ymin", "xmax", "ymax")


def thing(name, *box, more=""):
    edges = "".join(f"<{e}>{v}</{e}>" for e, v in zip(EDGES, box, strict=True))
    return THING.format(name, more, edges)


def xml(*things, size=(12, 20)):
    sides = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
    return f"<annotation><filename>any</filename>{sides}{''.join(things)}</annotation>"


def devkit(folder, parts):
    """{part: {name: xml}}; every image is of 20 x 12 pixels."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for part, files in parts.items():
        (folder / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(files) + "\n")
        for name, text in files.items():
            Image.fromarray(np.full((12, 20, 3), 90, np.uint8)).save(
                folder / "JPEGImages" / f"{name}.jpg"
            )
            (folder / "Annotations" / f"{name}.xml").write_text(text)
    return folder


def test_a_devkit_is_read(tmp_path, caplog):
    difficult = (
        "<difficult>1</difficult><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    )
    files = {
        "a": xml(thing("RBC", 3, 2, 10, 8), thing("WBC", 1, 1, 20, 12, more=difficult)),
        "b": xml(
            thing("RBC", 5, 5, 5, 5), thing("RBC", 4.5, 3, 25, 10, more="<difficult>0</difficult>")
        ),
    }
    devkit(tmp_path, {"train": files, "val": {"c": xml(size=(0, 0))}})
    with caplog.at_level(logging.INFO, "train"):
        sources = open_boxes(f"folder:{tmp_path}", canvas=CANVAS)
    assert {part: len(source) for part, source in sources.items()} == {"train": 2, "val": 1}
    assert sources["val"].classes == ("RBC", "WBC")
    first, second = sources["train"][0], sources["train"][1]
    # Pixels counted from 1, the last included; a canvas of twice the size.
    assert first["boxes"].tolist() == [[4, 2, 20, 16], [0, 0, 40, 24]]
    assert first["labels"].tolist() == [0, 1] and first["crowd"].tolist() == [False, True]
    assert second["boxes"].tolist() == [[7, 4, 40, 20], [0, 0, 0, 0]]
    assert second["box_valid"].tolist() == [True, False]
    assert first["size"].tolist() == [24, 40] and first["scale"].tolist() == [2, 2]
    assert not sources["val"][0]["box_valid"].any()
    said = [record.getMessage().removeprefix(f"folder:{tmp_path} ") for record in caplog.records]
    train = "2 images, 3 objects (1 difficult or crowds); 1 of no size dropped; 1 cut at the border"
    assert said == [
        f"train: {train}",
        "val: 1 images, 0 objects (0 difficult or crowds); 1 without an object",
    ]


def test_the_challenge_s_names_are_the_twenty(tmp_path):
    folder = devkit(
        tmp_path, {"trainval": {name: xml(thing("dog", 1, 1, 9, 9)) for name in "abcde"}}
    )
    sources = open_boxes(f"folder:{folder}", canvas=CANVAS, objects=7)
    assert {part: len(source) for part, source in sources.items()} == {"train": 4, "val": 1}
    assert (
        sources["train"].classes == OBJECT_CLASSES
        and len(OBJECT_CLASSES) == 20
        and OBJECT_CLASSES[11] == "dog"
    )
    assert sources["train"][0]["labels"].tolist() == [11, 0, 0, 0, 0, 0, 0]
    said = open_boxes(f"folder:{folder}", canvas=CANVAS, classes=("cat", "dog"))
    assert said["val"][0]["labels"].tolist() == [1]


LAUGHS = '<!DOCTYPE a [<!ENTITY x "{}"><!ENTITY y "&x;&x;&x;">]>'.format("ha" * 50)
BROKEN = {  # annotation of "b" -> what is told
    "no xml": ("hello", "b.xml is no annotation of Pascal VOC"),
    "cut off": (xml()[:-9], "b.xml is no annotation"),
    "another root": ("<html/>", "it holds <html>, expected <annotation>"),
    "entities": (LAUGHS + xml(thing("&y;", 1, 1, 9, 9)), "it declares a document type"),
    "external": ('<!DOCTYPE a SYSTEM "file:///etc/passwd">' + xml(), "it declares a document type"),
    "utf-16": ((LAUGHS + xml()).encode("utf-16"), "it declares a document type"),
    "nested": ("<annotation>" + "<a>" * 99, "nested more than 32 deep"),
    "long": (" " * (2**23 + 1), "longer than 8388608 bytes"),
    "no name": (xml(thing(" ", 1, 1, 9, 9)), "an object has no name"),
    "no box": (xml("<object><name>dog</name></object>"), "an object 'dog' has no bndbox of xmin"),
    "no number": (xml(thing("dog", "1px", 1, 9, 9)), "could not convert string to float: '1px'"),
    "not finite": (xml(thing("dog", 1, "nan", 9, 9)), "box of an object 'dog' is not finite"),
    "size": (xml(size=(24, 40)), "says that its image has 40 x 24 pixels, but .*b.jpg has 20 x 12"),
    "unknown": (xml(thing("dig", 1, 1, 9, 9)), "b.xml names the class 'dig', which is none of dog"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_annotation_is_one_line(tmp_path, case):
    content, message = BROKEN[case]
    folder = devkit(
        tmp_path, {"train": {"a": xml(thing("dog", 1, 1, 9, 9)), "b": ""}, "val": {"c": xml()}}
    )
    content = content if isinstance(content, bytes) else content.encode()
    (folder / "Annotations" / "b.xml").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        open_boxes(f"folder:{folder}", canvas=CANVAS, classes=("dog",))
    assert "\n" not in str(caught.value)


MISSING = {
    "JPEGImages/b.jpg": "b has no image .*b.jpg",
    "Annotations/b.xml": "b.jpg has no annotation .*b.xml",
    "ImageSets/Main/train.txt": "neither train.txt nor trainval.txt",
}


@pytest.mark.parametrize("file", MISSING)
def test_a_missing_file_is_one_line(tmp_path, file):
    folder = devkit(tmp_path, {"train": {"a": xml(), "b": xml()}, "val": {"c": xml()}})
    (folder / file).unlink()
    with pytest.raises(FileNotFoundError, match=MISSING[file]) as caught:
        open_boxes(f"folder:{folder}", canvas=CANVAS)
    assert "\n" not in str(caught.value)


def test_an_image_that_is_none(tmp_path):
    folder = devkit(tmp_path, {"train": {"a": xml()}, "val": {"c": xml()}})
    (folder / "JPEGImages" / "a.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match="a.jpg is unreadable as an image") as caught:
        open_boxes(f"folder:{folder}", canvas=CANVAS)
    assert "\n" not in str(caught.value)
