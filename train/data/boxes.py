"""The images with boxes that a recipe's `source` names."""

import dataclasses
import difflib
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from train.data.arrays import Source
from train.data.box_files import Annotated, mended
from train.data.digit_scenes import CLASSES, MOST, open_digit_scenes
from train.data.mask_files import read_image
from train.data.pairs import Kept, keep
from train.data.parts import cut
from train.data.voc_boxes import find_voc_boxes
from zoo.canvas import Canvas, place
from zoo.pictures import flat

FORMS = {"digit_scenes": "digit_scenes", "folder": "folder:PATH"}


@dataclasses.dataclass(frozen=True, eq=False)
class Boxes:
    """Images with boxes on a `canvas`, as `entries` tells; the image has 1 or 3 `channels`."""

    records: Sequence[Annotated]
    name: str
    classes: tuple[str, ...]
    canvas: Canvas
    objects: int
    channels: int = 3

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int, /) -> dict[str, np.ndarray]:
        record = self.records[i]
        image = read_image(record.image, of=record.size, name=record.image, mask="its annotation")
        pixels = np.asarray(flat(image, "L" if self.channels == 1 else "RGB"))
        pixels = pixels.reshape(*record.size, self.channels)
        try:
            return entries(pixels, record, canvas=self.canvas, objects=self.objects)
        except ValueError as error:
            raise ValueError(f"{record.image}: {error}") from error


@dataclasses.dataclass(frozen=True, eq=False)
class SceneBoxes:
    """The digits of `scenes`, which are drawn at the size of the `canvas`, as 0 to 9."""

    scenes: Source
    canvas: Canvas
    objects: int
    classes: tuple[str, ...] = CLASSES[1:]

    @property
    def name(self) -> str:
        return self.scenes.name

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, i: int, /) -> dict[str, np.ndarray]:
        scene = self.scenes[i]
        there = np.flatnonzero(scene["box_valid"])
        record = Annotated(
            "",
            scene["image"].shape[:2],
            scene["boxes"][there],
            scene["labels"][there] - 1,
            there < 0,
        )
        return entries(scene["image"], record, canvas=self.canvas, objects=self.objects)


def entries(
    image: np.ndarray, record: Annotated, *, canvas: Canvas, objects: int
) -> dict[str, np.ndarray]:
    """A picture [h, w, C] and its objects -> what an example of a detection source holds.

    "image" [H, W, C] uint8, the canvas with the picture in its upper left corner; "boxes" [N, 4]
    float32 (x0, y0, x1, y1) in its pixels, "labels" [N] int32, "box_valid" [N] bool, "crowd" [N]
    bool (COCO's iscrowd, VOC's difficult); "size" [2] int32, height and width of the picture on
    the canvas, and "scale" [2] float32, pixels of the canvas per pixel of the file along y and x.
    """
    pixels, boxes, size, scale = place(image, canvas, record.boxes)
    count = len(record.labels)
    rows = (0, objects - count)
    return {
        "image": pixels,
        "boxes": np.pad(np.asarray(boxes), (rows, (0, 0))),
        "labels": np.pad(record.labels.astype(np.int32), rows),
        "box_valid": np.arange(objects) < count,
        "crowd": np.pad(record.crowd, rows),
        "size": size,
        "scale": scale,
    }


def open_boxes(
    spec: str,
    *,
    canvas: Canvas,
    objects: int | None = None,
    classes: Sequence[str] | None = None,
    channels: int = 3,
    parts: float | str | None = None,
    seed: int = 0,
) -> dict[str, Kept]:
    """ "digit_scenes" or "folder:PATH" -> {"train", "val", "test"} as far as there are.

    `entries` tells what an example holds. Labels are 0 to K - 1 of the source's `classes`, which
    are those of the set unless they are said. `objects` is the number of rows of boxes, None for
    the most that any image has; of more the largest stay. A line in the log counts, for each part,
    what was wrong: `mended`. What has been decoded stays in memory up to `pairs.KEPT` bytes.

    A folder is told by its layout: Pascal VOC's with XML files (`find_voc_boxes`). `parts` cuts
    "train" as in `open_masks`; without it a fifth becomes "val" where "train" is all there is.

    Raises FileNotFoundError or ValueError in one line that names the file.

    >>> scenes = open_boxes("digit_scenes", canvas=Canvas((128, 128)), channels=1)
    >>> example = scenes["val"][0]
    >>> example["image"].shape, example["boxes"].shape, scenes["val"].classes[:2]
    ((128, 128, 1), (8, 4), ('0', '1'))
    """
    scheme, where = form_of(spec)
    check(canvas, objects, channels, spec=spec)
    if scheme == "digit_scenes":
        if classes is not None and tuple(classes) != CLASSES[1:]:
            raise ValueError(f"{spec} knows its classes itself: leave classes out")
        scenes = open_digit_scenes(size=(*canvas.size, channels), seed=seed)
        canvas = canvas._replace(fit="stretch")
        sources: dict[str, Any] = {
            part: SceneBoxes(of_part, canvas, objects or MOST) for part, of_part in scenes.items()
        }
    else:
        records, classes = find_voc_boxes(pathlib.Path(os.path.expanduser(where)), classes)
        records = {
            part: mended(of_part, objects=objects, part=f"{spec} {part}")
            for part, of_part in records.items()
        }
        most = max(len(record.labels) for of_part in records.values() for record in of_part)
        sources = {
            part: Boxes(of_part, where, classes, canvas, objects or max(1, most), channels)
            for part, of_part in records.items()
        }
    return keep(cut(sources, parts, seed=seed, spec=spec))


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


def check(canvas: Canvas, objects: int | None, channels: int, *, spec: str) -> None:
    """Raises ValueError in one line for knobs that cannot be."""
    if min(canvas.size) < 1:
        raise ValueError(f"{spec}: a canvas has a positive height and width, got {canvas.size}")
    if objects is not None and objects < 1:
        raise ValueError(
            f"{spec}: objects is the number of rows of boxes, 1 or more, got {objects}"
        )
    if channels not in (1, 3):
        raise ValueError(f"{spec}: images have 1 or 3 channels, got {channels}")
