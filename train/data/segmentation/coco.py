"""Masks from the instances of COCO's annotation files."""

import collections
import dataclasses
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as pycocotools

from train.data.image_files import MAX_IMAGE_PIXELS
from train.data.segmentation.mask_files import (
    IGNORE_LABEL,
    MAX_CLASSES,
    ImageMask,
    check_same_size,
    read_image,
)
from zoo.errors import one_line

rle: Any = pycocotools  # whose stubs know a part of what it takes
SPLIT_FOLDERS = ("train", "val", "test")


class Record(NamedTuple):
    """One image of an annotation file and its instances, the crowds among them."""

    file: str
    height: int
    width: int
    annotations: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class InstanceReader:
    """Reads a `Record` as a Pair; `index` is the class of a category's id, `annotations` the file.

    Where instances overlap the smaller lies on top; crowds are ignored where no instance lies.
    """

    annotations: str
    index: dict[int, int]
    instances: bool

    def __call__(self, record: Record) -> ImageMask:
        shape = record.height, record.width
        image = read_image(record.file, of=shape, name=record.file)
        check_same_size(image.size[::-1], shape, name=record.file, mask=self.annotations)
        mask, numbers = np.zeros(shape, np.uint8), np.zeros(shape, np.int32)
        parts = []
        for number, annotation in enumerate(record.annotations, start=1):
            region = decode_segmentation(annotation, shape, name=self.annotations) != 0
            if annotation.get("iscrowd"):
                mask[region] = IGNORE_LABEL
            else:
                parts.append((int(region.sum()), number, annotation, region))
        for _, number, annotation, region in sorted(parts, key=lambda part: -part[0]):
            mask[region] = self.index[annotation["category_id"]]
            numbers[region] = number
        return ImageMask(image, mask, numbers if self.instances else None)


def decode_segmentation(
    annotation: dict[str, Any], shape: tuple[int, int], *, name: str
) -> np.ndarray:
    """The region [h, w] uint8 of an annotation: polygons, or RLE as numbers or as a string.

    Raises ValueError in one line that begins with `name` and tells the annotation's id.
    """
    height, width = shape
    region: Any = annotation.get("segmentation")
    try:
        if isinstance(region, dict):
            if list(region["size"]) != [height, width]:
                raise ValueError(f"its RLE has the size {region['size']}")
            counts = region["counts"]
            if isinstance(counts, list):
                if min(counts) < 0 or sum(counts) != height * width:
                    raise ValueError(f"its RLE counts {sum(counts)} pixels")
                region = rle.frPyObjects(region, height, width)
            return rle.decode(region)
        if not isinstance(region, list) or not region:
            raise ValueError("it has neither polygons nor RLE")
        for polygon in region:
            far = 2 * max(height, width)  # pycocotools walks along the edges, however long
            if len(polygon) < 6 or len(polygon) % 2 or not all(-far < at < far for at in polygon):
                raise ValueError(
                    "a polygon is x and y of three points or more, not far outside of the image"
                )
        return rle.decode(rle.merge(rle.frPyObjects(region, height, width)))
    except Exception as error:  # what pycocotools and Python make of malformed entries
        reason = one_line(error)
        raise ValueError(
            f"{name}: the segmentation of annotation {annotation.get('id')}, in an image of "
            f"{width} x {height} pixels, cannot be read ({reason})"
        ) from error


class CocoMasks(NamedTuple):
    """The parts' records and readers, and the names of the classes, "background" the first."""

    records: dict[str, list[Record]]
    readers: dict[str, InstanceReader]
    classes: tuple[str, ...]


def find_coco_masks(folder: pathlib.Path, *, instances: bool, masks: bool = True) -> CocoMasks:
    """PATH/annotations/instances_{train,val,test}*.json -> their records, as far as there are.

    The images of instances_NAME.json lie in PATH/NAME, PATH/images/NAME, PATH/images or PATH.
    Category ids, in order, become classes 1 to K - 1. Images without an instance are background.
    What is not for `masks` may have more classes than these have values.

    Raises FileNotFoundError for a missing folder or image, ValueError for a malformed file.

    Source: Lin et al. 2014, Microsoft COCO, and the format page of cocodataset.org.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"coco: there is no folder {folder}")
    records, readers, categories = {}, {}, {}
    for part in SPLIT_FOLDERS:
        files = sorted(folder.glob(f"annotations/instances_{part}*.json"))
        if len(files) > 1:
            raise ValueError(f"coco: {files[0]} and {files[1].name} both claim to be {part}")
        if not files:
            continue
        content = load_json(files[0])
        try:
            categories[part] = {c["id"]: str(c["name"]) for c in content["categories"]}
            known = sorted(categories[part])
            records[part] = parse_records(
                content, find_image_folder(folder, files[0]), set(known), files[0]
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{files[0]} is no annotation file of instances: {type(error).__name__} {error}"
            ) from error
        index = {identity: i for i, identity in enumerate(known, start=1)}
        readers[part] = InstanceReader(str(files[0]), index, instances)
    if not records:
        raise FileNotFoundError(f"coco: {folder} has no annotations/instances_*.json")
    first, *others = categories.values()
    if any(other != first for other in others):
        raise ValueError(f"coco: the annotation files in {folder} differ in their categories")
    most = MAX_CLASSES - 1 if masks else 10**6
    if not 1 <= len(first) <= most:
        raise ValueError(f"coco: expected 1 to {most} categories, {folder} has {len(first)}")
    return CocoMasks(records, readers, ("background", *(first[i] for i in sorted(first))))


def load_json(file: pathlib.Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON file, or one cut off ({error})") from error


def find_image_folder(folder: pathlib.Path, file: pathlib.Path) -> pathlib.Path:
    name = file.stem.removeprefix("instances_")
    places = (folder / name, folder / "images" / name, folder / "images", folder)
    return next(place for place in places if place.is_dir())


def parse_records(
    content: Any, images: pathlib.Path, categories: set, file: pathlib.Path
) -> list[Record]:
    """The images of an annotation file, by id, each with its instances."""
    of_image = collections.defaultdict(list)
    for annotation in content["annotations"]:
        if annotation["category_id"] not in categories:
            raise ValueError(
                f"{file}: annotation {annotation.get('id')} is of category "
                f"{annotation['category_id']}, which is none of the file's"
            )
        of_image[annotation["image_id"]].append(annotation)
    there = {entry.name for entry in images.iterdir()}
    found = []
    for image in sorted(content["images"], key=lambda image: image["id"]):
        name, height, width = image["file_name"], image["height"], image["width"]
        below = not (pathlib.PurePath(name).is_absolute() or ".." in pathlib.PurePath(name).parts)
        if name not in there and not (below and (images / name).is_file()):
            raise FileNotFoundError(f"{file} names the image {name}, which is not in {images}")
        whole = isinstance(height, int) and isinstance(width, int)
        if not (
            whole and 0 < height <= MAX_IMAGE_PIXELS and 0 < width <= MAX_IMAGE_PIXELS // height
        ):
            raise ValueError(f"{file}: image {name} claims {width} x {height} pixels")
        found.append(Record(str(images / name), height, width, of_image[image["id"]]))
    if not found:
        raise ValueError(f"{file} names no image")
    return found
