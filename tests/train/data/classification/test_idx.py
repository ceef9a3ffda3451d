"""idx files written here byte by byte are read back; broken ones end with one line."""

import gzip
import struct
import tracemalloc

import numpy as np
import pytest

from train.data.classification import idx
from train.data.classification.idx import open_idx, read_idx

DASHED = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]


def pixel(i, y, x):
    return (31 * i + 7 * y + x) % 256


def image_file(count, height=28, width=28, magic=0x803):
    pixels = [pixel(i, y, x) for i in range(count) for y in range(height) for x in range(width)]
    return struct.pack(">IIII", magic, count, height, width) + bytes(pixels)


def label_file(labels):
    return struct.pack(">II", 0x801, len(labels)) + bytes(labels)


def write(folder, names, files, pack=lambda data: data):
    for name, data in zip(names, files, strict=True):
        (folder / name).write_bytes(pack(data))


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_the_four_files_in_each_of_their_forms(tmp_path, dotted, zipped):
    names = [n.replace("-idx", ".idx") if dotted else n for n in DASHED]
    names = [n + ".gz" for n in names] if zipped else names
    labels = [5, 0, 4, 1, 9, 2, 1, 3, 1, 4, 3, 5]
    files = [image_file(12), label_file(labels), image_file(3), label_file([7, 2, 1])]
    write(tmp_path, names, files, gzip.compress if zipped else bytes)

    sources = open_idx(tmp_path)
    assert {split: len(source) for split, source in sources.items()} == {"train": 12, "test": 3}
    example = sources["train"][11]
    assert example["image"].shape == (28, 28, 1) and example["image"].dtype == np.uint8
    assert example["image"][3, 20, 0] == pixel(11, 3, 20)
    assert example["label"] == 5 and example["label"].dtype == np.int32
    assert sources["test"].labels.tolist() == [7, 2, 1]
    assert sources["train"].classes == tuple("0123456789")
    assert sources["test"].name == f"{tmp_path.name} (idx files)"


def test_sides_may_differ(tmp_path):
    (tmp_path / "file").write_bytes(image_file(2, 3, 5))
    assert read_idx(tmp_path / "file", axes=3).shape == (2, 3, 5)


GOOD = dict(
    zip(DASHED, [image_file(4), label_file([0, 1, 2, 3]), image_file(2), label_file([0, 9])])
)
HOSTILE = {
    "no magic": ("train-images-idx3-ubyte", b"", r"magic number 0x00000803 .* got 0x$"),
    "labels as images": ("train-images-idx3-ubyte", label_file([1] * 99), "got 0x00000801$"),
    "floats": ("train-images-idx3-ubyte", image_file(4, magic=0xD03), "got 0x00000d03$"),
    "a web page": ("train-labels-idx1-ubyte", b"<html>404</html>", "got 0x3c68746d$"),
    "half a header": ("train-images-idx3-ubyte", image_file(4)[:10], r"got the shape \(4,\)$"),
    "no example": ("t10k-images-idx3-ubyte", image_file(0), r"got the shape \(0, 28, 28\)$"),
    "a byte short": (
        "t10k-images-idx3-ubyte",
        image_file(2)[:-1],
        r"expected the 1568 bytes of \(2, 28, 28\), got 1567$",
    ),
    "a byte long": ("t10k-images-idx3-ubyte", image_file(2) + b"!", "got more$"),
    "claims too much": (
        "t10k-images-idx3-ubyte",
        struct.pack(">IIII", 0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1),
        "claims 1 to 1073741824 bytes on 3 axes, got the shape",
    ),
    "claims what is not there": (
        "t10k-images-idx3-ubyte",
        struct.pack(">IIII", 0x803, 2**20, 32, 32),
        r"expected the 1073741824 bytes of \(1048576, 32, 32\), got 0$",
    ),
    "gzip cut off": (
        "train-labels-idx1-ubyte",
        gzip.compress(label_file(range(4)))[:-9],
        "cut off or damaged",
    ),
    "gzip damaged": (
        "train-labels-idx1-ubyte",
        gzip.compress(bytes(9))[:10] + b"\xff" * 20,
        "cut off or damaged",
    ),
    "fewer labels": (
        "train-labels-idx1-ubyte",
        label_file([1, 2, 3]),
        "a label for each of the 4 images of train-images-idx3-ubyte, got 3 labels$",
    ),
    "label out of range": (
        "train-labels-idx1-ubyte",
        label_file([0, 1, 11, 12]),
        r"example 2 has label 11, but labels of 10 classes lie in 0\.\.9$",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_end_with_one_line_that_names_them(tmp_path, case):
    name, data, says = HOSTILE[case]
    write(tmp_path, GOOD, (GOOD | {name: data}).values())
    with pytest.raises(ValueError, match=says) as caught:
        open_idx(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / name) + ": ")
    assert "\n" not in str(caught.value)


def test_a_gzip_bomb_is_read_no_further_than_its_header_claims(tmp_path):
    file = tmp_path / "bomb"
    file.write_bytes(gzip.compress(image_file(2) + bytes(2**26), 1))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="expected the 1568 bytes .* got more$"):
            read_idx(file, axes=3)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_bomb_that_claims_all_it_holds_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "MAX_FILE_BYTES", 1567)
    (tmp_path / "file").write_bytes(image_file(2))
    with pytest.raises(ValueError, match=r"claims 1 to 1567 bytes .* got the shape \(2, 28, 28\)$"):
        read_idx(tmp_path / "file", axes=3)


@pytest.mark.parametrize("missing", DASHED)
def test_a_missing_file_is_named(tmp_path, missing):
    write(tmp_path, GOOD, GOOD.values())
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {missing} ") as caught:
        open_idx(tmp_path)
    assert "\n" not in str(caught.value)
