"""The images with boxes that a recipe's `source` names."""

import difflib
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from train.data.detection.annotations import Found, mended
from train.data.detection.coco import find_coco_boxes
from train.data.detection.sources import Boxes, Files, Scenes, check_fits
from train.data.detection.tfds import find_tfds_boxes
from train.data.detection.voc import find_voc_boxes
from train.data.detection.yolo import LAYOUTS, find_yolo_boxes, parts_of
from train.data.segmentation.masked_images import keep
from train.data.source import Source
from train.data.splits import cut
from train.data.synthetic.digit_scenes import CLASSES, MOST, open_digit_scenes
from zoo.canvas import Canvas

FORMS = {
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
    parts: float | str | None = None,
    seed: int = 0,
) -> dict[str, Source]:
    """ "digit_scenes", "folder:PATH" or "tfds:NAME" -> {"train", "val", "test"} as far as there are.

    `box_sources.entries` tells what an example holds. Labels are 0 to K - 1 of the source's
    `classes`, which are those of the set unless they are said. `objects` is the number of rows of
    boxes, None for the most that any image has; of more the largest stay. A line in the log counts,
    for each part, what was wrong: `mended`.

    `training` canvases, if there are, stand for `canvas` in the batches of "train", each of which
    has one: of those that lie as its pictures do, wide or upright, drawn by seed and batch. Else
    what has been decoded stays in memory up to `pairs.KEPT` bytes.

    A folder is told by its layout: Pascal VOC's (`find_voc_boxes`), COCO's (`find_coco_boxes`) or
    images/ beside labels/ (`find_yolo_boxes`). `parts` cuts "train" as in `open_masks`; without it
    a fifth becomes "val" where "train" is all there is.

    Raises FileNotFoundError or ValueError in one line that names the file.

    >>> scenes = open_boxes("digit_scenes", canvas=Canvas((128, 128)), channels=1)
    >>> example = scenes["val"][0]
    >>> example["image"].shape, example["boxes"].shape, scenes["val"].classes[:2]
    ((128, 128, 1), (8, 4), ('0', '1'))
    """
    scheme, where = form_of(spec)
    check((canvas, *training), objects, channels, spec=spec)
    canvases: dict[str, Any] = {"canvas": canvas, "training": tuple(training)}
    if scheme == "digit_scenes":
        if classes is not None and tuple(classes) != CLASSES[1:]:
            raise ValueError(f"{spec} knows its classes itself: leave classes out")
        sources = scene_boxes(channels, seed, objects=objects, **canvases)
    elif scheme == "folder":
        found = find_folder(pathlib.Path(os.path.expanduser(where)), classes)
        sources = file_boxes(found, spec, objects=objects, channels=channels, **canvases)
    else:
        found = find_tfds_boxes(where.replace(":", "/"), classes)
        sources = file_boxes(found, spec, objects=objects, channels=channels, **canvases)
    if "train" not in sources:
        raise ValueError(f"{spec} has {' and '.join(sources)} but nothing to train on")
    several = ("train",) if training else ()
    whole = cut(sources, parts, seed=seed, spec=spec)
    kept = keep({part: source for part, source in whole.items() if part not in several})
    return {part: kept.get(part, source) for part, source in whole.items()}


def scene_boxes(
    channels: int,
    seed: int,
    *,
    objects: int | None,
    canvas: Canvas,
    training: tuple[Canvas, ...],
) -> dict[str, Boxes]:
    """The digits of scenes that are drawn at the size of `canvas`."""
    sources = {}
    for part, scenes in open_digit_scenes(size=(*canvas.size, channels), seed=seed).items():
        sizes = [canvas.size] * len(scenes)
        common = (scenes.name, CLASSES[1:], canvas._replace(fit="stretch"), objects or MOST)
        sources[part] = Boxes(Scenes(scenes), sizes, *common, training if part == "train" else ())
    return sources


def file_boxes(
    found: Found,
    spec: str,
    *,
    objects: int | None,
    channels: int,
    canvas: Canvas,
    training: tuple[Canvas, ...],
) -> dict[str, Boxes]:
    """What was found in files, with boxes that are sound, on canvases on which it fits."""
    records = {
        part: mended(of_part, objects=objects, told=found.told.get(part, ()), part=f"{spec} {part}")
        for part, of_part in found.records.items()
    }
    for part, of_part in records.items():
        check_fits(of_part, canvas, training if part == "train" else ())
    counts = [len(record.labels) for of_part in records.values() for record in of_part]
    common = (found.name, found.classes, canvas, objects or max(1, *counts))
    return {
        part: Boxes(
            Files(of_part, channels, found.images.get(part)),
            [record.size for record in of_part],
            *common,
            training if part == "train" else (),
        )
        for part, of_part in records.items()
    }


def find_folder(folder: pathlib.Path, classes: Sequence[str] | None) -> Found:
    """What a folder in one of three layouts holds; FileNotFoundError or ValueError for none."""
    if not folder.is_dir():
        raise FileNotFoundError(f"folder: there is no folder {folder}")
    if any(folder.glob("annotations/instances_*.json")):
        return find_coco_boxes(folder, classes)
    if (folder / "Annotations").is_dir() and (folder / "JPEGImages").is_dir():
        return find_voc_boxes(folder, classes)
    if any(parts_of(folder)):
        return find_yolo_boxes(folder, classes)
    raise ValueError(
        f"{folder} is in none of the layouts of boxes: expected Annotations + JPEGImages (Pascal VOC), "
        f"annotations/instances_*.json (COCO), or images beside labels: {LAYOUTS}"
    )


def form_of(spec: str) -> tuple[str, str]:
    """The scheme of a source and what follows; raises ValueError where it is no form of a source.

    >>> form_of("digits")
    Traceback (most recent call last):
    ValueError: unknown source of boxes digits: did you mean digit_scenes?
    """
    scheme, _, where = spec.partition(":")
    if scheme not in FORMS:
        near = difflib.get_close_matches(scheme, FORMS, n=1)
        forms = FORMS[near[0]] if near else ", ".join(FORMS.values())
        hint = f"did you mean {forms}?" if near else f"choose one of {forms}"
        raise ValueError(f"unknown source of boxes {spec}: {hint}")
    if bool(where) != (scheme != "digit_scenes"):
        raise ValueError(f"source {spec}: expected the form {FORMS[scheme]}")
    return scheme, where


def check(canvases: Sequence[Canvas], objects: int | None, channels: int, *, spec: str) -> None:
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
