"""Sets prepared here by TFDS's own writer are read by name; what cannot be read says why."""

import importlib.util
import json
import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from train.data.classification.open import split_source
from train.data.tfds import open_tfds


def gray(value, height=6, width=5, channels=1):
    array = np.full([height, width, channels], value, np.uint8)
    array[0, 0] = 255 - value  # so that a picture mirrored or turned would show
    return array


class Small(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A set whose features, splits and examples the tests say."""

    VERSION = tfds.core.Version("1.2.3")
    features, splits, supervised_keys = {}, {}, None

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(self.features),
            supervised_keys=self.supervised_keys,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {name: enumerate(examples) for name, examples in self.splits.items()}

    def _generate_examples(self):
        raise AssertionError("the splits are generators themselves")


def prepared(folder, name, features, splits, supervised_keys=None):
    fields = {"features": features, "splits": splits, "supervised_keys": supervised_keys}
    builder = type(name, (Small,), {"name": name, **fields}, skip_registration=True)
    builder(data_dir=folder, file_format="array_record").download_and_prepare()
    return builder


def example(value, label, **shape):
    return {"image": Image.fromarray(gray(value, **shape).squeeze()), "label": label}


FIXED = {
    "image": tfds.features.Image(shape=(6, 5, 1)),
    "label": tfds.features.ClassLabel(names=["cat", "dog"]),
}
RAGGED = FIXED | {"image": tfds.features.Image(shape=(None, None, 3))}


@pytest.fixture
def pets(tmp_path):
    splits = {
        "train": [example(i, i % 2) for i in range(10)],
        "validation": [example(100, 1)],
        "test": [example(200, 0), example(201, 1)],
        "unlabeled": [example(0, 0)],
    }
    prepared(tmp_path, "pets", FIXED, splits)
    return tmp_path


def test_a_set_of_one_shape_is_read_as_it_was_written(pets):
    sources = open_tfds("pets", size=None, data_dir=pets)
    assert {key: len(source) for key, source in sources.items()} == {
        "train": 10,
        "val": 1,
        "test": 2,
    }
    for i in range(10):
        got = sources["train"][i]
        np.testing.assert_array_equal(got["image"], gray(i))
        assert got["image"].dtype == np.uint8
        assert (got["label"].shape, got["label"].dtype, got["label"]) == ((), np.int32, i % 2)
    np.testing.assert_array_equal(sources["val"][0]["image"], gray(100))
    assert sources["test"].labels.tolist() == [0, 1]
    assert sources["test"].name == "pets/1.2.3 (TFDS)"
    assert sources["test"].classes == ("cat", "dog")
    copy = pickle.loads(pickle.dumps(sources["train"]))
    np.testing.assert_array_equal(copy[3]["image"], gray(3))
    # Its own shape it keeps, whatever a recipe asks of photographs.
    assert open_tfds("pets", size=(3, 3, 3), data_dir=pets)["test"][0]["image"].shape == (6, 5, 1)


def test_it_splits_by_label(pets):
    rest, held = split_source(open_tfds("pets", size=None, data_dir=pets)["train"], 0.2, seed=0)
    assert sorted(int(held[i]["label"]) for i in range(2)) == [0, 1]
    pixels = [int(part[i]["image"][1, 1, 0]) for part in (rest, held) for i in range(len(part))]
    assert sorted(pixels) == list(range(10))


def test_ragged_images_take_the_size(tmp_path):
    shapes = [{"height": 8, "width": 12, "channels": 3}, {"height": 20, "width": 7, "channels": 3}]
    splits = {"train": [example(90, i, **shape) for i, shape in enumerate(shapes)]}
    prepared(tmp_path, "ragged", RAGGED, splits)
    source = open_tfds("ragged", size=(4, 4, 3), data_dir=tmp_path)["train"]
    images = np.stack([source[i]["image"] for i in range(2)])
    assert images.shape == (2, 4, 4, 3)
    np.testing.assert_allclose(images[:, 1:, 1:], 90, atol=2)
    with pytest.raises(ValueError, match="^tfds:ragged: its images differ in size, so say size="):
        open_tfds("ragged", size=None, data_dir=tmp_path)


def test_supervised_keys_decide_between_several(tmp_path):
    features = FIXED | {"mask": FIXED["image"], "breed": tfds.features.ClassLabel(names=["a"])}
    picture = Image.fromarray(gray(1).squeeze())
    splits = {"train": [example(7, 1) | {"mask": picture, "breed": 0}]}
    prepared(tmp_path, "chosen", features, splits, supervised_keys=("image", "label"))
    prepared(tmp_path, "open", features, splits)
    got = open_tfds("chosen", size=None, data_dir=tmp_path)["train"][0]
    assert got["image"][1, 1, 0] == 7 and got["label"] == 1
    with pytest.raises(
        ValueError, match="^tfds:open is no set of images with one class label each"
    ):
        open_tfds("open", size=None, data_dir=tmp_path)


def test_a_hidden_label_is_told_when_it_is_read(tmp_path):
    prepared(tmp_path, "hidden", FIXED, {"test": [example(1, 1), example(2, -1)]})
    source = open_tfds("hidden", size=None, data_dir=tmp_path)["test"]
    assert source[0]["label"] == 1
    with pytest.raises(ValueError, match=r"^hidden/1.2.3 \(TFDS\): example 1 has label -1, but"):
        source[1]


def test_a_broken_image_is_named(tmp_path):
    prepared(tmp_path, "broken", FIXED, {"train": [example(1, 1)]})
    source = open_tfds("broken", size=None, data_dir=tmp_path)["train"]
    object.__setattr__(source, "records", [source.records[0] | {"image": b"?"}])
    with pytest.raises(ValueError, match="image of example 0 is unreadable .*Unidentified"):
        source[0]


def test_a_set_with_no_known_split_is_told(tmp_path):
    prepared(tmp_path, "odd", FIXED, {"extra": [example(1, 1)]})
    with pytest.raises(ValueError, match="neither train, validation nor test, but extra$"):
        open_tfds("odd", size=None, data_dir=tmp_path)


def test_another_file_format_is_told_with_the_command_that_converts(pets):
    info = pets / "pets" / "1.2.3" / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    with pytest.raises(
        ValueError, match=f"tfds convert_format --dataset_version_dir={pets}"
    ) as caught:
        open_tfds("pets", size=None, data_dir=pets)
    assert "\n" not in str(caught.value)


class PreparedOnDemand(Small):
    features, splits = FIXED, {"train": [example(5, 0)]}


class OutOfReach(Small):
    features = FIXED

    def _split_generators(self, dl_manager):
        raise ConnectionError("no\nnetwork")


def test_an_own_builder_is_prepared_on_demand(tmp_path):
    assert open_tfds("prepared_on_demand", size=None, data_dir=tmp_path)["train"][0]["label"] == 0


UNREADABLE = {
    "mnist": r"is not prepared in .* \(TensorFlow is not installed\); where there is a network: "
    r'pip install "flax-zoo\[tf\]" && python -c "import tensorflow_datasets as tfds; '
    r"tfds.builder\('mnist'\).download_and_prepare\(file_format='array_record'\)\"$",
    "out_of_reach": r"\(ConnectionError: no network\); .*pip install .*builder\('out_of_reach'\)",
    "mnst": r"^tfds:mnst is no set of TensorFlow Datasets; it has .*mnist",
    "qqqqqq": r"it has nothing like it$",
    "mnist/fashion": r"^tfds:mnist/fashion cannot be opened: .*BuilderConfig fashion not found",
    "two words": r"^tfds:two words cannot be opened: ",
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_ends_with_one_line(tmp_path, monkeypatch, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # no TensorFlow
    with pytest.raises(ValueError, match=UNREADABLE[name]) as caught:
        open_tfds(name, size=None, data_dir=tmp_path)
    assert "\n" not in str(caught.value)
