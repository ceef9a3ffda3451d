"""Folders of class folders: layouts, splits, broken images, and one line for what cannot be."""

import logging
import pathlib
import pickle

import numpy as np
import pytest
from PIL import Image

from train.data.batches import eval_batches, train_batches
from train.data.classification.folder import open_folder
from train.data.classification.open import split_source

SIZE = (8, 8, 1)


def paint(file, value, form="PNG"):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (12, 10), int(value)).save(file, form)


def fill(folder, counts, start=0):
    """`counts` {class: n}; the gray values of the images are consecutive and identify the files."""
    for name, n in counts.items():
        for i in range(n):
            paint(folder / name / f"{i:03}.png", start)
            start += 1
    return start


def values(source):
    return [int(source[i]["image"][0, 0, 0]) for i in range(len(source))]


def test_flat_folder_is_split_by_class_and_seed(tmp_path, caplog):
    fill(tmp_path / "pets", {"dog": 30, "cat": 20, "ant": 50})
    with caplog.at_level(logging.INFO, "train"):
        sources = open_folder(tmp_path / "pets", size=SIZE, seed=0)
    assert sources.keys() == {"train", "val"}
    assert sources["train"].classes == sources["val"].classes == ("ant", "cat", "dog")
    assert np.bincount(sources["train"].labels).tolist() == [40, 16, 24]
    assert np.bincount(sources["val"].labels).tolist() == [10, 4, 6]
    assert sorted(values(sources["train"]) + values(sources["val"])) == list(range(100))
    (line,) = caplog.messages
    assert "seed 0 into 80 training and 20 validation images" in line
    assert str(tmp_path / "pets") in line

    again, other = (open_folder(tmp_path / "pets", size=SIZE, seed=s)["val"] for s in (0, 1))
    assert values(again) == values(sources["val"]) != values(other)


def test_a_gray_value_carries_the_label_of_its_folder(tmp_path):
    fill(tmp_path, {"dog": 3, "cat": 2, "ant": 5})  # dog 0..2, cat 3..4, ant 5..9
    sources = open_folder(tmp_path, size=SIZE, seed=0)
    for source in sources.values():
        for value, label in zip(values(source), source.labels, strict=True):
            assert source.classes[label] == ("dog" if value < 3 else "cat" if value < 5 else "ant")


@pytest.mark.parametrize("parts", [("train", "val"), ("train", "test"), ("train", "val", "test")])
def test_folders_of_splits_stay_as_they_are(tmp_path, parts, caplog):
    start, expected = 0, {}
    for n, part in enumerate(parts, start=2):
        stop = fill(tmp_path / part, {"a": n, "b": 1}, start)
        expected[part] = list(range(start, stop))
        start = stop
    with caplog.at_level(logging.INFO, "train"):
        sources = open_folder(tmp_path, size=SIZE, seed=0)
    assert {part: values(source) for part, source in sources.items()} == expected
    assert not caplog.messages


def test_train_alone_is_split_too(tmp_path):
    fill(tmp_path / "train", {"a": 5, "b": 5})
    sources = open_folder(tmp_path, size=SIZE, seed=0)
    assert {part: len(source) for part, source in sources.items()} == {"train": 8, "val": 2}


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, {"train": 5, "tram": 5})
    assert open_folder(tmp_path, size=SIZE, seed=0)["val"].classes == ("train", "tram")


def test_what_counts_as_an_image(tmp_path):
    fill(tmp_path, {"a": 1, "b": 1})
    paint(tmp_path / "a" / "deep" / "er" / "1.JPG", 40, "JPEG")
    paint(tmp_path / "a" / "2.webp", 60, "WEBP")
    paint(tmp_path / "b" / "3.Bmp", 80, "BMP")
    for ignored in ("a/.ipynb_checkpoints/x.png", "b/._3.bmp", ".git/x.png"):
        paint(tmp_path / ignored, 200)
    (tmp_path / "a" / "notes.txt").write_text("not an image, and not called one")
    sources = open_folder(tmp_path, size=SIZE, seed=0)
    found = values(sources["train"]) + values(sources["val"])
    np.testing.assert_allclose(sorted(found), [0, 1, 40, 60, 80], atol=1)


def test_examples_meet_the_contract(tmp_path):
    fill(tmp_path / "pets", {"a": 3, "b": 3})
    source = open_folder(tmp_path / "pets", size=(6, 4, 3), seed=0)["train"]
    source = pickle.loads(pickle.dumps(source))
    example = source[0]
    assert example["image"].shape == (6, 4, 3) and example["image"].dtype == np.uint8
    assert example["label"].shape == () and example["label"].dtype == np.int32
    assert source.name == "pets"
    with pytest.raises(IndexError):
        source[len(source)]


