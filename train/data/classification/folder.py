"""An own folder of class folders, as a source."""

import dataclasses
import logging
import os
import pathlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import numpy as np

from train.data.image_files import (
    CROP_STREAM,
    IMAGE_SUFFIXES,
    Crop,
    Size,
    check_size,
    has_image_header,
    read_image,
)
from train.data.permutation import stratified_split

VALIDATION_FRACTION = (
    0.2  # of the training images, for validation, where the folder has neither val nor test
)
SPLITS = ("train", "val", "test")

logger = logging.getLogger("train")


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFolder:
    """Image files [N] and labels [N] int32, decoded when they are read to `size` = (H, W, C).

    In training a `crop` draws a part of them, afresh for each number in the run.
    A file that turns out broken is replaced by the next readable one of its class, always the
    same, told once in the log and counted in `unreadable` {file: reason}.
    """

    files: tuple[str, ...]
    labels: np.ndarray
    name: str
    classes: tuple[str, ...]
    size: Size
    crop: Crop | None = None
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int, /) -> dict[str, np.ndarray]:
        return self.read(i, crop=None)

    def draw(self, i: int, *, number: int, seed: int) -> dict[str, np.ndarray]:
        return self.read(i, crop=self.crop, key=(seed, number, CROP_STREAM))

    def read(self, i: int, **part: Any) -> dict[str, np.ndarray]:
        """Example i, or its stand-in; `part`: what `read_image` takes besides file and size."""
        for stand_in in self.same_class(i):
            file = self.files[stand_in]
            if file in self.unreadable:
                continue
            try:
                image = read_image(file, size=self.size, **part)
                return {"image": image, "label": self.labels[i]}
            except ValueError as error:
                reason = str(error)
            if self.unreadable.setdefault(file, reason) is reason:  # no other thread was first
                logger.warning(
                    "%s is unreadable (%s): the next of its class stands in for it (%d such so far)",
                    *(file, reason, len(self.unreadable)),
                )
        raise ValueError(f"{self.name}: class {self.classes[self.labels[i]]} has no readable image")

    def same_class(self, i: int) -> Iterator[int]:
        """i, and after it the others of its class, in turn."""
        yield i
        same = np.flatnonzero(self.labels == self.labels[i])
        yield from np.roll(same, -1 - int(np.searchsorted(same, i % len(self)))).tolist()

    def select(self, indices: np.ndarray) -> "ImageFolder":
        """The part at `indices` [N], whose stand-ins come from that part alone."""
        files = tuple(self.files[i] for i in indices)
        return dataclasses.replace(self, files=files, labels=self.labels[indices])


def open_folder(
    path: str | pathlib.Path, *, size: Size | None, seed: int, crop: Crop | None = None
) -> dict[str, ImageFolder]:
    """PATH/CLASS/IMAGE, or PATH/train/CLASS/IMAGE with val, test or both beside train.

    Where there is neither val nor test, a fifth of the images, stratified and drawn by `seed`,
    become "val", and the log says so. Class names are the folders', sorted; what begins with a
    dot is passed over. Files that are no images by their first bytes are left out and named in
    the log; those that fail to decode later have a stand-in (`ImageFolder`).

    Raises FileNotFoundError for a missing folder, ValueError for an empty one, for a class folder
    without images, for fewer than two classes and for parts that differ in their classes.

    >>> open_folder("nowhere", size=(8, 8, 3), seed=0)
    Traceback (most recent call last):
    FileNotFoundError: folder: there is no folder nowhere
    """
    folder = pathlib.Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"folder: there is no folder {folder}")
    size = check_size(size, source=f"folder:{path}")
    parts = {split: folder / split for split in SPLITS if list_subfolders(folder / split)}
    if not parts:
        parts = {"train": folder}
    if "train" not in parts:
        raise ValueError(
            f"{folder} has {' and '.join(parts)} but no train folder with class folders"
        )
    sources = {split: open_split(part, folder, size) for split, part in parts.items()}
    sources["train"] = dataclasses.replace(sources["train"], crop=crop)
    for split, source in sources.items():
        check_same_classes(source.classes, sources["train"].classes, part=parts[split])
    if len(sources) > 1:
        return sources
    whole = sources["train"]
    rest, out = stratified_split(
        whole.labels, max(1, round(VALIDATION_FRACTION * len(whole))), seed=seed
    )
    logger.info(
        "%s has no val or test folder: split by class and seed %d into %d training and %d "
        "validation images",
        *(folder, seed, len(rest), len(out)),
    )
    val = dataclasses.replace(whole.select(out), crop=None)
    return {"train": whole.select(rest), "val": val}


def check_same_classes(
    classes: tuple[str, ...], expected: tuple[str, ...], *, part: pathlib.Path
) -> None:
    """Raises ValueError that says what the classes of `part` lack and have besides."""
    if classes != expected:
        raise ValueError(
            f"{part}: its class folders are not those of train: it lacks "
            f"{format_names(set(expected) - set(classes))} and has {format_names(set(classes) - set(expected))} "
            "besides"
        )


def open_split(part: pathlib.Path, folder: pathlib.Path, size: Size) -> ImageFolder:
    """The class folders of one part, PATH itself or PATH/train and so on."""
    classes = list_subfolders(part)
    if not classes:
        loose = sum(file.suffix.lower() in IMAGE_SUFFIXES for file in part.iterdir())
        raise ValueError(
            f"{part} has no class folders (PATH/CLASS/IMAGE), and {loose} loose images"
        )
    if len(classes) == 1:
        raise ValueError(f"{part} has one class folder, {classes[0].name}: two or more are needed")
    # Threads, because on a network's disk every first look at a file waits.
    with ThreadPoolExecutor(16) as pool:
        files = list(pool.map(list_images, classes))
    readable, unreadable = zip(*files, strict=True)
    for name, good, bad in zip(classes, readable, unreadable, strict=True):
        if not good:
            unless = f", but {len(bad)} unreadable ones: {format_names(bad)}" if bad else ""
            raise ValueError(
                f"class folder {name} has no images ({', '.join(IMAGE_SUFFIXES)}){unless}"
            )
    bad = list(chain.from_iterable(unreadable))
    if bad:
        logger.warning(
            "%s: left out %d files that are no images: %s", part, len(bad), format_names(bad)
        )
    return ImageFolder(
        files=tuple(chain.from_iterable(readable)),
        labels=np.repeat(np.arange(len(classes), dtype=np.int32), [len(f) for f in readable]),
        name=folder.resolve().name,
        classes=tuple(name.name for name in classes),
        size=size,
    )


def list_subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
    """Its folders, sorted by name, less those that begin with a dot; none where it is no folder."""
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def list_images(folder: pathlib.Path) -> tuple[list[str], list[str]]:
    """Files with an image's ending at any depth, sorted: (those that look readable, the others)."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            os.path.join(place, name)
            for name in files
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        ]
    readable, unreadable = [], []
    for file in sorted(found):
        (readable if has_image_header(file) else unreadable).append(file)
    return readable, unreadable


def format_names(names: set[str] | list[str]) -> str:
    """At most ten names in one line, sorted.

    >>> format_names({"b", "a"}), format_names([])
    ('a, b', 'nothing')
    """
    shown = ", ".join(sorted(names)[:10])
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{shown}{more}" or "nothing"
