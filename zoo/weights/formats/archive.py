"""Zip archives whose claims are checked before anything is read out of them."""

import contextlib
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator

MAX_INFLATION = 20  # times the archive's own size, which entries may claim to unpack to,
SPARE_BYTES = 64 * 2**20  # and bytes beside that: small archives of zeros shrink a thousandfold
MAX_DIRECTORY_BYTES = 8 * 2**20  # bytes of the central directory: a hundred thousand entries


class Reader(io.BufferedReader):
    """A file that hands out no more than DIRECTORY bytes at once until it is trusted.

    zipfile reads the whole central directory at once, and holds some ten times as much for it.
    """

    trusted = False

    def read(self, size: int | None = -1, /) -> bytes:
        if not self.trusted and size is not None and size > MAX_DIRECTORY_BYTES:
            raise ValueError(f"its list of entries takes {size:,} bytes")
        return super().read(size)


@contextlib.contextmanager
def open_archive(path: str | os.PathLike) -> Iterator[zipfile.ZipFile]:
    """Path of a zip archive to the archive, open while the `with` block runs.

    A ValueError that names the file where the archive is damaged or encrypted, where stored
    entries claim more bytes than the file has, or packed ones more than 20 times as many and
    64 MiB; and for every ValueError of the block.

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
        except (NotImplementedError, RuntimeError) as error:  # an unknown packing; a password
            raise ValueError(f"{path}: cannot be unpacked ({error!s:.200})") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
