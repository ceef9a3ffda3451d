"""One string names a source; what it cannot mean is told."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from train.data import Crop, open_source, split_source
from train.data.classification import open
from train.data.source import Arrays, Subset

CROP = Crop()


@pytest.mark.parametrize(
    "spec, opener, expected",
    [
        ("digits", "open_digits", ((), {})),
        ("idx:/data/mnist", "open_idx", (("/data/mnist",), {})),
        ("idx:~/mnist", "open_idx", (("/home/somebody/mnist",), {})),
        (
            "folder:cats:and dogs",
            "open_folder",
            (("cats:and dogs",), {"size": (4, 4, 3), "seed": 7, "crop": CROP}),
        ),
        ("tfds:mnist", "open_tfds", (("mnist",), {"size": (4, 4, 3), "crop": CROP})),
        (
            "tfds:imagenette:160px",
            "open_tfds",
            (("imagenette/160px",), {"size": (4, 4, 3), "crop": CROP}),
        ),
    ],
)
def test_each_form_reaches_its_reader(monkeypatch, spec, opener, expected):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setattr(open, opener, lambda *args, **keywords: (args, keywords))
    assert open_source(spec, size=(4, 4, 3), seed=7, crop=CROP) == expected


@pytest.mark.parametrize(
    "spec, says",
    [
        ("digit", "^unknown source digit: did you mean digits[?]$"),
        ("foldr:cats", "^unknown source foldr:cats: did you mean folder:PATH[?]$"),
        ("mnist", "^unknown source mnist: choose one of digits, idx:PATH, folder:PATH, tfds:NAME"),
        ("", "^unknown source : choose one of"),
        ("folder:", "^source folder:: expected the form folder:PATH$"),
        ("idx", "^source idx: expected the form idx:PATH$"),
        ("tfds", "^source tfds: expected the form tfds:NAME or tfds:NAME:CONFIG$"),
        ("digits:8x8", "^source digits:8x8: expected the form digits$"),
    ],
)
def test_an_unknown_form_is_told(spec, says):
    with pytest.raises(ValueError, match=says):
        open_source(spec)


def test_a_bare_folder_is_recognized(tmp_path):
    with pytest.raises(ValueError, match=f"for a folder of class folders write folder:{tmp_path}$"):
        open_source(str(tmp_path))


def arrays(length=30):
    images = np.arange(length, dtype=np.uint8)[:, None, None, None]
    return Arrays(images, (np.arange(length) % 3).astype(np.int32), "thirds", ("a", "b", "c"))


class Bare:
    """The least that is a source: no labels beside its examples."""

    name, classes = "bare", ("a", "b", "c")

    def __len__(self):
        return 30

    def __getitem__(self, i):
        return arrays()[i]


@pytest.mark.parametrize("source", [arrays(), Bare(), Subset(Bare(), np.arange(30))])
def test_split_is_stratified_disjoint_and_by_seed(source):
    rest, held = split_source(source, 0.3, seed=4)
    both = [[int(part[i]["image"][0, 0, 0]) for i in range(len(part))] for part in (rest, held)]
    assert sorted(both[0] + both[1]) == list(range(30))
    assert np.bincount([int(held[i]["label"]) for i in range(len(held))]).tolist() == [3, 3, 3]
    assert (held.name, held.classes) == (source.name, source.classes)
    again, other = (split_source(source, 0.3, seed=s)[1] for s in (4, 5))
    assert [int(again[i]["image"][0, 0, 0]) for i in range(9)] == both[1]
    assert [int(other[i]["image"][0, 0, 0]) for i in range(9)] != both[1]


def test_parts_split_again_and_pickle():
    rest, _ = split_source(arrays(), 0.3, seed=0)
    rest, held = pickle.loads(pickle.dumps(split_source(rest, 1 / 7, seed=0)))
    assert (len(rest), len(held)) == (18, 3)
    assert sorted(held.labels) == [0, 1, 2]


@pytest.mark.parametrize("fraction", [0, 1, 0.01, 0.999, -0.5, 2])
def test_an_empty_part_is_told(fraction):
    with pytest.raises(ValueError, match=f"^thirds: a fraction of {fraction} holds out "):
        split_source(arrays(), fraction, seed=0)


@pytest.mark.parametrize("label", [-1, 3, 200])
def test_labels_out_of_range_are_told(label):
    labels = np.int32([0, 1, label, 2, 99])
    with pytest.raises(ValueError, match=f"^x: example 2 has label {label}, but .* lie in 0..2$"):
        Arrays(np.zeros([5, 2, 2, 1], np.uint8), labels, "x", ("a", "b", "c"))


def test_counts_that_differ_are_told():
    with pytest.raises(ValueError, match="^x: 2 images, 1 labels$"):
        Arrays(np.zeros([2, 2, 2, 1], np.uint8), np.int32([0]), "x", ("a",))


def test_importing_it_brings_no_tensorflow_and_starts_no_device():
    code = """
import sys
import train.data
assert not {"tensorflow", "torch", "sklearn"} & set(sys.modules)
bridge = sys.modules.get("jax._src.xla_bridge")
assert not bridge or not bridge._backends
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
