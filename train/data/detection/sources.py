"""Sources of pictures with boxes on canvases: of one in evaluation, of several in training."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from train.data.detection.annotations import Annotation
from train.data.permutation import uniform_draws
from train.data.segmentation.mask_files import read_image
from train.data.source import Source
from zoo.canvas import Canvas, fit_size, letterbox
from zoo.media.image_io import convert_mode

CANVAS_SIZES = 2  # ends the key of a batch's canvas, so that it is never that of an order or a crop

Size = tuple[int, int]  # height, width


@dataclasses.dataclass(frozen=True, eq=False)
class BoxSource:
    """Pictures with boxes: `read(i)` -> pixels [h, w, C] uint8, objects; laid on `canvas`.

    `to_example` tells what an example holds. `sizes` [N] are those of the pictures. Where there are
    `training` canvases, each batch of `train_batches` has one of them: of those that lie as its
    pictures do, drawn by seed and batch. See `canvas_for_orientation`.
    """

    read: Callable[[int], tuple[np.ndarray, Annotation]]
    sizes: Sequence[Size]
    name: str
    classes: tuple[str, ...]
    canvas: Canvas
    objects: int
    training: tuple[Canvas, ...] = ()

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, i: int, /) -> dict[str, np.ndarray]:
        pixels, record = self.read(i)
        return to_example(pixels, record, canvas=self.canvas, objects=self.objects)

    @functools.cached_property
    def groups(self) -> np.ndarray | None:
        """[N] 1 for upright pictures, where these have canvases of their own; None without canvases."""
        if not self.training:
            return None
        apart = canvas_for_orientation(self.training, upright=True) != canvas_for_orientation(
            self.training, upright=False
        )
        return np.array([apart and height > width for height, width in self.sizes], np.int32)

    def of_batch(self, group: int, *, batch: int, seed: int) -> "BoxSource":
        """The same pictures on the canvas of that batch, all of whose pictures are of the group."""
        canvases = canvas_for_orientation(self.training, upright=bool(group))
        drawn = canvases[int(uniform_draws(1, seed, batch, CANVAS_SIZES)[0] * len(canvases))]
        return dataclasses.replace(self, canvas=drawn, training=())


@dataclasses.dataclass(frozen=True, eq=False)
class BoxFiles:
    """Reads picture i of `records`, from `images[i]` where these are not files of those names."""

    records: Sequence[Annotation]
    channels: int
    images: Any = None

    def __call__(self, i: int) -> tuple[np.ndarray, Annotation]:
        record = self.records[i]
        file = record.image if self.images is None else self.images[i]
        image = read_image(file, of=record.size, name=record.image)
        if (image.height, image.width) != record.size:
            raise ValueError(
                f"{record.image} has {image.width} x {image.height} pixels, its annotation says "
                f"{record.size[1]} x {record.size[0]}"
            )
        pixels = np.asarray(convert_mode(image, "L" if self.channels == 1 else "RGB"))
        return pixels.reshape(*record.size, self.channels), record


@dataclasses.dataclass(frozen=True, eq=False)
class BoxScenes:
    """Reads scene i of digits, whose labels become 0 to 9."""

    scenes: Source

    def __call__(self, i: int) -> tuple[np.ndarray, Annotation]:
        scene = self.scenes[i]
        there = np.flatnonzero(scene["box_valid"])
        size = scene["image"].shape[:2]
        objects = scene["boxes"][there], scene["labels"][there] - 1, np.zeros(len(there), bool)
        return scene["image"], Annotation("", size, *objects)


def to_example(
    image: np.ndarray, record: Annotation, *, canvas: Canvas, objects: int
) -> dict[str, np.ndarray]:
    """A picture [h, w, C] and its objects -> what an example of a detection source holds.

    "image" [H, W, C] uint8, the canvas with the picture in its upper left corner; "boxes" [N, 4]
    float32 (x0, y0, x1, y1) in its pixels, "labels" [N] int32, "box_valid" [N] bool, "crowd" [N]
    bool (COCO's iscrowd, VOC's difficult); "size" [2] int32, height and width of the picture on
    the canvas, and "scale" [2] float32, pixels of the canvas per pixel of the file along y and x;
    where the files tell it "area" [N] float32, of what is within the box, in pixels of the file.
    """
    pixels, boxes, size, scale = letterbox(image, canvas, record.boxes)
    count = len(record.labels)
    rows = (0, objects - count)
    area = {} if record.area is None else {"area": np.pad(record.area, rows)}
    return {
        "image": pixels,
        "boxes": np.pad(np.asarray(boxes), (rows, (0, 0))),
        "labels": np.pad(record.labels.astype(np.int32), rows),
        "box_valid": np.arange(objects) < count,
        "crowd": np.pad(record.crowd, rows),
        "size": size,
        "scale": scale,
        **area,
    }


def canvas_for_orientation(canvases: Sequence[Canvas], *, upright: bool) -> list[Canvas]:
    """The canvases that lie as a picture does, upright or not; all where none does. Squares do both.

    >>> wide, tall = Canvas((32, 64)), Canvas((64, 32))
    >>> canvas_for_orientation([wide, tall], upright=True) == [tall], canvas_for_orientation([wide], upright=True) == [wide]
    (True, True)
    """
    own = [c for c in canvases if (c.size[0] >= c.size[1] if upright else c.size[1] >= c.size[0])]
    return own or list(canvases)


def check_canvas_fits(
    records: Sequence[Annotation], canvas: Canvas, training: Sequence[Canvas]
) -> None:
    """Raises ValueError, with the name of the file, where a picture does not fit on its canvases."""
    first = {record.size: record.image for record in reversed(records)}
    for size, image in first.items():
        for one in (canvas, *canvas_for_orientation(training, upright=size[0] > size[1])):
            try:
                fit_size(size, one)
            except ValueError as error:
                raise ValueError(f"{image}: {error}") from error
