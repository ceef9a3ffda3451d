"""The images with boxes that a recipe's `source` names."""

import difflib
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from train.data.detection.annotations import AnnotatedImages, clean_boxes
from train.data.detection.coco import find_coco_detection
from train.data.detection.sources import BoxFiles, BoxScenes, BoxSource, check_canvas_fits
from train.data.detection.tfds import find_tfds_detection
from train.data.detection.voc import find_voc_detection
from train.data.detection.yolo import LAYOUTS, find_splits, find_yolo_detection
from train.data.segmentation.masked_images import cache_in_memory
from train.data.source import Source
from train.data.splits import split_by_blocks
from train.data.synthetic.digit_scenes import CLASSES, MAX_OBJECTS, open_digit_scenes
from zoo.canvas import Canvas

BOX_FORMS = {
    "digit_scenes": "digit_scenes",
    "folder": "folder:PATH",
    "tfds": "tfds:NAME or tfds:NAME:CONFIG",
}


def open_boxes(
    spec: str,
    *,
    canvas: Canvas,
    training: Sequence[Canvas] = (),
    objects: int | None = None,
    classes: Sequence[str] | None = None,
    channels: int = 3,
    splits: float | str | None = None,
    seed: int = 0,
) -> dict[str, Source]:
    """ "digit_scenes", "folder:PATH" or "tfds:NAME" -> {"train", "val", "test"} as far as there are.

    `train.data.detection.sources.to_example` describes an example. Labels are 0 to K - 1 of the
    source's
    `classes`, which are those of the set unless they are said. `objects` is the number of rows of
    boxes, None for the most that any image has; of more the largest stay. A line in the log counts,
    for each part, what was wrong: `clean_boxes`.

    `training` canvases, if there are, stand for `canvas` in the batches of "train", each of which
    has one: of those that lie as its pictures do, wide or upright, drawn by seed and batch. Else
    what has been decoded stays in memory up to `pairs.KEPT` bytes.

    A folder is told by its layout: Pascal VOC's (`find_voc_detection`), COCO's (`find_coco_detection`) or
    images/ beside labels/ (`find_yolo_detection`). `splits` cuts "train" as in `open_masks`; without it
    a fifth becomes "val" where "train" is all there is.

    Raises FileNotFoundError or ValueError in one line that names the file.

    >>> scenes = open_boxes("digit_scenes", canvas=Canvas((128, 128)), channels=1)
    >>> example = scenes["val"][0]
    >>> example["image"].shape, example["boxes"].shape, scenes["val"].classes[:2]
    ((128, 128, 1), (8, 4), ('0', '1'))
    """
    scheme, where = parse_box_spec(spec)
    check_box_options((canvas, *training), objects, channels, spec=spec)
    canvases: dict[str, Any] = {"canvas": canvas, "training": tuple(training)}
    if scheme == "digit_scenes":
        if classes is not None and tuple(classes) != CLASSES[1:]:
            raise ValueError(f"{spec} knows its classes itself: leave classes out")
        sources = open_scene_boxes(channels, seed, objects=objects, **canvases)
    elif scheme == "folder":
        found = find_box_folder(pathlib.Path(os.path.expanduser(where)), classes)
        sources = open_file_boxes(found, spec, objects=objects, channels=channels, **canvases)
    else:
        found = find_tfds_detection(where.replace(":", "/"), classes)
        sources = open_file_boxes(found, spec, objects=objects, channels=channels, **canvases)
    if "train" not in sources:
        raise ValueError(f"{spec} has {' and '.join(sources)} but nothing to train on")
    several = ("train",) if training else ()
    whole = split_by_blocks(sources, splits, seed=seed, spec=spec)
    kept = cache_in_memory({part: source for part, source in whole.items() if part not in several})
    return {part: kept.get(part, source) for part, source in whole.items()}


