"""Zip archives whose stated sizes are checked before anything is read."""

import contextlib
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator

MAX_INFLATION = 20  # largest ratio of unpacked size to archive size,
SPARE_BYTES = 64 * 2**20  # plus this: small archives of zeros shrink a thousandfold
MAX_DIRECTORY_BYTES = 8 * 2**20  # central directory of a hundred thousand entries


class Reader(io.BufferedReader):
    """A file that limits reads to MAX_DIRECTORY_BYTES until the archive is trusted.

    zipfile reads the complete central directory at once and uses about ten times as much memory.
    """

    trusted = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads at most MAX_DIRECTORY_BYTES."""
        if not self.trusted and size is not None and size > MAX_DIRECTORY_BYTES:
            raise ValueError(f"its list of entries takes {size:,} bytes")
        return super().read(size)


@contextlib.contextmanager
def open_archive(path: str | os.PathLike) -> Iterator[zipfile.ZipFile]:
    """Opens a zip archive for the duration of a `with` block.

    Args:
        path: the archive.

    Yields:
        The archive.

    Raises:
        ValueError: if the archive is damaged or encrypted, if stored entries exceed the file, or if
            packed entries exceed 20 times its size plus 64 MiB; also for every ValueError of the
            block, with the file's name.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "short.zip")
    >>> _ = path.write_bytes(bytes.fromhex("504b0304") + bytes(40))
    >>> with open_archive(path):
    ...     pass
    Traceback (most recent call last):
    ValueError: ...short.zip: damaged or cut short (File is not a zip file)
    """
    with Reader(io.FileIO(path)) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
                stored = [e.file_size for e in entries if e.compress_type == zipfile.ZIP_STORED]
                claimed = sum(entry.file_size for entry in entries)
                if sum(stored) > size or claimed > MAX_INFLATION * size + SPARE_BYTES:
                    raise ValueError(f"claims to hold {claimed:,} bytes in a file of {size:,}")
                file.trusted = True
                yield archive
        except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, OSError) as error:
            raise ValueError(f"{path}: damaged or cut short ({error!s:.200})") from error
        except (NotImplementedError, RuntimeError) as error:  # unknown compression; a password
            raise ValueError(f"{path}: cannot be unpacked ({error!s:.200})") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
