"""A download cache with verified, complete files."""

import contextlib
import hashlib
import os
import pathlib
import re
import sys
import urllib.parse
from collections.abc import Iterator
from typing import Any

from zoo.files import cache_folder
from zoo.weights.download import download_with_retries
from zoo.weights.readers import describe_format

try:
    import fcntl
except ImportError:  # on Windows two processes may both download a file
    fcntl = None

MAX_DOWNLOAD_BYTES = 16 * 2**30  # ViT-H/14 in float32 takes 2.5e9
HUB_URL = "https://huggingface.co"
HASHED_URL = re.compile(  # file names that contain the start of their sha256
    r"https://(?:download\.pytorch\.org|github\.com/akamaster)/.*-([0-9a-f]{8,64})\.(?:pth|th)$"
)
ERROR_PAGE_STARTS = (
    b"<!doctype html",
    b"<html",
    b"version https://git-lfs",
)  # sent by servers instead of a file


def hub_url(source: str) -> str:
    """Converts `hf://ORG/REPO[/FILE]` to its https address; FILE defaults to model.safetensors.

    >>> hub_url("hf://timm/resnet50.a1_in1k")
    'https://huggingface.co/timm/resnet50.a1_in1k/resolve/main/model.safetensors'
    """
    organization, _, path = source.removeprefix("hf://").partition("/")
    repository, _, file = path.partition("/")
    if not organization or not repository:
        raise ValueError(f"expected hf://ORG/REPO or hf://ORG/REPO/FILE, got {source}")
    return f"{HUB_URL}/{organization}/{repository}/resolve/main/{file or 'model.safetensors'}"


def cache_path(url: str, cache: str | os.PathLike | None = None) -> pathlib.Path:
    """Returns the path of a URL's file in the cache: CACHE/HOST/PATH.

    A user can place a file there by hand.

    >>> cache_path("https://download.pytorch.org/models/resnet50-11ad3fa6.pth", "cache").as_posix()
    'cache/download.pytorch.org/models/resnet50-11ad3fa6.pth'
    """
    parts = urllib.parse.urlsplit(url)
    words = [parts.netloc.rpartition("@")[2], *urllib.parse.unquote(parts.path).split("/")]
    if parts.query:  # it may be long and contain characters that a file name cannot
        words[-1] += "-" + hashlib.sha256(parts.query.encode()).hexdigest()[:8]
    words = [re.sub(r"[^\w.=+@-]", "_", word) for word in words if word not in ("", ".", "..")]
    if parts.scheme not in ("http", "https") or len(words) < 2:
        raise ValueError(f"expected https://HOST/FILE or hf://ORG/REPO, got {url}")
    return pathlib.Path(cache_folder() if cache is None else cache, *words)


def is_same_file(file: Any, path: pathlib.Path) -> bool:
    """Returns whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def exclusive_lock(lock_file: pathlib.Path, message: str) -> Iterator[Any]:
    """Opens a lock file exclusively; other processes wait until it is closed."""
    while True:
        with open(os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    print(f"waiting for another process that fetches {message}", file=sys.stderr)
                    fcntl.flock(file, fcntl.LOCK_EX)
            if is_same_file(
                file, lock_file
            ):  # the process that held the lock may have renamed or deleted it
                yield file
                return


def verify_sha256(file: Any, sha256: str | None) -> None:
    """Raises ValueError unless the sha256 starts with the given digits; None skips the check."""
    file.seek(0)
    head = file.read(512).lstrip().lower()
    if not head or head.startswith(ERROR_PAGE_STARTS):
        raise ValueError(f"it is {describe_format(head)}; the file was deleted")
    file.seek(0)
    if sha256 is not None:
        got = hashlib.file_digest(file, "sha256").hexdigest()
        if not got.startswith(sha256.lower()):
            raise ValueError(
                f"expected sha256 {sha256}, got {got[: len(sha256)]}; the file was deleted"
            )


def download_verified(url: str, path: pathlib.Path, *, sha256: str | None, limit: int) -> None:
    """Downloads to `path` through a partial file that a later attempt can continue."""
    partial = path.with_name(f"{path.name}.part" if fcntl else f"{path.name}.{os.getpid()}.part")
    with exclusive_lock(partial, url) as file:
        if path.is_file():  # downloaded by the process that held the lock
            partial.unlink()
            return
        try:
            hub_sha256 = download_with_retries(url, file, path=path, limit=limit)
            verify_sha256(file, sha256 or hub_sha256)
        except ValueError as error:
            partial.unlink()
            raise ValueError(f"{url}: {error}") from error
        except FileNotFoundError:
            if not file.seek(0, os.SEEK_END):
                partial.unlink()
            raise
        file.flush()
        os.fsync(file.fileno())
        if fcntl is None:
            file.close()
        os.replace(partial, path)


def fetch(
    url: str,
    *,
    sha256: str | None = None,
    cache: str | os.PathLike | None = None,
    limit: int = MAX_DOWNLOAD_BYTES,
) -> pathlib.Path:
    """Returns the cached file of an address, and downloads it if needed.

    A file in the cache needs no network. A download shows a progress line on a terminal. If the
    server stalls or disconnects, the rest is requested again, in this process or the next; two
    processes do not disturb each other.

    Args:
        url: `https://...` or `hf://ORG/REPO/FILE`.
        sha256: the sha256 or at least its first 8 digits. Hashes that the hub or the file name
            states are checked as well.
        cache: cache folder; `zoo.files.cache_folder()` if not given.
        limit: maximum number of bytes.

    Returns:
        Path of the file.

    Raises:
        ValueError: if the file has another hash, exceeds the limit, or is a web page; it is
            deleted.
        FileNotFoundError: if the address has no file or cannot be reached; the message names the
            path where the file can be placed by hand.

    Source: RFC 9110, section 14, for range requests.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as cache:
    ...     path = cache_path("https://example.org/lenet.safetensors", cache)
    ...     path.parent.mkdir()
    ...     _ = path.write_bytes(b"placed by hand")
    ...     fetch("https://example.org/lenet.safetensors", cache=cache) == path
    True
    """
    url = hub_url(url) if url.startswith("hf://") else url
    path = cache_path(url, cache)
    named = HASHED_URL.match(url)
    sha256 = named[1] if sha256 is None and named else sha256
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{8,64}", sha256):
        raise ValueError(f"expected a sha256 of 8 to 64 hexadecimal digits, got {sha256!r}")
    if path.is_file():
        try:
            with path.open("rb") as file:
                verify_sha256(file, sha256)
        except ValueError as error:
            path.unlink(missing_ok=True)
            raise ValueError(f"{path}: {error}") from error
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    download_verified(url, path, sha256=sha256, limit=limit)
    return path
