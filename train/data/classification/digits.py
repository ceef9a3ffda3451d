"""The embedded digits: scikit-learn's UCI digits, prepared once as array_record by TFDS."""

import contextlib
import io
import logging
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from train.data.permutation import stratified_split
from train.data.source import Arrays
from zoo.files import cache_folder

VERSION = "1.0.0"
SPLIT_SIZES = {"test": 360, "val": 180}  # of 1,797; the other 1,257 train


class UciDigits(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """1,797 digits [8, 8, 1] as PNG: a builder that needs neither TensorFlow nor a network."""

    VERSION = tfds.core.Version(VERSION)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits, 8x8, the test part of UCI's optdigits.",
            homepage="https://doi.org/10.24432/C50P49",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        from sklearn.datasets import load_digits  # a second to import, once for each machine

        pixels, labels = load_digits(return_X_y=True)
        images = np.round(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        rest, splits = np.arange(len(images)), {}
        for split, held in SPLIT_SIZES.items():
            kept, out = stratified_split(labels[rest], held, seed=0)
            rest, splits[split] = rest[kept], rest[out]
        return {
            split: self._generate_examples(images, labels, indices)
            for split, indices in {"train": rest, **splits}.items()
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, indices: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for i in indices.tolist():
            # TFDS encodes PIL's images with PIL; arrays it would hand to TensorFlow.
            yield i, {"image": Image.fromarray(images[i]), "label": int(labels[i])}


def open_digits() -> dict[str, Arrays]:
    """The UCI digits: {"train": 1,257, "val": 180, "test": 360} of image [32, 32, 1] uint8.

    The gray values 0..16 become 0..255, the 8x8 pixels 32x32 by bilinear interpolation. The split
    is stratified and fixed (seed 0). It does NOT separate the writers: scikit-learn carries
    digits of 13 people without their names, so the same hands write in all three parts, and an
    accuracy here says less about a new writer than one on MNIST.

    Prepared into `cache_folder()` on first use. Raises ValueError where that cannot be written or
    what lies there cannot be read.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998; the
    1,797 of its test file, as sklearn.datasets.load_digits carries them.
    """
    folder = cache_folder() / f"uci_digits-{VERSION}"
    if not folder.exists():
        prepare_digits(folder)
    try:
        builder = tfds.builder_from_directory(folder)
        splits: Any = builder.as_data_source()
        return {split: enlarge(splits[split]) for split in ("train", "val", "test")}
    except Exception as error:  # whatever tfds, array_record and protobuf make of damaged files
        reason = " ".join(str(error).split())
        raise ValueError(
            f"the digits in {folder} cannot be read ({reason}): remove that folder and try again"
        ) from error


def enlarge(examples: Any) -> Arrays:
    """Examples with an image [8, 8, 1] -> the same with [32, 32, 1]."""
    images, labels = [], []
    for example in examples:
        small = Image.fromarray(example["image"][..., 0])
        images.append(np.asarray(small.resize((32, 32), Image.Resampling.BILINEAR)))
        labels.append(example["label"])
    return Arrays(
        np.stack(images)[..., None],
        np.array(labels, np.int32),
        "UCI digits (scikit-learn), 32x32 from 8x8",
        tuple("0123456789"),
    )


def prepare_digits(folder: pathlib.Path) -> None:
    """Writes the digits into `folder`, whole or not at all.

    They are prepared beside it and renamed: of several processes that do so together the first
    wins, and one that is killed leaves only a temporary folder that nobody reads.
    """
    logging.getLogger("train").info("preparing the UCI digits in %s, once", folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = pathlib.Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            # TFDS prints of a download, which this is not, and its bars.
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                builder = UciDigits(data_dir=temporary, file_format="array_record")
                builder.download_and_prepare()
            try:
                pathlib.Path(builder.data_path).rename(folder)
            except OSError:
                if not folder.exists():  # else another process was first
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise ValueError(
            f"the digits cannot be prepared in {folder.parent} ({error}): "
            "name another folder in the environment variable FLAX_ZOO_CACHE"
        ) from error
