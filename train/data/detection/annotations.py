"""What annotation files say of an image -> boxes that are sound, counted where they were not."""

import collections
import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image

from train.data.image_files import EXIF_ORIENTATION, IMAGE_FORMATS
from zoo.errors import one_line

logger = logging.getLogger("train")

File = str | os.PathLike | IO[bytes]


class Annotation(NamedTuple):
    """An image and its objects, as the files have them.

    `size` are height and width of the image; `boxes` [n, 4] its pixels (x0, y0, x1, y1), counted
    from 0, x1 and y1 past the last; `labels` [n] classes; `crowd` [n] tells what is neither learnt
    nor counted; `area` [n] in pixels, where the files tell it: COCO's, of what is within the box.
    """

    image: str
    size: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    area: np.ndarray | None = None


class AnnotatedImages(NamedTuple):
    """What a folder or a set holds: the parts' records, the names of the classes, its own name.

    `images` are the parts' files, where they are not those that the records name; `log` are words
    on a part for the log.
    """

    records: dict[str, list[Annotation]]
    classes: tuple[str, ...]
    name: str
    images: Mapping[str, Any] = {}
    log: Mapping[str, Sequence[str]] = {}


def annotate(
    image: str, size: tuple[int, int], objects: Sequence[tuple[Sequence[float], int, bool]]
) -> Annotation:
    """The image and its objects, (box, label, crowd) each."""
    return Annotation(
        image,
        size,
        np.array([box for box, _, _ in objects], np.float32).reshape(-1, 4),
        np.array([label for _, label, _ in objects], np.int32),
        np.array([crowd for _, _, crowd in objects], bool),
    )


def clean_boxes(
    records: Sequence[Annotation],
    *,
    objects: int | None = None,
    log: Sequence[str] = (),
    split: str,
) -> list[Annotation]:
    """Records with sound boxes alone, and a line in the log that counts what was done to them.

    Boxes of no width or height, and those outside of the image, are dropped; the others are cut at
    the image's border. Of more than `objects` in an image the largest stay, crowds going first.
    `split` and what has been `log` begin the line.
    """
    counts: collections.Counter[str] = collections.Counter()
    found, crowds, bare = [], 0, 0
    for record in records:
        boxes = record.boxes
        sized = (boxes[:, 2:] > boxes[:, :2]).all(1)
        boxes = boxes.clip(0, np.array([*record.size[::-1], *record.size[::-1]], np.float32))
        inside = (boxes[:, 2:] > boxes[:, :2]).all(1)
        cut = (boxes != record.boxes).any(1) & inside & sized
        keep = np.flatnonzero(sized & inside)
        counts["of no size dropped"] += int((~sized).sum())
        counts["outside of their image dropped"] += int((sized & ~inside).sum())
        counts["cut at the border"] += int(cut.sum())
        if objects is not None and len(keep) > objects:
            counts[f"dropped as more than {objects} in an image"] += len(keep) - objects
            areas = (boxes[keep, 2:] - boxes[keep, :2]).prod(1)
            keep = np.sort(keep[np.lexsort([-areas, record.crowd[keep]])[:objects]])
        crowds += int(record.crowd[keep].sum())
        bare += not len(keep)
        kept = dict(boxes=boxes[keep], labels=record.labels[keep], crowd=record.crowd[keep])
        area = None if record.area is None else record.area[keep]
        found.append(record._replace(**kept, area=area))
    total = sum(len(record.labels) for record in found)
    words = [*log, f"{bare} without an object"] if bare else [*log]
    words += [f"{count} {what}" for what, count in counts.items() if count]
    logger.info(
        "%s: %d images, %d objects (%d difficult or crowds)%s",
        *(split, len(found), total, crowds),
        "".join(f"; {word}" for word in words),
    )
    return found


def read_image_sizes(images: Sequence[str]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Of each file (height, width) of its pixels as they are stored, and as they stand upright.

    By their headers: nothing is decoded. Raises ValueError in one line that begins with the file.
    """
    # Threads, because on a network's disk every first look at a file waits.
    with ThreadPoolExecutor(16) as pool:
        yield from pool.map(lambda image: read_image_size(image, name=image), images)


def read_image_size(image: str | bytes, *, name: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of an image file's pixels as they are stored, and as they stand upright."""
    try:
        file: Any = io.BytesIO(image) if isinstance(image, bytes) else image
        with Image.open(file, formats=list(IMAGE_FORMATS)) as opened:
            height, width = opened.height, opened.width
            turned = opened.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    except Exception as error:  # each of Pillow's decoders has its own: OSError, SyntaxError, ...
        reason = one_line(error)
        raise ValueError(f"{name} is unreadable as an image ({reason})") from error
    return (height, width), (width, height) if turned else (height, width)
