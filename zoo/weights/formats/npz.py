"""NumPy's npz archives, without pickles and without claims that the file does not hold."""

import math
import os
import tokenize
from typing import IO

import jax.numpy as jnp
import numpy as np

from zoo.weights.formats.archive import open_archive

# what numpy's parser of headers raises on strange ones
NPZ_ERRORS = (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError)
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_array(entry: IO[bytes], size: int) -> np.ndarray:
    """An open .npy entry of `size` bytes to its array; ValueError if its header claims others."""
    version = np.lib.format.read_magic(entry)
    if version not in HEADERS:
        raise ValueError(f"npy of version {version}, expected 1.0 or 2.0")
    shape, by_columns, dtype = HEADERS[version](entry)
    if dtype == np.dtype("V2"):  # how numpy writes bfloat16, whose name it does not know
        dtype = np.dtype(jnp.bfloat16)
    elif dtype.kind not in "biuf" or dtype.subdtype:
        raise ValueError(f"an array of {dtype}, where numbers were expected")
    content = entry.read()
    if math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"an array {dtype}{list(shape)} in {len(content):,} bytes")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if by_columns else "C")


def read_npz(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict]:
    """Path of an npz file to ({name: array}, {}), the arrays read-only.

    bfloat16, which numpy writes as two nameless bytes, is read back as such. An array of objects
    would take a pickle and is refused, as is an archive that claims more bytes than it can hold:
    ValueError.

    Source: the npy format, version 1 and 2, of numpy.lib.format.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "weights.npz")
    >>> np.savez(path, bias=np.arange(3.0))
    >>> read_npz(path)[0]["bias"].tolist()
    [0.0, 1.0, 2.0]
    """
    arrays = {}
    with open_archive(path) as archive:
        for entry in archive.infolist():
            name = entry.filename.removesuffix(".npy")
            with archive.open(entry) as file:
                try:
                    arrays[name] = read_array(file, entry.file_size)
                except NPZ_ERRORS as error:
                    raise ValueError(f"{name}: {error!s:.200}".split("\n")[0]) from error
    return arrays, {}
