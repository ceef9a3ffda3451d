"""Detection of a weight file's format from its content, or for darknet from its suffix."""

import os
import pathlib
from typing import Any

import numpy as np

from zoo.weights.formats import darknet, npz, safetensors, torch_file
from zoo.weights.formats.archive import open_archive

# First bytes of files that are not weights, and what they are; text is compared without case.
FOREIGN_FORMATS = {
    b"<!doctype html": "an HTML page: the download was answered by a web site",
    b"<html": "an HTML page: the download was answered by a web site",
    b"version https://git-lfs": "a git-lfs pointer, not the file: run `git lfs pull`",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"bzh": "a bzip2 archive: unpack it first",
    b"\xfd7zxz": "an xz archive: unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd archive: unpack it first",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"\x89hdf": "HDF5, as Keras writes it: save it as npz or safetensors",
    b"\x93numpy": "a single array: save named ones by numpy.savez",
    b"\x89png": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%pdf": "a PDF document",
    b"{": "JSON text",
}
UNKNOWN_FORMAT = "of an unknown format"
TAR_MAGIC = b"ustar", 257  # and its offset
PICKLE_MAGIC = b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"
TORCH_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # torch_file.MAGIC, pickled


def describe_format(head: bytes) -> str:
    """Describes a file that no reader supports, from its first 512 bytes.

    >>> describe_format(b"version https://git-lfs.github.com/spec/v1")
    'a git-lfs pointer, not the file: run `git lfs pull`'
    """
    text = head.lstrip().lower()
    for start, description in FOREIGN_FORMATS.items():
        if text.startswith(start):
            return description
    if head[TAR_MAGIC[1] :].startswith(TAR_MAGIC[0]):
        return "a tar archive: unpack it first"
    if head.startswith(PICKLE_MAGIC):
        return "a Python pickle that torch did not write: pickles of others are not read"
    return f"{UNKNOWN_FORMAT}: it begins with {head[:8]!r}" if head else "empty"


def read_checkpoint(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a torch checkpoint, with the values beside its tensors as a card."""
    tensors, values = torch_file.read_torch(path)
    return tensors, {"checkpoint": values} if values else {}


def read_tensors(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a weight file of any supported format.

    Formats are safetensors, torch (both forms) and npz, detected from the content, and darknet's
    .weights, one array called "darknet". Names and layouts are the file's.

    Args:
        path: the file.

    Returns:
        Arrays by name, and the card: that of `save_model`, or `{"checkpoint": {...}}` with the
        numbers and strings that a torch file stores beside its tensors.

    Raises:
        ValueError: if the file is damaged, malicious or of another format; the message describes it
            in one line.
        FileNotFoundError: if the file is missing.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "weights.pth")
    >>> _ = path.write_text("<!DOCTYPE html><title>Sign in</title>")
    >>> read_tensors(path)
    Traceback (most recent call last):
    ValueError: ...weights.pth is an HTML page: the download was answered by a web site
    """
    with open(path, "rb") as file:
        head = file.read(512)
    if TORCH_MAGIC in head[:32]:
        return read_checkpoint(path)
    if safetensors.is_safetensors(head):
        return safetensors.read_safetensors(pathlib.Path(path))
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        with open_archive(path) as archive:
            names = archive.namelist()
        if any(f"/{name}".endswith("/data.pkl") for name in names):
            return read_checkpoint(path)
        if names and all(name.endswith(".npy") for name in names):
            return npz.read_npz(path)
        contents = ", ".join(repr(name[:40]) for name in names[:3]) or "nothing"
        raise ValueError(f"{path} is a zip archive of neither torch nor numpy: it holds {contents}")
    description = describe_format(head)
    if description.startswith(UNKNOWN_FORMAT) and darknet.is_darknet(path, head):
        return darknet.read_darknet(path)
    raise ValueError(f"{path} is {description}")
