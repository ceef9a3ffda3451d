"""Detection sets of TensorFlow Datasets by name, read without TensorFlow."""

import dataclasses
import io
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from train.data.detection.annotations import AnnotatedImages, Annotation, read_image_size
from train.data.tfds import SPLIT_NAMES, find_builder, open_records, prepare_set

LABELS_FROM_ONE = ("voc",)  # sets whose boxes are shares of pixels that are counted from 1
CROWD_KEYS = ("is_crowd", "is_difficult")

logger = logging.getLogger("train")


@dataclasses.dataclass(frozen=True, eq=False)
class RecordImages:
    """The images of prepared `open_records` [N], each as an open file."""

    records: Any

    def __getitem__(self, i: int, /) -> io.BytesIO:
        return io.BytesIO(self.records[i]["image"])


def find_tfds_detection(
    name: str, classes: Sequence[str] | None, *, data_dir: str | None = None
) -> AnnotatedImages:
    """NAME or NAME/CONFIG -> what is found.

    Objects that are difficult or crowds become crowds. TFDS has boxes as shares of the image; those
    of Pascal VOC it took from files that count pixels from 1 (see `find_voc_detection`), which is put
    right here. A part in which nothing is annotated, as VOC 2012's test, is left out. Opening reads
    every record once. What is not prepared is prepared as `open_tfds` does it.

    Raises ValueError where it cannot be, for a set without "image" and objects with "bbox" and
    "label", for a label out of range, and for classes that are not the set's.
    """
    builder = find_builder(name, data_dir)
    if not (builder.data_path / "dataset_info.json").exists():
        prepare_set(builder, name)
    full = f"{builder.info.full_name} (TFDS)"
    objects, own = find_objects_feature(builder.info.features, name)
    if classes is not None and tuple(classes) != own:
        raise ValueError(f"tfds:{name} knows its classes itself: leave classes out")
    from_one = name.split("/")[0] in LABELS_FROM_ONE
    found, images = {}, {}
    for part, names in SPLIT_NAMES.items():
        for known in (known for known in names if known in builder.info.splits):
            data = open_records(builder, known, "image")
            of_part = [
                annotation_from_record(
                    data[i], objects, own, name=f"{full}: image of example {i}", from_one=from_one
                )
                for i in range(len(data))
            ]
            if not any(len(record.labels) for record in of_part):
                logger.info("tfds:%s %s: nothing is annotated, left out", name, part)
                continue
            found[part], images[part] = of_part, RecordImages(data)
    if "train" not in found:
        raise ValueError(
            f"tfds:{name} has nothing to train on, but {', '.join(builder.info.splits)}"
        )
    return AnnotatedImages(found, own, full, images)


def find_objects_feature(features: Any, name: str) -> tuple[str, tuple[str, ...]]:
    """The name of the feature that holds the objects, and the names of their classes."""
    image = isinstance(dict(features).get("image"), tfds.features.Image)
    for key, feature in dict(features).items():
        inner = getattr(feature, "feature", None)
        fields = dict(inner) if isinstance(inner, tfds.features.FeaturesDict) else {}
        label: Any = fields.get("label")
        boxes = isinstance(fields.get("bbox"), tfds.features.BBoxFeature)
        if image and boxes and isinstance(label, tfds.features.ClassLabel):
            return key, tuple(label.names)
    raise ValueError(
        f"tfds:{name} is no set of an image and objects with bbox and label; it has "
        f"{', '.join(features)}"
    )


def annotation_from_record(
    record: Any, objects: str, classes: tuple[str, ...], *, name: str, from_one: bool
) -> Annotation:
    """A record -> its objects in pixels of the image as it is stored."""
    height, width = read_image_size(record["image"], name=name)[0]
    things = record[objects]
    shares = np.asarray(things["bbox"], np.float32).reshape(-1, 4)[:, [1, 0, 3, 2]]
    boxes = shares * np.array([width, height, width, height], np.float32)
    if from_one:
        sized = (boxes[:, 2:] > boxes[:, :2]).all(1)
        boxes[sized, :2] -= 1
    labels = np.asarray(things["label"], np.int32).reshape(-1)
    if wrong := np.flatnonzero((labels < 0) | (labels >= len(classes))).tolist():
        raise ValueError(
            f"{name}: object {wrong[0]} has the class {labels[wrong[0]]}, "
            f"but {len(classes)} classes are 0 to {len(classes) - 1}"
        )
    crowd = np.zeros(len(labels), bool)
    for key in CROWD_KEYS:
        if key in things:
            crowd |= np.asarray(things[key], bool).reshape(-1)
    area = np.asarray(things["area"], np.float32).reshape(-1) if "area" in things else None
    return Annotation(name, (height, width), boxes, labels, crowd, area)
