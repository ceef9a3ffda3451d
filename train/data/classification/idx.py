"""idx files: the four of MNIST, and of the sets that took over its format (Fashion-MNIST, ...)."""

import gzip
import math
import pathlib
import zlib

import numpy as np

from train.data.source import Arrays, check_labels

MAX_FILE_BYTES = 2**30  # bytes that a header may claim; MNIST's largest file holds 47,040,000
SPLIT_PREFIXES = {"train": "train", "test": "t10k"}


def open_idx(path: str | pathlib.Path) -> dict[str, Arrays]:
    """The four files in the folder `path`: {"train", "test"} of image [H, W, 1] uint8.

    `train-images-idx3-ubyte` and so on, `train-images.idx3-ubyte` too, plain or with `.gz`. The
    classes are "0" to "9": the files carry no names.

    Raises FileNotFoundError that names the missing file, ValueError that names the broken one.

    Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits.

    >>> open_idx("nowhere")
    Traceback (most recent call last):
    FileNotFoundError: idx: there is no folder nowhere
    """
    folder = pathlib.Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"idx: there is no folder {folder}")
    classes = tuple("0123456789")
    files = {
        split: (
            find_idx_file(folder, f"{prefix}-images", 3),
            find_idx_file(folder, f"{prefix}-labels", 1),
        )
        for split, prefix in SPLIT_PREFIXES.items()
    }
    sources = {}
    for split, (images_file, labels_file) in files.items():
        images, labels = read_idx(images_file, axes=3), read_idx(labels_file, axes=1)
        if len(images) != len(labels):
            raise ValueError(
                f"{labels_file}: expected a label for each of the {len(images)} images of "
                f"{images_file.name}, got {len(labels)} labels"
            )
        check_labels(labels, classes, name=str(labels_file))
        name = f"{folder.resolve().name} (idx files)"
        sources[split] = Arrays(images[..., None], labels.astype(np.int32), name, classes)
    return sources


def find_idx_file(folder: pathlib.Path, stem: str, axes: int) -> pathlib.Path:
    """The first of a file's usual names that exists in `folder`."""
    for name in (f"{stem}-idx{axes}-ubyte", f"{stem}.idx{axes}-ubyte"):
        for file in (folder / name, folder / f"{name}.gz"):
            if file.is_file():
                return file
    raise FileNotFoundError(
        f"idx: {folder} lacks {stem}-idx{axes}-ubyte (or .gz): it takes the four files "
        "train-images, train-labels, t10k-images and t10k-labels"
    )


def read_idx(file: pathlib.Path, *, axes: int) -> np.ndarray:
    """An idx file of unsigned bytes, plain or gzip (told by content) -> uint8 with `axes` axes.

    Reads at most one byte more than the header claims, and no more than `MAX_FILE_BYTES`, whatever the
    file would unpack to. Raises ValueError in one line: file, expected, got.
    """
    try:
        with open(file, "rb") as plain:
            zipped = plain.read(2) == b"\x1f\x8b"
        with (gzip.open if zipped else open)(file, "rb") as stream:
            header = stream.read(4 + 4 * axes)
            shape = np.frombuffer(header, ">u4", count=len(header) // 4)[1:].tolist()
            magic = 0x0800 + axes  # 08: unsigned bytes
            if header[:4] != magic.to_bytes(4, "big"):
                raise ValueError(
                    f"{file}: expected the magic number {magic:#010x} of an idx file with {axes} "
                    f"axes of bytes, got 0x{header[:4].hex()}"
                )
            claimed = math.prod(shape) if len(shape) == axes else 0
            if not 0 < claimed <= MAX_FILE_BYTES:
                raise ValueError(
                    f"{file}: expected a header that claims 1 to {MAX_FILE_BYTES} bytes on {axes} axes, "
                    f"got the shape {tuple(shape)}"
                )
            values = stream.read(claimed + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{file}: expected an idx file, got one cut off or damaged ({error})"
        ) from error
    if len(values) != claimed:
        held = "more" if len(values) > claimed else f"{len(values)}"
        raise ValueError(f"{file}: expected the {claimed} bytes of {tuple(shape)}, got {held}")
    return np.frombuffer(values, np.uint8).reshape(shape)