def open_scene_boxes(
    channels: int,
    seed: int,
    *,
    objects: int | None,
    canvas: Canvas,
    training: tuple[Canvas, ...],
) -> dict[str, BoxSource]:
    """The digits of scenes that are drawn at the size of `canvas`."""
    sources = {}
    for part, scenes in open_digit_scenes(size=(*canvas.size, channels), seed=seed).items():
        sizes = [canvas.size] * len(scenes)
        common = (scenes.name, CLASSES[1:], canvas._replace(fit="stretch"), objects or MAX_OBJECTS)
        sources[part] = BoxSource(
            BoxScenes(scenes), sizes, *common, training if part == "train" else ()
        )
    return sources


def open_file_boxes(
    found: AnnotatedImages,
    spec: str,
    *,
    objects: int | None,
    channels: int,
    canvas: Canvas,
    training: tuple[Canvas, ...],
) -> dict[str, BoxSource]:
    """What was found in files, with boxes that are sound, on canvases on which it fits."""
    records = {
        part: clean_boxes(
            of_part, objects=objects, log=found.log.get(part, ()), split=f"{spec} {part}"
        )
        for part, of_part in found.records.items()
    }
    for part, of_part in records.items():
        check_canvas_fits(of_part, canvas, training if part == "train" else ())
    counts = [len(record.labels) for of_part in records.values() for record in of_part]
    common = (found.name, found.classes, canvas, objects or max(1, *counts))
    return {
        part: BoxSource(
            BoxFiles(of_part, channels, found.images.get(part)),
            [record.size for record in of_part],
            *common,
            training if part == "train" else (),
        )
        for part, of_part in records.items()
    }


def find_box_folder(folder: pathlib.Path, classes: Sequence[str] | None) -> AnnotatedImages:
    """What a folder in one of three layouts holds; FileNotFoundError or ValueError for none."""
    if not folder.is_dir():
        raise FileNotFoundError(f"folder: there is no folder {folder}")
    if any(folder.glob("annotations/instances_*.json")):
        return find_coco_detection(folder, classes)
    if (folder / "Annotations").is_dir() and (folder / "JPEGImages").is_dir():
        return find_voc_detection(folder, classes)
    if any(find_splits(folder)):
        return find_yolo_detection(folder, classes)
    raise ValueError(
        f"{folder} is in none of the layouts of boxes: expected Annotations + JPEGImages (Pascal VOC), "
        f"annotations/instances_*.json (COCO), or images beside labels: {LAYOUTS}"
    )


def parse_box_spec(spec: str) -> tuple[str, str]:
    """The scheme of a source and what follows; raises ValueError where it is no form of a source.

    >>> parse_box_spec("digits")
    Traceback (most recent call last):
    ValueError: unknown source of boxes digits: did you mean digit_scenes?
    """
    scheme, _, where = spec.partition(":")
    if scheme not in BOX_FORMS:
        near = difflib.get_close_matches(scheme, BOX_FORMS, n=1)
        forms = BOX_FORMS[near[0]] if near else ", ".join(BOX_FORMS.values())
        hint = f"did you mean {forms}?" if near else f"choose one of {forms}"
        raise ValueError(f"unknown source of boxes {spec}: {hint}")
    if bool(where) != (scheme != "digit_scenes"):
        raise ValueError(f"source {spec}: expected the form {BOX_FORMS[scheme]}")
    return scheme, where


def check_box_options(
    canvases: Sequence[Canvas], objects: int | None, channels: int, *, spec: str
) -> None:
    """Raises ValueError in one line for knobs that cannot be."""
    for canvas in canvases:
        if len(canvas.size) != 2 or min(canvas.size) < 1:
            raise ValueError(f"{spec}: a canvas has a positive height and width, got {canvas.size}")
    if objects is not None and objects < 1:
        raise ValueError(
            f"{spec}: objects is the number of rows of boxes, 1 or more, got {objects}"
        )
    if channels not in (1, 3):
        raise ValueError(f"{spec}: images have 1 or 3 channels, got {channels}")
