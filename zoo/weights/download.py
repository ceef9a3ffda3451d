"""Downloads that resume where they were interrupted."""

import http.client
import os
import pathlib
import re
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

TIMEOUT_SECONDS = 20.0  # longest silence of a server
MIN_BYTES_PER_SECOND = 1024  # slower over TIMEOUT_SECONDS is a stall
MAX_ATTEMPTS = 5  # consecutive attempts without new bytes
FIRST_PAUSE_SECONDS = 1.0  # doubled after each attempt
OVERLAP_BYTES = 64 * 2**10  # fetched again on resuming, and compared
CHUNK_BYTES = 2**20
PERMANENT_STATUSES = (
    401,
    403,
    404,
    410,
    451,
)  # not retried; the hub answers 401 instead of 404


class DownloadError(Exception):
    """An attempt ended early; the bytes are kept and another attempt may continue."""


class Redirect(urllib.request.HTTPRedirectHandler):
    """Follows redirects, never from https to http, and keeps the sha256 that the hub sends."""

    sha256: str | None = None

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        """Follows a redirect to an encrypted address."""
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise ValueError(f"redirects to {newurl!r:.200}, which is not encrypted")
        etag = headers.get("X-Linked-Etag", "").strip('"')
        if re.fullmatch("[0-9a-f]{64}", etag):
            self.sha256 = etag
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def format_progress(name: str, done: int, total: int | None, *, pace: float) -> str:
    """Formats the progress line of a terminal.

    >>> format_progress("vit.pth", 250_000_000, 1_000_000_000, pace=5e6)
    'vit.pth   25 % of 1000.0 MB, 5.0 MB/s'
    """
    of = f"{done / 1e6:.1f} MB" if total is None else f"{done / total:4.0%} of {total / 1e6:.1f} MB"
    return f"{name} {of.replace('%', ' %')}, {pace / 1e6:.1f} MB/s"


def request(
    opener: urllib.request.OpenerDirector, url: str, start: int
) -> http.client.HTTPResponse:
    """Requests the bytes from `start` on; raises DownloadError if a retry may help."""
    request = urllib.request.Request(url, headers={"User-Agent": "flax-zoo"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        return opener.open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        status = f"answers {error.code} {error.reason}"
        error.close()
        if error.code in PERMANENT_STATUSES:
            raise FileNotFoundError(
                f"{url} {status}: no such file, or not for everybody"
            ) from error
        if error.code not in (408, 416, 429) and error.code < 500:
            raise ValueError(status) from error
        raise DownloadError(status) from error
    except http.client.InvalidURL as error:
        raise ValueError(str(error)) from error
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(str(getattr(error, "reason", error))) from error


def content_range(answer: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Returns the first byte and the total size that the headers state."""
    if answer.status == 206:
        span = re.match(r"bytes (\d+)-\d+/(\d+|\*)$", answer.headers.get("Content-Range", ""))
        if span is None:
            return -1, None
        return int(span[1]), None if span[2] == "*" else int(span[2])
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def read_chunks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yields the bytes as they arrive; raises DownloadError if the server stalls."""
    since, came = time.monotonic(), 0
    while True:
        try:
            chunk = answer.read1(CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise DownloadError(f"cut off ({error})") from error
        if not chunk:
            return
        yield chunk
        came += len(chunk)
        if (elapsed := time.monotonic() - since) > TIMEOUT_SECONDS:
            if came < MIN_BYTES_PER_SECOND * elapsed:
                raise DownloadError(f"{came} bytes in {elapsed:.0f} seconds")
            since, came = time.monotonic(), 0


def download_once(answer: Any, file: Any, start: int, *, name: str, limit: int) -> None:
    """Writes the bytes from `start` on after comparing the overlap with the file."""
    first, total = content_range(answer)
    if total is not None and total > limit:
        raise ValueError(f"takes {total:,} bytes, more than the limit of {limit:,}")
    if answer.status == 206 and first != start:
        file.truncate(0)
        raise DownloadError("the server sent another range than requested")
    file.seek(first)
    overlap = file.read() if first else b""
    if not first:
        file.truncate(0)
        file.seek(0)
    done, began, shown = first, time.monotonic(), 0.0
    for chunk in read_chunks(answer):
        same, overlap = overlap[: len(chunk)], overlap[len(chunk) :]
        if not chunk.startswith(same):
            file.truncate(0)
            raise DownloadError("the file changed between two attempts")
        file.write(chunk[len(same) :])
        done += len(chunk)
        if done > limit:
            raise ValueError(f"takes more than the limit of {limit:,} bytes")
        if sys.stderr.isatty() and (time.monotonic() - shown > 0.1 or done == total):
            shown = time.monotonic()
            pace = (done - first) / max(shown - began, 1e-3)
            line = format_progress(name, done, total, pace=pace)
            print(f"\r{line}\033[K", end="", file=sys.stderr, flush=True)
    if shown:
        print(file=sys.stderr)
    if total is not None and done != total:
        raise DownloadError(f"cut off after {done:,} of {total:,} bytes")


def download_with_retries(url: str, file: Any, *, path: pathlib.Path, limit: int) -> str | None:
    """Fills `file` from `url` in several attempts; returns the hub's sha256, if any."""
    redirect = Redirect()
    opener = urllib.request.build_opener(redirect)
    failures = 0
    while True:
        have = file.seek(0, os.SEEK_END)
        start = max(0, have - OVERLAP_BYTES)
        try:
            with request(opener, url, start) as answer:
                download_once(answer, file, start, name=path.name, limit=limit)
            return redirect.sha256
        except DownloadError as error:
            if "answers 416" in str(error):  # the local file is longer than the remote one
                file.truncate(0)
            came = file.seek(0, os.SEEK_END) > have
            failures = 1 if came else failures + 1
            cause = getattr(error.__cause__, "reason", error.__cause__)
            absent = isinstance(cause, socket.gaierror | ConnectionRefusedError) and not have
            if absent or failures >= MAX_ATTEMPTS:
                raise FileNotFoundError(
                    f"{url} cannot be fetched ({error}); download it by other "
                    f"means and place it at {path}"
                ) from error
        time.sleep(FIRST_PAUSE_SECONDS * 2 ** (failures - 1))
