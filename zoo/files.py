"""Atomic writes and the cache folder."""

import contextlib
import os
import pathlib
import secrets
from collections.abc import Iterator


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path that replaces `path` when the block ends without an error.

    A reader sees the old file or the complete new one, never a part of it. The temporary file lies
    in the same folder and is removed if the block raises.

    Args:
        path: the file to write.

    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "words.txt")
    >>> with atomic_write(path) as temporary:
    ...     _ = temporary.write_text("complete")
    >>> path.read_text(), os.listdir(path.parent)
    ('complete', ['words.txt'])
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def cache_folder() -> pathlib.Path:
    """Returns the folder for downloads, prepared data and compiled programs.

    It is `$FLAX_ZOO_CACHE`, else `flax-zoo` in `$XDG_CACHE_HOME`, else `~/.cache/flax-zoo`.

    >>> cache_folder().is_absolute()
    True
    """
    if folder := os.environ.get("FLAX_ZOO_CACHE"):
        return pathlib.Path(folder).expanduser().absolute()
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home, "flax-zoo").absolute()