def test_files_that_are_no_images_are_left_out_named_and_counted(tmp_path, caplog):
    fill(tmp_path, {"a": 4, "b": 4})
    (tmp_path / "a" / "page.png").write_text("<html>404</html>")
    (tmp_path / "b" / "empty.jpg").touch()
    (tmp_path / "b" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    sources = open_folder(tmp_path, size=SIZE, seed=0)
    assert sorted(values(sources["train"]) + values(sources["val"])) == list(range(8))
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "left out 3 files that are no images" in line
    assert all(name in line for name in ("page.png", "empty.jpg", "gone.jpg"))


def cut_off(file):
    file.write_bytes(file.read_bytes()[:-30])


def test_an_image_that_breaks_when_decoded_has_a_stand_in_of_its_class(tmp_path, caplog):
    fill(tmp_path / "train", {"a": 4, "b": 3})
    fill(tmp_path / "val", {"a": 1, "b": 1}, 100)
    for broken in ("a/001.png", "a/003.png", "b/000.png"):
        cut_off(tmp_path / "train" / broken)
    source = open_folder(tmp_path, size=SIZE, seed=0)["train"]
    expected = [0, 2, 2, 0, 5, 5, 6]  # the next one, around the end of the class
    assert values(source) == values(source) == expected
    assert values(pickle.loads(pickle.dumps(source)))[::-1] == expected[::-1]
    assert len(source.unreadable) == 3

    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3  # once each, however often they are read
    assert "a/001.png is unreadable" in lines[0] and "(1 such so far)" in lines[0]
    assert "b/000.png is unreadable" in lines[2] and "(3 such so far)" in lines[2]


def test_a_broken_image_does_not_end_a_run(tmp_path, caplog):
    fill(tmp_path / "train", {"a": 8, "b": 8})
    fill(tmp_path / "val", {"a": 1, "b": 1})
    cut_off(tmp_path / "train" / "a" / "001.png")
    source = open_folder(tmp_path, size=SIZE, seed=0)["train"]
    run = train_batches(source, batch_size=4, seed=0, start=0, stop=12)
    seen = np.concatenate([batch["image"][:, 0, 0, 0] for batch in run])
    assert np.bincount(seen, minlength=16).tolist() == [3, 0, 6] + [3] * 13
    assert len(caplog.records) == 1


def test_a_stand_in_never_crosses_a_split(tmp_path):
    fill(tmp_path, {"a": 20, "b": 20})
    sources = open_folder(tmp_path, size=SIZE, seed=0)
    rest, held = split_source(sources["train"], 0.5, seed=0)
    own = set(values(rest))
    assert own.isdisjoint(values(held)) and own.isdisjoint(values(sources["val"]))
    for file in rest.files[::2]:
        cut_off(pathlib.Path(file))
    assert set(values(rest)) < own


def test_a_class_that_breaks_altogether_is_named(tmp_path):
    fill(tmp_path / "train", {"a": 2, "b": 2})
    fill(tmp_path / "val", {"a": 1, "b": 1})
    for file in (tmp_path / "train" / "b").iterdir():
        cut_off(file)
    source = open_folder(tmp_path, size=SIZE, seed=0)["train"]
    with pytest.raises(ValueError) as caught:
        list(eval_batches(source, batch_size=4))
    assert str(caught.value) == f"{tmp_path.name}: class b has no readable image"


def hostile(tmp_path):
    fill(tmp_path / "one", {"only": 3})
    fill(tmp_path / "hole", {"full": 3, "other": 3})
    (tmp_path / "hole" / "hollow").mkdir()
    fill(tmp_path / "bad", {"good": 3, "rotten": 1})
    (tmp_path / "bad" / "rotten" / "000.png").write_bytes(b"?")
    (tmp_path / "empty").mkdir()
    paint(tmp_path / "loose" / "x.png", 0)
    fill(tmp_path / "differ" / "train", {"cat": 1, "dog": 1})
    fill(tmp_path / "differ" / "val", {"cat": 1, "dgo": 1})
    fill(tmp_path / "headless" / "test", {"cat": 1, "dog": 1})


HOSTILE = {
    "missing": (FileNotFoundError, "^folder: there is no folder .*missing$"),
    "loose/x.png": (FileNotFoundError, "^folder: there is no folder .*x.png$"),
    "empty": (ValueError, r"empty has no class folders \(PATH/CLASS/IMAGE\), and 0 loose images$"),
    "loose": (ValueError, "loose has no class folders .* and 1 loose images$"),
    "one": (ValueError, "one has one class folder, only: two or more are needed$"),
    "hole": (ValueError, r"^class folder .*hole/hollow has no images \(.jpg, .*\)$"),
    "bad": (
        ValueError,
        r"^class folder .*bad/rotten has no images .* 1 unreadable ones: .*000.png$",
    ),
    "differ": (ValueError, "differ/val: .* it lacks dog and has dgo besides$"),
    "headless": (ValueError, "headless has test but no train folder"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_folders_end_with_one_line(tmp_path, case):
    hostile(tmp_path)
    error, says = HOSTILE[case]
    with pytest.raises(error, match=says) as caught:
        open_folder(tmp_path / case, size=SIZE, seed=0)
    assert "\n" not in str(caught.value)


def test_without_a_size_it_says_so(tmp_path):
    fill(tmp_path, {"a": 1, "b": 1})
    with pytest.raises(ValueError, match=r"size=\(height, width, channels\)$"):
        open_folder(tmp_path, size=None, seed=0)
