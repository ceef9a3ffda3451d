"""A cache of downloads: verified, and there whole or not at all."""

import contextlib
import hashlib
import os
import pathlib
import re
import sys
import urllib.parse
from collections.abc import Iterator
from typing import Any

from zoo.weights.download import download_with_retries
from zoo.weights.readers import describe_format

try:
    import fcntl
except ImportError:  # Windows: two processes then download a file of their own each
    fcntl = None

MAX_DOWNLOAD_BYTES = 16 * 2**30  # bytes; ViT-H/14 in float32 takes 2.5e9
HUB_URL = "https://huggingface.co"
HASHED_URL = re.compile(  # files that are named by the start of their sha256
    r"https://(?:download\.pytorch\.org|github\.com/akamaster)/.*-([0-9a-f]{8,64})\.(?:pth|th)$"
)
ERROR_PAGE_STARTS = (
    b"<!doctype html",
    b"<html",
    b"version https://git-lfs",
)  # what servers send instead


def hub_url(source: str) -> str:
    """`hf://ORG/REPO` or `hf://ORG/REPO/FILE` to its https address (FILE: model.safetensors).

    >>> hub_url("hf://timm/resnet50.a1_in1k")
    'https://huggingface.co/timm/resnet50.a1_in1k/resolve/main/model.safetensors'
    """
    organization, _, rest = source.removeprefix("hf://").partition("/")
    repository, _, file = rest.partition("/")
    if not organization or not repository:
        raise ValueError(f"expected hf://ORG/REPO or hf://ORG/REPO/FILE, got {source}")
    return f"{HUB_URL}/{organization}/{repository}/resolve/main/{file or 'model.safetensors'}"


def cache_folder() -> pathlib.Path:
    """FLAX_ZOO_CACHE, or flax-zoo in XDG_CACHE_HOME or in ~/.cache."""
    if own := os.environ.get("FLAX_ZOO_CACHE"):
        return pathlib.Path(own).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home, "flax-zoo")


def cache_path(url: str, cache: str | os.PathLike | None = None) -> pathlib.Path:
    """Where a URL's file stands in the cache: CACHE/HOST/PATH, so that a person can put it there.

    >>> cache_path("https://download.pytorch.org/models/resnet50-11ad3fa6.pth", "cache").as_posix()
    'cache/download.pytorch.org/models/resnet50-11ad3fa6.pth'
    """
    parts = urllib.parse.urlsplit(url)
    words = [parts.netloc.rpartition("@")[2], *urllib.parse.unquote(parts.path).split("/")]
    if parts.query:  # which may be long, and no name of a file
        words[-1] += "-" + hashlib.sha256(parts.query.encode()).hexdigest()[:8]
    words = [re.sub(r"[^\w.=+@-]", "_", word) for word in words if word not in ("", ".", "..")]
    if parts.scheme not in ("http", "https") or len(words) < 2:
        raise ValueError(f"expected https://HOST/FILE or hf://ORG/REPO, got {url}")
    return pathlib.Path(cache_folder() if cache is None else cache, *words)


def is_same_file(file: Any, path: pathlib.Path) -> bool:
    """Whether an open file is still the one that stands at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def exclusive_lock(lock_file: pathlib.Path, message: str) -> Iterator[Any]:
    """Opens `lock_file`, made if need be, for this process alone; others wait until it is closed."""
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
            ):  # not renamed or deleted by the process that was waited for
                yield file
                return


def verify_sha256(file: Any, sha256: str | None) -> None:
    """ValueError unless the file is what its sha256, or the start of it, says; None says nothing."""
    file.seek(0)
    head = file.read(512).lstrip().lower()
    if not head or head.startswith(ERROR_PAGE_STARTS):
        raise ValueError(f"it is {describe_format(head)}; it is deleted")
    file.seek(0)
    if sha256 is not None:
        got = hashlib.file_digest(file, "sha256").hexdigest()
        if not got.startswith(sha256.lower()):
            raise ValueError(f"sha256 expected {sha256}, got {got[: len(sha256)]}; it is deleted")


def download_verified(url: str, path: pathlib.Path, *, sha256: str | None, limit: int) -> None:
    """Downloads to `path`, by way of a part beside it, which stays where more may come of it."""
    part = path.with_name(f"{path.name}.part" if fcntl else f"{path.name}.{os.getpid()}.part")
    with exclusive_lock(part, url) as file:
        if path.is_file():  # brought by the process that was waited for
            part.unlink()
            return
        try:
            told = download_with_retries(url, file, path=path, limit=limit)
            verify_sha256(file, sha256 or told)
        except ValueError as error:
            part.unlink()
            raise ValueError(f"{url}: {error}") from error
        except FileNotFoundError:
            if not file.seek(0, os.SEEK_END):
                part.unlink()
            raise
        file.flush()
        os.fsync(file.fileno())
        if fcntl is None:
            file.close()
        os.replace(part, path)


def fetch(
    url: str,
    *,
    sha256: str | None = None,
    cache: str | os.PathLike | None = None,
    limit: int = MAX_DOWNLOAD_BYTES,
) -> pathlib.Path:
    """A file's https address, or `hf://ORG/REPO/FILE`, to where it stands in the cache.

    What is in the cache needs no network. Else it is downloaded, with a line of progress on a
    terminal: a server that stalls or cuts off is asked again for what is missing, in this process
    or the next, and two processes never disturb each other. `sha256` (all of it, or its first 8
    digits or more) is checked, as are those that the hub and torch's file names tell; a file that
    differs is deleted: ValueError, as for one of more than `limit` bytes and for a web page that
    came instead. FileNotFoundError where the address holds nothing, or cannot be reached: then it
    says where to put the file. `cache` is FLAX_ZOO_CACHE, or flax-zoo in XDG_CACHE_HOME or
    ~/.cache.

    Source: RFC 9110, section 14, for ranges.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as cache:
    ...     path = cache_path("https://example.org/lenet.safetensors", cache)
    ...     path.parent.mkdir()
    ...     _ = path.write_bytes(b"brought here by hand")
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
