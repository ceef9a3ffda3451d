"""Where videos and their classes stand: folders of classes, UCF101's lists, csv files."""

import csv
import logging
import os
import pathlib
import re
from typing import NamedTuple

import numpy as np

from train.data.classification.folder import (
    SPLITS,
    check_same_classes,
    format_names,
    list_subfolders,
)
from zoo.media.video_io import is_video

logger = logging.getLogger("train")
CSV = {"train": ("train",), "val": ("val", "validate", "validation"), "test": ("test",)}


class VideoFiles(NamedTuple):
    """Files [N] of a part and their labels [N]."""

    files: list[str]
    labels: list[int]


Parts = tuple[dict[str, VideoFiles], tuple[str, ...]]  # and the classes


def find_video_folder(path: str) -> Parts:
    """PATH/CLASS/VIDEO, or PATH/train/CLASS/VIDEO with val, test or both beside train.

    Raises FileNotFoundError for a missing folder, ValueError for a class without videos, for fewer
    than two classes and for parts that differ in their classes.
    """
    folder = require_folder(path, "folder")
    parts = {split: folder / split for split in SPLITS if list_subfolders(folder / split)}
    parts = parts or {"train": folder}
    if "train" not in parts:
        raise ValueError(
            f"{folder} has {' and '.join(parts)} but no train folder with class folders"
        )
    names = tuple(place.name for place in list_subfolders(parts["train"]))
    if len(names) < 2:
        raise ValueError(
            f"{parts['train']} has {len(names)} class folders (PATH/CLASS/VIDEO): two or more are needed"
        )
    found = {}
    for split, place in parts.items():
        check_same_classes(tuple(p.name for p in list_subfolders(place)), names, part=place)
        of_classes = [list_videos(place / name) for name in names]
        for name, files in zip(names, of_classes, strict=True):
            if not files:
                raise ValueError(f"class folder {place / name} has no videos")
        labels = np.repeat(np.arange(len(names)), [len(files) for files in of_classes])
        found[split] = VideoFiles([file for files in of_classes for file in files], labels.tolist())
    return found, names


def find_ucf101_lists(path: str) -> Parts:
    """UCF101 and its official lists: PATH, or PATH:2 and PATH:3 for the other two splits.

    Below PATH classInd.txt, trainlist01.txt and testlist01.txt, in it or one folder deeper, and
    CLASS/VIDEO.avi, in it or in UCF-101.

    Raises FileNotFoundError for a missing folder, list or all videos, ValueError for lines of
    another form.

    Source: Soomro et al. 2012, UCF101, section 3; the lists of action recognition.
    """
    place, number = (path[:-2], path[-1]) if re.search(r":[123]$", path) else (path, "1")
    folder = require_folder(place, "ucf101")
    lists = next(
        (f.parent for f in [*folder.glob("classInd.txt"), *folder.glob("*/classInd.txt")]), None
    )
    if lists is None:
        raise FileNotFoundError(
            f"ucf101: {folder} has no classInd.txt, in it or one folder deeper; the lists of splits "
            "belong beside the videos"
        )
    known = {}
    for line in read_lines(lists / "classInd.txt"):
        index, _, name = line.partition(" ")
        if not index.isdigit() or not name:
            raise ValueError(
                f"{lists / 'classInd.txt'}: expected 'NUMBER CLASS'; got {line[:80]!r}"
            )
        known[name] = int(index)
    names = tuple(sorted(known, key=known.__getitem__))
    number_of = {name: k for k, name in enumerate(names)}
    root = next((f for f in (folder / "UCF-101", folder) if (f / names[0]).is_dir()), folder)
    found = {}
    for part in ("train", "test"):
        file = lists / f"{part}list0{number}.txt"
        rows = []
        for line in read_lines(file):
            name = line.split()[0]
            if name.split("/")[0] not in number_of:
                raise ValueError(f"{file}: {line[:80]!r} is of no class of classInd.txt")
            rows.append((str(root / name), number_of[name.split("/")[0]]))
        found[part] = existing_files(rows, file)
    return found, names


