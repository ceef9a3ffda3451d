"""Boxes from Pascal VOC's XML files."""

import math
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from train.data.detection.annotations import AnnotatedImages, annotate, read_image_sizes
from train.data.image_files import IMAGE_SUFFIXES
from train.data.segmentation.voc import VOC_CLASSES, VOC_LISTS, read_name_list

OBJECT_CLASSES = VOC_CLASSES[1:]  # of the challenge's objects
MAX_LIST_BYTES = 2**23  # bytes of an annotation
MAX_XML_DEPTH = 32  # elements in one another
BOX_EDGES = ("xmin", "ymin", "xmax", "ymax")


class VocObject(NamedTuple):
    """An object of an annotation: its name, its box in pixels counted from 0, if it is difficult."""

    name: str
    box: tuple[float, ...]
    difficult: bool


def find_voc_detection(folder: pathlib.Path, classes: Sequence[str] | None) -> AnnotatedImages:
    """PATH/Annotations/NAME.xml and PATH/JPEGImages/NAME.jpg -> what is found.

    The parts are those of PATH/ImageSets/Main/{train,val,test}.txt; only trainval.txt, where there
    is no train.txt: as "train"; without lists all files are "train". Classes, unless said, are the
    challenge's twenty where all names are of them, else the names of all parts in alphabetical
    order. "difficult" objects become crowds.

    The files count pixels from 1 and include the last: (xmin, ymin, xmax, ymax) becomes
    (xmin - 1, ymin - 1, xmax, ymax). A box whose edges are equal has no size, though by that rule it
    would have a pixel: it is a click of the mouse.

    Raises FileNotFoundError for a missing list, image or annotation, ValueError for one that is
    malformed, of another size than its image, or names an unknown class.

    Source: Everingham et al. 2010, The Pascal Visual Object Classes Challenge; the development kit.
    """
    names = list_split_names(folder)
    images = {
        path.stem: path
        for path in sorted((folder / "JPEGImages").iterdir())
        if has_image_suffix(path)
    }
    every = dict.fromkeys(name for of_part in names.values() for name in of_part)
    for name in every:
        if name not in images:
            raise FileNotFoundError(
                f"{folder}: {name} has no image {folder / 'JPEGImages' / name}.jpg"
            )
        if not annotation_path(folder, name).is_file():
            raise FileNotFoundError(
                f"{images[name]} has no annotation {annotation_path(folder, name)}"
            )
    with ThreadPoolExecutor(16) as pool:
        read = list(pool.map(lambda name: read_annotation(annotation_path(folder, name)), every))
    if classes is None:
        said = {thing.name for objects, _ in read for thing in objects}
        classes = OBJECT_CLASSES if said <= set(OBJECT_CLASSES) else sorted(said)
    index = {name: label for label, name in enumerate(classes)}
    records = {}
    sizes = read_image_sizes([str(images[name]) for name in every])
    for name, (objects, said), (stored, upright) in zip(every, read, sizes, strict=True):
        file = annotation_path(folder, name)
        if said not in (None, stored, upright):
            raise ValueError(
                f"{file} says that its image has {said[1]} x {said[0]} pixels, but "
                f"{images[name]} has {stored[1]} x {stored[0]}"
            )
        unknown = [thing.name for thing in objects if thing.name not in index]
        if unknown:
            raise ValueError(
                f"{file} names the class {unknown[0]!r:.80}, which is none of {', '.join(classes)}"
            )
        things = [(thing.box, index[thing.name], thing.difficult) for thing in objects]
        records[name] = annotate(str(images[name]), upright if said == upright else stored, things)
    found = {part: [records[name] for name in of_part] for part, of_part in names.items()}
    return AnnotatedImages(found, tuple(classes), folder.resolve().name)


def list_split_names(folder: pathlib.Path) -> dict[str, list[str]]:
    """{part: names of its images}."""
    lists = folder / "ImageSets" / "Main"
    files = {part: lists / f"{part}.txt" for part in VOC_LISTS}
    if not files["train"].is_file():
        files["train"] = lists / "trainval.txt"
        files.pop("val")
    if files["train"].is_file():
        names = {part: read_name_list(file) for part, file in files.items() if file.is_file()}
        if "test" in names and not annotation_path(folder, names["test"][0]).is_file():
            del names["test"]  # kept back by the challenge
        return names
    if lists.is_dir():
        raise FileNotFoundError(f"{lists} has neither train.txt nor trainval.txt")
    names = {"train": sorted(path.stem for path in (folder / "Annotations").glob("*.xml"))}
    if not names["train"]:
        raise FileNotFoundError(f"{folder / 'Annotations'} has no annotation, NAME.xml")
    return names


def annotation_path(folder: pathlib.Path, name: str) -> pathlib.Path:
    return folder / "Annotations" / f"{name}.xml"


def has_image_suffix(path: pathlib.Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def read_annotation(file: pathlib.Path) -> tuple[list[VocObject], tuple[int, int] | None]:
    """An annotation -> its objects, and (height, width) that it says, None for none or 0.

    Raises ValueError in one line that begins with the file.
    """
    try:
        root = parse_xml(file)
        if root.tag != "annotation":
            raise ValueError(f"it holds <{root.tag[:40]}>, expected <annotation>")
        told = [float(root.findtext(f"size/{side}") or 0) for side in ("height", "width")]
        objects = [read_object(element) for element in root.iterfind("object")]
    except (OSError, ValueError, expat.ExpatError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} is no annotation of Pascal VOC ({reason})") from error
    height, width = told
    return objects, (int(height), int(width)) if height and width else None


def read_object(element: Element) -> VocObject:
    name = " ".join((element.findtext("name") or "").split())
    if not name:
        raise ValueError("an object has no name")
    texts = [element.findtext(f"bndbox/{edge}") for edge in BOX_EDGES]
    if any(text is None for text in texts):
        raise ValueError(f"an object {name[:40]!r} has no bndbox of {', '.join(BOX_EDGES)}")
    edges = [float(text or "") for text in texts]
    if not all(math.isfinite(edge) for edge in edges):
        raise ValueError(f"the box of an object {name[:40]!r} is not finite")
    x0, y0, x1, y1 = edges
    # A box without an extent stays without: else a click would be an object of one pixel.
    box = (x0 - 1, y0 - 1, x1, y1) if x1 > x0 and y1 > y0 else (x0, y0, x0, y0)
    return VocObject(name, box, (element.findtext("difficult") or "0").strip() not in ("", "0"))


def parse_xml(file: pathlib.Path) -> Element:
    """An XML file -> its root. Declarations of types, and so of entities, are refused.

    An entity can be made to expand to gigabytes, or to another file.
    """
    with file.open("rb") as opened:
        content = opened.read(MAX_LIST_BYTES + 1)
    if len(content) > MAX_LIST_BYTES:
        raise ValueError(f"it is longer than {MAX_LIST_BYTES} bytes")
    builder, parser, depth = TreeBuilder(), expat.ParserCreate(), 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_XML_DEPTH:
            raise ValueError(f"its elements are nested more than {MAX_XML_DEPTH} deep")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        raise ValueError("it declares a document type, which may hide entities")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(content, True)
    return builder.close()
