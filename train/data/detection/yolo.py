"""Boxes from folders of text files, as darknet and its successors read them."""

import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from train.data.detection.annotations import AnnotatedImages, Annotation, annotate, read_image_sizes
from train.data.image_files import IMAGE_SUFFIXES
from train.data.segmentation.mask_folder import files_by_stem, natural_key

SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
LIST_FILES = ("classes.txt", "obj.names", "classes.names")
YAML_FILES = ("data.yaml", "data.yml", "dataset.yaml")
MAX_FILE_BYTES = 2**23  # bytes of a file of labels or names
LAYOUTS = (
    "PATH/images/train + PATH/labels/train, PATH/train/images + PATH/train/labels, or "
    "PATH/images + PATH/labels"
)


def find_yolo_detection(folder: pathlib.Path, classes: Sequence[str] | None) -> AnnotatedImages:
    """images/ and labels/ in one of LAYOUTS -> what is found.

    A line of a label file is "class x y width height", the box's center and size as shares of the
    upright image's. The names of the classes are those of PATH/classes.txt, a line each, or `names`
    of PATH/data.yaml, else their numbers. An image without a label file has no objects, as in
    darknet; `log` counts those.

    Raises FileNotFoundError or ValueError in one line: no label file at all, one without an image,
    a line of another form, a class out of range, names that cannot be read.

    Source: the training pages of darknet (pjreddie.com/darknet/yolo) and of its successors.
    """
    parts = dict(find_splits(folder))
    if not parts:
        raise ValueError(f"{folder} has no images beside labels: expected {LAYOUTS}")
    named = classes or find_class_names(folder)
    records: dict[str, list[Annotation]] = {}
    told: dict[str, list[str]] = {}
    for part, (images, labels) in parts.items():
        of_image, of_label = files_by_stem(images, IMAGE_SUFFIXES), files_by_stem(labels, (".txt",))
        if lonely := sorted(of_label.keys() - of_image.keys() - {"classes"}):
            raise FileNotFoundError(f"{of_label[lonely[0]]} has no image of its name in {images}")
        if not of_image:
            raise FileNotFoundError(f"{images} has no images ({', '.join(IMAGE_SUFFIXES)})")
        bare = len(of_image.keys() - of_label.keys())
        if bare == len(of_image):
            raise FileNotFoundError(
                f"{labels} has no label file, NAME.txt, of an image in {images}"
            )
        names = sorted(of_image, key=natural_key)
        sizes = read_image_sizes([of_image[name] for name in names])
        records[part] = [
            annotate(of_image[name], upright, read_labels(of_label.get(name), upright, named))
            for name, (_, upright) in zip(names, sizes, strict=True)
        ]
        told[part] = [f"{bare} without a label file"] if bare else []
    if named is None:
        every = [record.labels for of_part in records.values() for record in of_part]
        named = [
            str(number) for number in range(max(labels.max(initial=0) for labels in every) + 1)
        ]
    return AnnotatedImages(records, tuple(named), folder.resolve().name, log=told)


def find_splits(folder: pathlib.Path) -> Iterator[tuple[str, tuple[pathlib.Path, pathlib.Path]]]:
    """(part, (folder of its images, folder of its labels)) as far as there are."""
    for part, names in SPLIT_FOLDERS.items():
        for name in names:
            for of_both in (
                (("images", name), ("labels", name)),
                ((name, "images"), (name, "labels")),
            ):
                images, labels = (folder.joinpath(*path) for path in of_both)
                if images.is_dir() and labels.is_dir():
                    yield part, (images, labels)
    images, labels = folder / "images", folder / "labels"
    if images.is_dir() and labels.is_dir() and any(path.is_file() for path in images.iterdir()):
        yield "train", (images, labels)


def read_labels(
    file: str | None, size: tuple[int, int], classes: Sequence[str] | None
) -> list[tuple[tuple[float, ...], int, bool]]:
    """A label file, None for none, and an image's (height, width) -> (box, label, False) each."""
    if file is None:
        return []
    height, width = size
    objects = []
    for number, line in enumerate(read_text(pathlib.Path(file)).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            label, *shares = map(float, line.split())
        except ValueError:
            label, shares = math.nan, []
        if len(shares) != 4 or not all(map(math.isfinite, (label, *shares))) or label % 1:
            raise ValueError(
                f"{file}: line {number} is {line.strip()!r:.80}, expected "
                "'class x y width height', shares of the image"
            )
        if label < 0 or (classes is not None and label >= len(classes)):
            raise ValueError(
                f"{file}: line {number} has the class {int(label)}, "
                + (
                    f"but {len(classes)} classes are 0 to {len(classes) - 1}"
                    if classes
                    else "below 0"
                )
            )
        x, y, w, h = shares
        box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
        objects.append((box, int(label), False))
    return objects


def find_class_names(folder: pathlib.Path) -> list[str] | None:
    """The names of the classes as the folder's file of names has them; None without one."""
    for file in (folder / name for name in LIST_FILES):
        if file.is_file():
            names = [line.strip() for line in read_text(file).split("\n") if line.strip()]
            return check_class_names(names, file)
    for file in (folder / name for name in YAML_FILES):
        if file.is_file():
            return check_class_names(read_yaml_names(file), file)
    return None


def read_yaml_names(file: pathlib.Path) -> list[str]:
    """`names` of a YAML file: a list, or numbers from 0 to names."""
    text = read_text(file)
    try:
        # A few lines of aliases of aliases can stand for more names than memory holds.
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ValueError("it has aliases")
        content: Any = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} cannot be read as YAML ({reason:.200})") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise ValueError(f"{file}: the numbers of its names are not 0 to {len(names) - 1}")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
        raise ValueError(f"{file} has no list of names of classes under `names`")
    return [str(name).strip() for name in names]


def check_class_names(names: list[str], file: pathlib.Path) -> list[str]:
    """The names, if there are some and none is there twice."""
    if not names or len(set(names)) != len(names):
        twice = next((name for name in names if names.count(name) > 1), None)
        raise ValueError(
            f"{file}: the class {twice!r:.80} is named twice" if twice else f"{file} names no class"
        )
    return names


def read_text(file: pathlib.Path) -> str:
    """A text file of a reasonable length; raises ValueError in one line otherwise."""
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"longer than {MAX_FILE_BYTES} bytes")
        return content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{file} cannot be read as text ({' '.join(str(error).split())})"
        ) from error
