"""Boxes from COCO's annotation files."""

import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from train.data.detection.annotations import AnnotatedImages, Annotation, annotate
from train.data.segmentation.coco import Record, find_coco_masks


def find_coco_detection(folder: pathlib.Path, classes: Sequence[str] | None) -> AnnotatedImages:
    """PATH/annotations/instances_{train,val,test}*.json -> what is found.

    Where the images lie tells `find_coco_masks`. Category ids, in order, become 0 to K - 1, or the places
    of their names in `classes`, which may hold more. Crowds stay crowds, segmentations are not read.

    Raises FileNotFoundError for a missing folder or image, ValueError for a malformed file and for
    a category that is none of `classes`.

    Source: Lin et al. 2014, Microsoft COCO, and the format page of cocodataset.org.
    """
    found = find_coco_masks(folder, instances=False, masks=False)
    names = found.classes[1:]
    if classes is None:
        classes = names
    elif unknown := [name for name in names if name not in classes]:
        raise ValueError(
            f"coco: {folder} has the category {unknown[0]!r:.80}, which is none of the classes "
            f"{', '.join(classes)}"
        )
    label = {number: classes.index(name) for number, name in enumerate(names)}
    records = {}
    for part, of_part in found.records.items():
        reader = found.readers[part]
        labels = {identity: label[number - 1] for identity, number in reader.index.items()}
        records[part] = [
            annotation_from_record(record, labels, reader.annotations) for record in of_part
        ]
    return AnnotatedImages(records, tuple(classes), folder.resolve().name)


def annotation_from_record(record: Record, labels: dict[int, int], file: str) -> Annotation:
    """The boxes of an image's annotations, (x, y, width, height) as they are in the file.

    What an annotation says of its area tells the small from the large; that of its box where it does
    not.
    """
    objects, areas = [], []
    for annotation in record.annotations:
        x, y, width, height = box_from_annotation(annotation, file)
        label = labels[annotation["category_id"]]
        objects.append(((x, y, x + width, y + height), label, bool(annotation.get("iscrowd"))))
        area = annotation.get("area")
        told = isinstance(area, int | float) and math.isfinite(area) and area > 0
        areas.append(area if told else width * height)
    found = annotate(record.file, (record.height, record.width), objects)
    return found._replace(area=np.array(areas, np.float32))


def box_from_annotation(annotation: dict[str, Any], file: str) -> list[float]:
    box: Any = annotation.get("bbox")
    try:
        numbers = [float(number) for number in box]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 4 or not all(math.isfinite(number) for number in numbers):
        raise ValueError(
            f"{file}: annotation {annotation.get('id')} has the bbox {box!r:.80}, expected "
            "[x, y, width, height]"
        )
    return numbers