def find_csv_lists(path: str) -> Parts:
    """PATH/train.csv, and val.csv or validate.csv, and test.csv.

    Kinetics' own, with a header: label, youtube_id, time_start, time_end; the videos stand anywhere
    below PATH as ID_000010_000020.mp4, or ID.mp4. Or lines of 'FILE LABEL' or 'FILE,LABEL', FILE below
    PATH or whole, LABEL a name or a number from 0 (classes.txt may name them, one a line). Files that
    are not there, as videos vanish from the web, are counted and named in the log.

    Raises FileNotFoundError for a missing folder, list or all videos, ValueError for other lines.

    Source: Kay et al. 2017, Kinetics; PySlowFast's lists.
    """
    folder = require_folder(path, "csv")
    lists = {
        part: next((folder / f"{n}.csv" for n in names if (folder / f"{n}.csv").is_file()), None)
        for part, names in CSV.items()
    }
    if lists["train"] is None:
        raise FileNotFoundError(f"csv: {folder} has no train.csv")
    rows = {part: listed_videos(file, folder) for part, file in lists.items() if file is not None}
    rows = {part: of_part for part, of_part in rows.items() if of_part}
    labels = sorted({label for of_part in rows.values() for _, label in of_part})
    if all(label.isdigit() for label in labels):
        count = max(map(int, labels)) + 1
        named = folder / "classes.txt"
        names = tuple(read_lines(named)) if named.is_file() else tuple(map(str, range(count)))
        if len(names) < count:
            raise ValueError(
                f"{named} names {len(names)} classes; the lists have label {count - 1}"
            )
        number = {label: int(label) for label in labels}
    else:
        names = tuple(labels)
        number = {label: k for k, label in enumerate(labels)}
    return {
        part: existing_files([(file, number[label]) for file, label in of_part], lists[part])
        for part, of_part in rows.items()
    }, names


def listed_videos(file: pathlib.Path, folder: pathlib.Path) -> list[tuple[str, str]]:
    """The lines of a list -> (file, label); none where a list of Kinetics hides its labels."""
    content = read_lines(file)
    if "youtube_id" in content[0]:
        rows = list(csv.DictReader(content))
        if not rows or "label" not in rows[0]:
            return []
        by_stem = {pathlib.Path(name).stem: name for name in list_videos(folder)}
        found = []
        for row in rows:
            name = row["youtube_id"]
            try:
                start, end = (int(float(row[key])) for key in ("time_start", "time_end"))
            except (KeyError, TypeError, ValueError):
                raise ValueError(f"{file}: {name} has no time_start and time_end") from None
            stem = f"{name}_{start:06d}_{end:06d}"
            missing = str(folder / f"{stem}.mp4")
            found.append((by_stem.get(stem, by_stem.get(name, missing)), row["label"]))
        return found
    found = []
    for line in content:
        name, _, label = line.rpartition("," if "," in line else " ")
        if not name or not label.strip():
            raise ValueError(f"{file}: expected 'FILE LABEL' or 'FILE,LABEL'; got {line[:80]!r}")
        found.append((str(folder / name.strip()), label.strip()))
    return found


def existing_files(rows: list[tuple[str, int]], file: pathlib.Path | None) -> VideoFiles:
    """The rows whose file there is; the others are counted and named in the log."""
    kept = [row for row in rows if os.path.isfile(row[0])]
    gone = [name for name, _ in rows if not os.path.isfile(name)]
    if not kept:
        raise FileNotFoundError(f"{file}: none of its {len(rows)} videos is there, as {rows[0][0]}")
    if gone:
        logger.warning(
            "%s: %d of its %d videos are not there: %s",
            file,
            len(gone),
            len(rows),
            format_names(gone),
        )
    return VideoFiles([name for name, _ in kept], [label for _, label in kept])


def require_folder(path: str, scheme: str) -> pathlib.Path:
    folder = pathlib.Path(os.path.expanduser(path))
    if not folder.is_dir():
        raise FileNotFoundError(f"{scheme}: there is no folder {folder}")
    return folder


def read_lines(file: pathlib.Path) -> list[str]:
    """The lines of a text that are not empty; raises FileNotFoundError or ValueError in one line."""
    try:
        found = [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text ({error})") from error
    except OSError as error:
        raise FileNotFoundError(f"there is no list {file} ({error.strerror})") from error
    if not found:
        raise ValueError(f"{file} is empty")
    return found


def list_videos(folder: pathlib.Path) -> list[str]:
    """Files with a video's ending at any depth, sorted; what begins with a dot is passed over."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.join(place, n) for n in files if is_video(n) and not n.startswith(".")]
    return sorted(found)
