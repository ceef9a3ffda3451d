"""What took long to compute, kept in a file."""

import logging
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping

import numpy as np

from zoo.errors import one_line
from zoo.files import atomic_write

logger = logging.getLogger("train")
Entries = Mapping[str, np.ndarray]
READ_ERRORS = (  # what zip files, their streams and numpy's headers raise
    *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, SyntaxError),
    *(NotImplementedError, struct.error, zipfile.BadZipFile, zlib.error),
)


def cached_arrays(
    file: pathlib.Path, compute: Callable[[], Entries], *, write: bool = True
) -> dict[str, np.ndarray]:
    """The arrays in the npz `file`; where there is none, or a damaged one, it is computed and written.

    Whole or not at all, whoever else writes it; `write` False only reads. Raises OSError where the
    file cannot be written.
    """
    found = read_arrays(file)
    if found is None:
        found = dict(compute())
        if write:
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as temporary, open(temporary, "wb") as stream:
                np.savez(stream, allow_pickle=False, **found)
    return found


def read_arrays(file: pathlib.Path) -> dict[str, np.ndarray] | None:
    """The arrays in a file; None where there is none that is whole."""
    try:
        with open(file, "rb") as whole, np.load(whole) as opened:
            return {name: opened[name] for name in opened.files}
    except FileNotFoundError:
        return None
    except READ_ERRORS as error:
        reason = one_line(error)
        logger.warning("%s is damaged and made anew (%s)", file, reason)
        return None
