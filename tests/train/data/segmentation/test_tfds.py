"""Segmentation sets prepared here by TFDS's own writer are read by name."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from train.data import open_masks
from train.data.segmentation import tfds as tfds_masks
from train.data.segmentation.tfds import find_tfds_masks
from zoo.media.colormap import voc_colormap


class Small(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A set whose features, splits and examples the tests say."""

    VERSION = tfds.core.Version("4.0.0")
    features, splits = {}, {}

    def _info(self):
        features = tfds.features.FeaturesDict(self.features)
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {name: enumerate(examples) for name, examples in self.splits.items()}

    def _generate_examples(self):
        raise AssertionError("the splits are generators themselves")


def prepared(folder, name, features, splits):
    fields = {"name": name, "features": features, "splits": splits}
    builder = type(name, (Small,), fields, skip_registration=True)
    builder(data_dir=folder, file_format="array_record").download_and_prepare()


def pair(trimap, **more):
    trimap = np.asarray(trimap, np.uint8)
    image = np.repeat(60 * trimap[..., None], 3, axis=-1)
    return {"image": Image.fromarray(image), "segmentation_mask": Image.fromarray(trimap)} | more


FEATURES = {
    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
    "segmentation_mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
}
TALL, WIDE = np.array([[1, 2], [2, 3], [3, 3]]), np.array([[2, 2, 1, 3]])
SIZE = (6, 4, 3)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "train.data.segmentation.open.find_tfds_masks",
        lambda name: find_tfds_masks(name, data_dir=str(tmp_path)),
    )
    return tmp_path


def test_the_pets_by_name(folder):
    features = FEATURES | {"label": tfds.features.ClassLabel(num_classes=2)}
    splits = {
        "train": [pair(TALL, label=0)] * 5,
        "test": [pair(TALL, label=1), pair(WIDE, label=0)],
    }
    prepared(folder, "oxford_iiit_pet", features, splits)
    sources = open_masks("tfds:oxford_iiit_pet", size=SIZE, splits=0.4)
    assert {k: len(s) for k, s in sources.items()} == {"train": 3, "val": 2, "test": 2}
    assert open_masks("tfds:oxford_iiit_pet", size=SIZE).keys() == {"train", "test"}
    test = sources["test"]
    assert test.classes == ("pet", "background", "border")
    assert "oxford_iiit_pet" in test.name and test.palette.tolist() == voc_colormap(3).tolist()
    np.testing.assert_array_equal(test[0]["mask"], (TALL - 1).repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(test[1]["mask"][0], WIDE[0] - 1)
    assert (test[1]["mask"][1:] == 255).all() and test[1]["image"].shape == SIZE


def test_another_set_says_its_values_or_is_counted(folder):
    prepared(
        folder, "cells", FEATURES, {"train": [pair(TALL - 1)] * 2, "validation": [pair(TALL - 1)]}
    )
    assert open_masks("tfds:cells", size=SIZE)["val"].classes == ("0", "1", "2")
    named = open_masks("tfds:cells", size=SIZE, classes="abc", values=(2, 1, 0))["val"]
    np.testing.assert_array_equal(named[0]["mask"][::2, ::2], 3 - TALL)
    with pytest.raises(ValueError, match=r"^tfds:cells: its images differ in size, so say size"):
        open_masks("tfds:cells")
    with pytest.raises(
        ValueError, match="segmentation_mask of example 0: value 2 at row 1, column 1"
    ):
        open_masks("tfds:cells", size=SIZE, classes="ab")


def test_a_set_without_masks_is_told(folder):
    prepared(
        folder, "plain", {"image": FEATURES["image"]}, {"train": [{"image": pair(TALL)["image"]}]}
    )
    with pytest.raises(
        ValueError, match="^tfds:plain is no set of image and segmentation_mask; it"
    ):
        open_masks("tfds:plain", size=SIZE)
    assert tfds_masks.KNOWN_SETS["oxford_iiit_pet"][1] == (1, 2, 3)
