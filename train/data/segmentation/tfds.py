"""Segmentation sets of TensorFlow Datasets by name, read without TensorFlow."""

import dataclasses
from typing import Any

import tensorflow_datasets as tfds

from train.data.image_files import Size
from train.data.tfds import SPLIT_NAMES, find_builder, open_records, prepare_set

MASK_KEYS = ("image", "segmentation_mask")
KNOWN_SETS = {  # names and values of the classes, which TFDS does not tell
    "oxford_iiit_pet": (("pet", "background", "border"), (1, 2, 3)),
}


@dataclasses.dataclass(frozen=True, eq=False)
class MaskRecords:
    """Prepared records [N] as (image, mask, None, name of the image, name of the mask), in bytes."""

    records: Any
    name: str

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int, /) -> tuple:
        record = self.records[i]
        names = (f"{self.name}: {key} of example {i}" for key in MASK_KEYS)
        return (*(record[key] for key in MASK_KEYS), None, *names)


def find_tfds_masks(
    name: str, *, data_dir: str | None = None
) -> tuple[str, dict[str, MaskRecords], Size | None]:
    """NAME or NAME/CONFIG -> (full name, {"train", "val", "test"} as far as it has them, size).

    The size (H, W, C) is None where images differ. What is not prepared is prepared as `open_tfds`
    does it. Raises ValueError where it cannot be, and for a set without the features "image" and
    "segmentation_mask".
    """
    builder = find_builder(name, data_dir)
    if not (builder.data_path / "dataset_info.json").exists():
        prepare_set(builder, name)
    features = builder.info.features
    if not all(isinstance(dict(features).get(key), tfds.features.Image) for key in MASK_KEYS):
        raise ValueError(
            f"tfds:{name} is no set of {' and '.join(MASK_KEYS)}; it has {', '.join(features)}"
        )
    full = f"{builder.info.full_name} (TFDS)"
    found = {
        part: MaskRecords(open_records(builder, known, *MASK_KEYS), full)
        for part, names in SPLIT_NAMES.items()
        for known in names
        if known in builder.info.splits
    }
    if not found:
        has = ", ".join(builder.info.splits)
        raise ValueError(f"tfds:{name} has neither train, validation nor test, but {has}")
    shape = features["image"].shape
    return full, found, None if None in shape else shape
