"""The embedded digits are scikit-learn's, each once, and their cache survives hostile times."""

import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from train.data.classification.digits import open_digits, prepare_digits
from zoo.files import cache_folder

SIZES = {"train": 1257, "val": 180, "test": 360}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAX_ZOO_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def digits(cache):
    return open_digits()


def bilinear(small):
    """[N, 8, 8] -> [N, 32, 32] by the textbook: half-pixel centers, borders repeated."""
    at = np.clip((np.arange(32) + 0.5) / 4 - 0.5, 0, 7)
    low = np.minimum(at.astype(int), 6)
    part = at - low
    rows = small[:, low] * (1 - part)[:, None] + small[:, low + 1] * part[:, None]
    return rows[..., low] * (1 - part) + rows[..., low + 1] * part


def test_every_digit_of_scikit_learn_stands_in_exactly_one_split(digits):
    assert {split: len(source) for split, source in digits.items()} == SIZES
    original = load_digits()
    expected = bilinear(original.images * 255 / 16).reshape(1797, -1).astype(np.float32)
    images = np.concatenate([source.images for source in digits.values()])
    labels = np.concatenate([source.labels for source in digits.values()])
    ours = images.reshape(1797, -1).astype(np.float32)
    distance = (ours**2).sum(1)[:, None] - 2 * ours @ expected.T + (expected**2).sum(1)
    match = distance.argmin(1)
    assert sorted(match) == list(range(1797))
    # Half a gray value from each rounding: of the stored 8x8 image, within Pillow, of the result.
    assert np.abs(ours - expected[match]).max() <= 1.5
    np.testing.assert_array_equal(labels, original.target[match])
    assert images.dtype == np.uint8 and labels.dtype == np.int32
    assert images.min() == 0 and images.max() == 255


def test_split_is_stratified(digits):
    whole = np.bincount(load_digits().target)
    for split, source in digits.items():
        share = whole * SIZES[split] / 1797
        assert (
            np.abs(np.bincount(source.labels) - share).max() <= 1.2
        )  # two draws, one after the other


def test_source_meets_the_contract(digits):
    test = digits["test"]
    example = test[7]
    assert example["image"].shape == (32, 32, 1) and example["image"].dtype == np.uint8
    assert example["label"].shape == () and example["label"].dtype == np.int32
    assert test.name == "UCI digits (scikit-learn), 32x32 from 8x8"
    assert test.classes == tuple("0123456789")
    copy = pickle.loads(pickle.dumps(test))
    np.testing.assert_array_equal(copy[7]["image"], example["image"])


def test_preparing_what_is_there_changes_nothing(cache, digits):
    (folder,) = cache.iterdir()
    before = {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in folder.iterdir()}
    prepare_digits(folder)
    assert {f: (f.stat().st_ino, f.stat().st_mtime_ns) for f in folder.iterdir()} == before
    assert list(cache.iterdir()) == [folder]


OPEN = """
import numpy as np
from train.data.classification import digits
{before}
opened = digits.open_digits()
print(sum(int(source.images.astype(np.int64).sum()) for source in opened.values()), flush=True)
"""
KILL = """
import os, signal
def killed():
    yield 0, {"image": digits.Image.fromarray(np.zeros([8, 8], np.uint8)), "label": 0}
    os.kill(os.getpid(), signal.SIGKILL)
digits.UciDigits._split_generators = lambda self, dl_manager: {"train": killed()}
"""


def opening(folder, before=""):
    command = [sys.executable, "-W", "error", "-c", OPEN.format(before=before)]
    environment = os.environ | {"FLAX_ZOO_CACHE": str(folder)}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_processes_at_once_after_one_was_killed(tmp_path, digits):
    folder = tmp_path / "not" / "yet"
    with opening(folder, KILL) as process:
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    (remains,) = folder.iterdir()  # the temporary folder of the killed one, which nobody reads

    total = str(sum(int(source.images.astype(np.int64).sum()) for source in digits.values()))
    with opening(folder) as first, opening(folder) as second:
        for process in (first, second):
            out, err = process.communicate()
            assert (process.returncode, out.strip(), err) == (0, total, "")
    assert set(folder.iterdir()) == {remains, folder / "uci_digits-1.0.0"}


def test_damaged_cache_is_told(tmp_path, digits, cache, monkeypatch):
    monkeypatch.setenv("FLAX_ZOO_CACHE", str(tmp_path))
    folder = tmp_path / "uci_digits-1.0.0"
    prepare_digits(folder)
    (file,) = folder.glob("*val*")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cannot be read \(.*\): remove that folder") as caught:
        open_digits()
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_cache_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FLAX_ZOO_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match="cannot be prepared in .*FLAX_ZOO_CACHE$") as caught:
        open_digits()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "own, shared, expected",
    [
        ("/own", "/shared", "/own"),
        ("", "/shared", "/shared/flax-zoo"),
        ("", "", "/home/somebody/.cache/flax-zoo"),
        ("~/zoo", "", "/home/somebody/zoo"),
    ],
)
def test_cache_folder(monkeypatch, own, shared, expected):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("FLAX_ZOO_CACHE", own)
    monkeypatch.setenv("XDG_CACHE_HOME", shared)
    assert str(cache_folder()) == expected
