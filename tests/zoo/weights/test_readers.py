"""Content selects the reader; npz has no pickles; other files give an error of one line."""

import gzip
import io
import pathlib
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from zoo.weights.formats import npz
from zoo.weights.readers import read_tensors

HERE = pathlib.Path(__file__).parent / "formats"
ARRAYS = {
    "Transformer/encoder/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "scalar": np.array(3, np.int64),
    "none": np.zeros((0, 4), np.float16),
    "brain": np.arange(4).astype(jnp.bfloat16),
}


def saved(save=np.savez, **arrays) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue()


def zipped(**entries: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(header: str, body: bytes = b"", version: bytes = b"\1\0") -> dict[str, bytes]:
    text = header.encode().ljust(117) + b"\n"
    return {"a.npy": b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + body}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(save, tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(saved(save, **ARRAYS))
    tensors, values = read_tensors(path)
    assert values == {} and tensors.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(tensors[name], array)


def test_by_content_and_not_by_ending(tmp_path):
    path = tmp_path / "weights.npz"
    save_file({"a": np.ones(3, np.float32)}, path, {"card": '{"name": "lenet5"}'})
    assert read_tensors(path)[1] == {"name": "lenet5"}
    for form in ("zip", "legacy"):
        path.write_bytes((HERE / f"torch_{form}.pth").read_bytes())
        tensors, values = read_tensors(path)
        assert "fc.weight" in tensors and values == {"checkpoint": {"epoch": 7}}


OTHERS = {
    "empty": (b"", "is empty$"),
    "page": (b"\n <!DOCTYPE html><html>", "is an HTML page"),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid",
        "is a git-lfs pointer.*lfs pull",
    ),
    "gzip": (gzip.compress(b"weights"), "is a gzip archive: unpack it first"),
    "xz": (b"\xfd7zXZ\0\0", "is an xz archive"),
    "bzip2": (b"BZh91AY", "is a bzip2 archive"),
    "tar": (b"a".ljust(257, b"\0") + b"ustar\0", "is a tar archive"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "is HDF5, as Keras"),
    "npy": (b"\x93NUMPY\1\0", "is a single array: save named ones by numpy.savez"),
    "picture": (b"\x89PNG\r\n", "is a PNG image"),
    "json": (b'{"a": 1}', "is JSON text"),
    "pickle": (b"\x80\x04\x95", "is a Python pickle that torch did not write"),
    "words": (b"hello\nworld", r"is of an unknown format: it begins with b'hello\\nwo'$"),
    "document": (
        zipped(**{"word/document.xml": b""}),
        "neither torch nor numpy: it holds 'word/doc",
    ),
    "empty zip": (zipped(), "neither torch nor numpy: it holds nothing"),
    "cut npz": (saved(a=np.zeros(100))[:300], "damaged or cut short"),
    "objects": (saved(a=np.array([{}], object)), "a: an array of object, where numbers"),
    "words in npz": (saved(a=np.array(["b"])), "a: an array of <U1, where numbers"),
    "structs": (saved(a=np.zeros(2, "f4,i4")), "where numbers were expected"),
    "huge": (
        zipped(**npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}")),
        "a: an array float32.1000000000000. in 0 bytes",
    ),
    "negative": (
        zipped(**npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -1)}", b"abcd")),
        "a: ",
    ),
    "code in the header": (zipped(**npy("__import__('os').mkdir('marker')")), "a: "),
    "deep header": (zipped(**npy("(" * 110)), "a: "),
    "strange header": (zipped(**npy("{'descr': 3}")), "a: "),
    "strange version": (zipped(**npy("", version=b"\7\0")), "a: "),
    "no npy": (zipped(**{"a.npy": b"abc"}), "a: "),
}


@pytest.mark.parametrize("case", OTHERS)
def test_one_line_says_what_it_is(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, message = OTHERS[case]
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(path))
    assert [one.name for one in tmp_path.iterdir()] == ["weights.pth"]


def test_zip_bomb(tmp_path):
    path = tmp_path / "weights.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(2**27))
    with pytest.raises(ValueError, match="claims to hold 134,217,728 bytes in a file of"):
        npz.read_npz(path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        read_tensors(tmp_path / "absent")
