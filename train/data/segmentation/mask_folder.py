"""Folders of images beside folders of masks, and what their masks hold."""

import os
import pathlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from train.data.classification.folder import SPLITS, format_names
from train.data.image_files import IMAGE_FORMATS, IMAGE_SUFFIXES, Size
from train.data.segmentation.mask_files import MASK_ENDINGS, MASK_FORMATS, check_same_size
from zoo.errors import one_line

IMAGE_FOLDERS = ("images", "image", "imgs", "img")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations")
MASK_NAME_SUFFIXES = ("", "_mask", "_label")  # of a mask's name, after its image's
LAYOUTS = (
    "PATH/train + PATH/trainannot, PATH/images/train + PATH/masks/train, "
    "PATH/train/images + PATH/train/masks, or PATH/images + PATH/masks"
)

Record = tuple[str, str, str | None]  # image, mask, instances


def find_parts(folder: pathlib.Path) -> dict[str, list[Record]]:
    """The folder's parts in one of the layouts -> {"train": [(image, mask, None), ...], ...}.

    Raises FileNotFoundError for a missing folder, ValueError for one in none of the layouts and
    for an image or a mask without the other.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"folder: there is no folder {folder}")
    for layout in (split_annot_layout, kind_over_split_layout, split_over_kind_layout, flat_layout):
        found = dict(layout(folder))
        if found:
            return {part: pair_by_stem(*folders) for part, folders in found.items()}
    raise ValueError(f"{folder} has no images beside masks: expected {LAYOUTS}")


SplitRecords = Iterator[tuple[str, tuple[pathlib.Path, pathlib.Path]]]


def split_annot_layout(folder: pathlib.Path) -> SplitRecords:
    for part in SPLITS:
        images, masks = folder / part, folder / f"{part}annot"
        if images.is_dir() and masks.is_dir():
            yield part, (images, masks)


def kind_over_split_layout(folder: pathlib.Path) -> SplitRecords:
    kinds = first_existing(folder, IMAGE_FOLDERS), first_existing(folder, MASK_FOLDERS)
    for part in SPLITS:
        images, masks = kinds[0] / part, kinds[1] / part
        if images.is_dir() and masks.is_dir():
            yield part, (images, masks)


def split_over_kind_layout(folder: pathlib.Path) -> SplitRecords:
    for part in SPLITS:
        yield from ((part, folders) for _, folders in flat_layout(folder / part))


def flat_layout(folder: pathlib.Path) -> SplitRecords:
    images, masks = first_existing(folder, IMAGE_FOLDERS), first_existing(folder, MASK_FOLDERS)
    if images.is_dir() and masks.is_dir():
        yield "train", (images, masks)


def first_existing(folder: pathlib.Path, names: tuple[str, ...]) -> pathlib.Path:
    """The first of the names that is there, else the first."""
    return next((folder / name for name in names if (folder / name).is_dir()), folder / names[0])


def pair_by_stem(images: pathlib.Path, masks: pathlib.Path) -> list[Record]:
    """The files of two folders, paired by name without ending, numbers in them in order."""
    image_of, mask_of = files_by_stem(images, IMAGE_SUFFIXES), files_by_stem(masks, MASK_ENDINGS)
    pairs, lonely = [], []
    for stem in sorted(image_of, key=natural_key):
        mask = next((m for s in MASK_NAME_SUFFIXES if (m := mask_of.pop(stem + s, None))), None)
        if mask is None:
            lonely.append(image_of[stem])
        else:
            pairs.append((image_of[stem], mask, None))
    if lonely:
        raise ValueError(
            f"{lonely[0]} has no mask of its name in {masks}{ignored_files(lonely)} "
            f"(looked for {', '.join(MASK_ENDINGS)}: JPEG does not keep a mask's values)"
        )
    if left := sorted(mask_of.values()):
        raise ValueError(
            f"{left[0]} is a mask without an image of its name in {images}{ignored_files(left)} "
            f"(looked for {', '.join(IMAGE_SUFFIXES)})"
        )
    if not pairs:
        raise ValueError(f"{images} has no images ({', '.join(IMAGE_SUFFIXES)})")
    return pairs


def ignored_files(files: list[str]) -> str:
    return f", nor have {format_names(files[1:])}" if len(files) > 1 else ""


def files_by_stem(folder: pathlib.Path, endings: tuple[str, ...]) -> dict[str, str]:
    """{name without ending: file} of a folder's files with one of the endings."""
    found: dict[str, str] = {}
    for entry in sorted(os.listdir(folder)):
        stem, ending = os.path.splitext(entry)
        if ending.lower() in endings and not entry.startswith("."):
            if stem in found:
                raise ValueError(f"{folder / entry} and {found[stem]} have the same name: keep one")
            found[stem] = str(folder / entry)
    return found


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts numbers within names by value.

    >>> sorted(["10", "9", "a2", "a10"], key=natural_key)
    ['9', '10', 'a2', 'a10']
    """
    parts = [part for part in re.split(r"(\d+)", name) if part]
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def check_headers(records: list[Record]) -> list[Size]:
    """(h, w, channels) of each pair by its headers; raises ValueError where the two differ in size.

    Decodes nothing: what is wrong inside of a file is told when it is read.
    """
    # Threads, because on a network's disk every first look at a file waits.
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(read_headers, records))


def read_headers(record: Record) -> Size:
    image, mask, _ = record
    size, mode = read_header(image, tuple(IMAGE_FORMATS), "an image")
    of_mask, _ = read_header(mask, tuple(MASK_FORMATS), "a mask")
    # A photograph on its side in the file, its mask upright: reading turns it as its EXIF says.
    if size != of_mask[::-1]:
        check_same_size(size, of_mask, name=image, mask=mask)
    return (*of_mask, 1 if mode in ("1", "L", "LA") or mode.startswith("I") else 3)


def read_header(file: str, formats: tuple[str, ...], what: str) -> tuple[tuple[int, ...], str]:
    """((h, w), mode) of a file by its header."""
    try:
        with Image.open(file, formats=formats) as opened:
            return opened.size[::-1], opened.mode
    except Exception as error:
        reason = one_line(error)
        raise ValueError(f"{file} is unreadable as {what} ({reason})") from error


def common_size(sizes: list[Size]) -> Size | None:
    """The size (H, W, C) where all have one height and width, C the largest; else None.

    >>> common_size([(4, 6, 1), (4, 6, 3)]), common_size([(4, 6, 1), (6, 4, 1)])
    ((4, 6, 3), None)
    """
    equal = len({size[:2] for size in sizes}) == 1
    return (*sizes[0][:2], max(size[2] for size in sizes)) if equal else None
