"""Image classification sets of TensorFlow Datasets by name, read without TensorFlow."""

import dataclasses
import difflib
import functools
import importlib.util
import io
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import constants

from train.data.image_files import CROP_STREAM, Crop, Size, check_size, read_image
from train.data.source import check_labels
from zoo.errors import one_line

SPLIT_NAMES = {"train": ("train",), "val": ("validation", "val", "valid"), "test": ("test",)}


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedSet:
    """One split of a prepared set: `open_records` [N], whose images are decoded to `size` = (H, W, C).

    In training a `crop` draws a part of them, afresh for each number in the run.
    Raises ValueError at an example whose label names no class (TFDS writes -1 for a hidden one)
    or whose image cannot be read.
    """

    records: Any
    image: str
    label: str
    name: str
    classes: tuple[str, ...]
    size: Size
    crop: Crop | None = None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int, /) -> dict[str, np.ndarray]:
        return self.read(i, crop=None)

    def draw(self, i: int, *, number: int, seed: int) -> dict[str, np.ndarray]:
        return self.read(i, crop=self.crop, key=(seed, number, CROP_STREAM))

    def read(self, i: int, **part: Any) -> dict[str, np.ndarray]:
        """Example i; `part`: what `read_image` takes besides file and size."""
        record = self.records[i]
        label = np.asarray(record[self.label], np.int32)
        check_labels(label[None], self.classes, name=self.name, first=i)
        try:
            image = read_image(io.BytesIO(record[self.image]), size=self.size, **part)
        except ValueError as error:
            raise ValueError(
                f"{self.name}: image of example {i} is unreadable ({error})"
            ) from error
        return {"image": image, "label": label}

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """[N] int32, from all records but without decoding an image."""
        return np.array([record[self.label] for record in self.records], np.int32)


def open_tfds(
    name: str, *, size: Size | None, data_dir: str | None = None, crop: Crop | None = None
) -> dict[str, PreparedSet]:
    """The set `NAME` or `NAME/CONFIG` -> its "train", "val" and "test", as far as it has them.

    Images of one shape keep it; ragged ones are brought to `size` as those of a folder are, and
    only those of "train" by `crop`. A set
    that is not prepared is downloaded and prepared in array_record form first, which takes the
    extra `tf` for the sets of the library. `data_dir` is TFDS's own unless given.

    Raises ValueError that says what to do: an unknown name, a set that cannot be prepared here,
    one prepared in another form, one without exactly one image and one class label.
    """
    builder = find_builder(name, data_dir)
    if not (builder.data_path / "dataset_info.json").exists():  # is_prepared() warns besides
        prepare_set(builder, name)
    image, label = image_and_label_keys(builder.info, name)
    features = builder.info.features
    shape = features[image].shape
    common = {
        "image": image,
        "label": label,
        "name": f"{builder.info.full_name} (TFDS)",
        "classes": tuple(features[label].names),
        "size": check_size(size if None in shape else shape, source=f"tfds:{name}"),
    }
    sources = {}
    for split, names in SPLIT_NAMES.items():
        for known in (known for known in names if known in builder.info.splits):
            part = crop if split == "train" and None in shape else None
            found = open_records(builder, known, image)
            sources[split] = PreparedSet(records=found, crop=part, **common)
    if not sources:
        has = ", ".join(builder.info.splits)
        raise ValueError(f"tfds:{name} has neither train, validation nor test, but {has}")
    return sources


def find_builder(name: str, data_dir: str | None) -> Any:
    """The builder of that name; raises ValueError with the nearest names where there is none."""
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        near = ", ".join(difflib.get_close_matches(name.split("/")[0], known)) or "nothing like it"
        raise ValueError(f"tfds:{name} is no set of TensorFlow Datasets; it has {near}") from error
    except Exception as error:  # a wrong config, version or spelling, each in its own class
        if "No module named 'tensorflow'" in str(error):  # the code of some sets needs it
            return load_prepared(name, data_dir)
        raise ValueError(f"tfds:{name} cannot be opened: {shorten_error(error)}") from error


def load_prepared(name: str, data_dir: str | None) -> Any:
    """The builder that files alone make, of any version; raises ValueError where there are none."""
    try:
        return tfds.builder(f"{name}:*.*.*", data_dir=data_dir)
    except Exception as error:
        where = data_dir or constants.DATA_DIR
        raise not_prepared_error(where, name, "TensorFlow is not installed") from error


def prepare_set(builder: Any, name: str) -> None:
    """Downloads and prepares the set; raises ValueError with the commands that would."""
    of_library = type(builder).__module__.startswith("tensorflow_datasets.")
    if of_library and importlib.util.find_spec("tensorflow") is None:
        # Not tried: it would fail after the whole download, or after minutes of retries.
        raise not_prepared_error(builder.data_dir, name, "TensorFlow is not installed")
    try:
        builder.download_and_prepare(file_format="array_record")
    except Exception as error:  # no network, no space, a site that moved, a missing module
        raise not_prepared_error(builder.data_dir, name, shorten_error(error)) from error


def not_prepared_error(where: Any, name: str, reason: str) -> ValueError:
    """The error that says why a set is not there and how to get it."""
    return ValueError(
        f"tfds:{name} is not prepared in {where} and cannot be here ({reason}); where "
        'there is a network: pip install "flax-zoo[tf]" && python -c "import tensorflow_datasets as '
        f"tfds; tfds.builder('{name}').download_and_prepare(file_format='array_record')\""
    )


def open_records(builder: Any, split: str, *images: str, **decoders: Any) -> Any:
    """The records of a split, with the images as the bytes of their files."""
    plain = {image: tfds.decode.SkipDecoding() for image in images} | decoders
    try:
        return builder.as_data_source(split=split, decoders=plain)
    except NotImplementedError as error:
        raise ValueError(
            f"{builder.data_dir} is prepared in a form without random access; convert it: "
            f"tfds convert_format --dataset_version_dir={builder.data_dir} "
            "--out_file_format=array_record"
        ) from error


def image_and_label_keys(info: Any, name: str) -> tuple[str, str]:
    """The names of the image and of the class label, the supervised ones where there are several."""
    kinds = (tfds.features.Image, tfds.features.ClassLabel)
    features = dict(info.features)
    found = [[key for key, f in features.items() if isinstance(f, kind)] for kind in kinds]
    pair = info.supervised_keys or ()
    if len(pair) == 2 and all(key in of_kind for key, of_kind in zip(pair, found, strict=True)):
        return pair
    if [len(of_kind) for of_kind in found] != [1, 1]:
        raise ValueError(
            f"tfds:{name} is no set of images with one class label each; it has {', '.join(features)}"
        )
    return found[0][0], found[1][0]


def shorten_error(error: Exception) -> str:
    """The error in one line of at most 300 characters.

    >>> shorten_error(OSError("no\\nnetwork"))
    'OSError: no network'
    """
    line = one_line(error)
    return line if len(line) <= 300 else f"{line[:297]}..."
