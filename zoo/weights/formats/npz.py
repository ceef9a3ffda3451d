"""NumPy's npz format, without pickles and with checked sizes."""

import math
import os
import tokenize
from typing import IO

import jax.numpy as jnp
import numpy as np

from zoo.weights.formats.archive import open_archive

# exceptions of numpy's header parser for invalid headers
NPZ_ERRORS = (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError)
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_array(entry: IO[bytes], size: int) -> np.ndarray:
    """Reads an open .npy entry of `size` bytes; raises ValueError if its header disagrees."""
    version = np.lib.format.read_magic(entry)
    if version not in HEADERS:
        raise ValueError(f"npy of version {version}, expected 1.0 or 2.0")
    shape, by_columns, dtype = HEADERS[version](entry)
    if dtype == np.dtype("V2"):  # numpy writes bfloat16 without its name
        dtype = np.dtype(jnp.bfloat16)
    elif dtype.kind not in "biuf" or dtype.subdtype:
        raise ValueError(f"an array of {dtype}, where numbers were expected")
    content = entry.read()
    if math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"an array {dtype}{list(shape)} in {len(content):,} bytes")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if by_columns else "C")


def read_npz(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict]:
    """Reads an npz file.

    bfloat16, which numpy writes as two nameless bytes, is restored. Arrays of objects, which would
    need a pickle, and archives that state impossible sizes are refused.

    Args:
        path: the file.

    Returns:
        Read-only arrays by name, and an empty card.

    Raises:
        ValueError: if the file is damaged or refused.

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
