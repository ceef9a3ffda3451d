"""Downloads from a server on loopback that stalls, cuts off, corrupts and answers with pages."""

import contextlib
import hashlib
import http.server
import io
import re
import socket
import threading
import time
import urllib.request
from email.message import Message

import pytest

from zoo.files import cache_folder
from zoo.pretrained import ADDRESSES
from zoo.weights import cache, download

WHOLE = bytes(range(1, 256)) * 40  # 10,200 bytes
SHA256 = hashlib.sha256(WHOLE).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers each request as the next word of the server's `plan` says; the last one stays."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        how = server.plan.pop(0) if len(server.plan) > 1 else server.plan[0]
        self.close_connection = True
        with contextlib.suppress(ConnectionError):
            if how.isdecimal():
                self.send_error(int(how))
            elif how == "redirect":
                self.send_response(302)
                self.send_header("Location", f"/elsewhere{self.path}")
                self.send_header("X-Linked-Etag", f'"{server.etag}"')
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif how == "down":
                self.send_response(302)
                self.send_header("Location", "file:///etc/passwd")
                self.end_headers()
            else:
                self.send(how)

    do_GET = answer

    def send(self, how: str) -> None:
        body = {"page": b" <!DOCTYPE html><p>Sign in", "empty": b"", "other": WHOLE[::-1]}.get(
            how, WHOLE
        )
        span = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(span[1]) if span and how != "no range" else 0
        if start >= len(body) > 0:
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            first = 0 if how == "wrong part" else start
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        if how != "no length":
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        body = bytearray(body[start:])
        if how == "corrupt":
            body[-1] ^= 1
        if how in ("cut", "stall", "dribble"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if how == "stall":
                self.server.released.wait(5)
            for byte in body[len(body) // 2 :] if how == "dribble" else b"":
                self.wfile.write(bytes([byte]))
                if self.server.released.wait(0.02):
                    return None
        else:
            self.wfile.write(body)
        return None


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def url(self, *plan: str) -> str:
        self.plan = list(plan)
        return f"http://127.0.0.1:{self.server_port}/models/net.pth"


@pytest.fixture
def server(monkeypatch):
    for name, value in dict(
        TIMEOUT_SECONDS=0.2, FIRST_PAUSE_SECONDS=0.0, MAX_ATTEMPTS=3, OVERLAP_BYTES=64
    ).items():
        monkeypatch.setattr(download, name, value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as one:
        one.asked, one.released, one.etag = [], threading.Event(), SHA256
        thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield one
        one.released.set()
        one.shutdown()
        thread.join()


def leftovers(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("plan", "asked"),
    [
        (["whole"], [None]),
        (["no length"], [None]),
        (["cut", "whole"], [None, "bytes=5036-"]),  # half of it, less the overlap of 64
        (["cut", "cut", "whole"], [None, "bytes=5036-", "bytes=7554-"]),
        (["cut"] * 6 + ["whole"], 7),  # more than ATTEMPTS, but each brought something
        (["stall", "whole"], [None, "bytes=5036-"]),
        (["dribble", "whole"], 2),
        (["cut", "no range"], [None, "bytes=5036-"]),
        (["cut", "other", "whole"], [None, "bytes=5036-", None]),  # changed meanwhile
        (["cut", "wrong part", "whole"], 3),
        (["500", "429", "whole"], [None, None, None]),
        (["redirect", "whole"], [None, None]),
        (["redirect", "cut", "redirect", "whole"], [None, None, "bytes=5036-", "bytes=5036-"]),
    ],
)
@pytest.mark.parametrize("sha256", [None, SHA256[:8]])
def test_what_comes_through(plan, asked, sha256, server, tmp_path):
    path = cache.fetch(server.url(*plan), sha256=sha256, cache=tmp_path)
    assert path.read_bytes() == WHOLE
    assert path == tmp_path / f"127.0.0.1_{server.server_port}" / "models" / "net.pth"
    assert leftovers(tmp_path) == ["net.pth"]
    assert len(server.asked) == asked if isinstance(asked, int) else server.asked == asked
    asked = len(server.asked)
    assert cache.fetch(server.url("404"), sha256=sha256, cache=tmp_path) == path  # no network now
    assert len(server.asked) == asked


@pytest.mark.parametrize(
    ("plan", "error", "message", "left"),
    [
        (["404"], FileNotFoundError, "answers 404 Not Found: no such file", []),
        (["401"], FileNotFoundError, "answers 401", []),
        (["400"], ValueError, "answers 400", []),
        (
            ["500"],
            FileNotFoundError,
            "answers 500 .*download it by other means and place it at /",
            [],
        ),
        (["cut", "stall", "500"], FileNotFoundError, "place it at", ["net.pth.part"]),
        (["page"], ValueError, "it is an HTML page", []),
        (["empty"], ValueError, "it is empty", []),
        (["down"], ValueError, "answers 302 .*file:///etc/passwd' is not allowed", []),
        (
            ["corrupt"],
            ValueError,
            f"expected sha256 {SHA256}, got [0-9a-f]{{64}}; the file was deleted",
            [],
        ),
        (["redirect", "corrupt"], ValueError, "expected sha256", []),
    ],
)
def test_what_does_not(plan, error, message, left, server, tmp_path):
    sha256 = None if plan[0] == "redirect" else SHA256  # the redirection tells it
    with pytest.raises(error, match=message) as caught:
        cache.fetch(server.url(*plan), sha256=sha256, cache=tmp_path)
    assert "\n" not in str(caught.value) and "http://127.0.0.1" in str(caught.value)
    assert leftovers(tmp_path) == left


def test_the_next_process_goes_on(server, tmp_path):
    with pytest.raises(FileNotFoundError):
        cache.fetch(server.url("cut", "500"), cache=tmp_path)
    server.asked.clear()
    assert cache.fetch(server.url("whole"), cache=tmp_path).read_bytes() == WHOLE
    assert server.asked == ["bytes=5036-"]


@pytest.mark.parametrize("held", [WHOLE, WHOLE + b"more" * 100, b"\0" * 5000, WHOLE[:30]])
def test_whatever_part_was_left(held, server, tmp_path):
    """The whole of it, more than it, a hole of zeros as a crash leaves them, a few bytes."""
    part = cache.cache_path(server.url("whole"), tmp_path).with_name("net.pth.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(held)
    assert cache.fetch(server.url("whole"), cache=tmp_path).read_bytes() == WHOLE
    assert leftovers(tmp_path) == ["net.pth"]


@pytest.mark.parametrize("how", ["whole", "no length"])
def test_limit(how, server, tmp_path):
    with pytest.raises(ValueError, match="net.pth: takes .*limit of 10,000"):
        cache.fetch(server.url(how), cache=tmp_path, limit=10_000)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("plan", [["whole"], ["corrupt", "whole"], ["cut", "whole"]])
def test_two_at_once(plan, server, tmp_path, capsys):
    """Locks are of open files, so threads meet as processes do. What one spoils the other brings."""
    url, ended = server.url(*plan), []

    def run():
        try:
            ended.append(cache.fetch(url, sha256=SHA256, cache=tmp_path).read_bytes())
        except ValueError as error:
            ended.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    good = 3 if "corrupt" in plan else 4
    assert ended.count(WHOLE) == good
    assert len(server.asked) == len(plan)
    assert leftovers(tmp_path) == ["net.pth"]
    assert set(capsys.readouterr().err.splitlines()) <= {
        f"waiting for another process that fetches {url}"
    }


def test_a_spoilt_cache(server, tmp_path):
    path = cache.fetch(server.url("whole"), sha256=SHA256, cache=tmp_path)
    path.write_bytes(WHOLE[:-1])
    with pytest.raises(ValueError, match=f"net.pth: expected sha256 {SHA256[:12]}, got .*deleted"):
        cache.fetch(server.url("whole"), sha256=SHA256[:12], cache=tmp_path)
    assert not path.exists()


def test_no_network(tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/net.pth"
    began = time.monotonic()
    with pytest.raises(FileNotFoundError, match=re.escape(url)) as caught:
        cache.fetch(url, cache=tmp_path)
    assert time.monotonic() - began < 1  # nobody is there: no second attempt
    place = cache.cache_path(url, tmp_path)
    assert str(caught.value).endswith(f"place it at {place}") and "\n" not in str(caught.value)
    place.write_bytes(WHOLE)
    assert cache.fetch(url, cache=tmp_path) == place


def test_encryption_is_kept():
    request = urllib.request.Request("https://a.org/b")
    follow = download.Redirect().redirect_request
    assert follow(request, None, 302, "Found", Message(), "https://c.org/d").full_url[-1] == "d"
    with pytest.raises(ValueError, match="redirects to 'http://c.org/d', which is not encrypted"):
        follow(request, None, 302, "Found", Message(), "http://c.org/d")


def test_progress_on_a_terminal(server, tmp_path, monkeypatch, capsys):
    class Terminal(io.StringIO):
        isatty = staticmethod(lambda: True)

    monkeypatch.setattr("sys.stderr", Terminal())
    cache.fetch(server.url("whole"), cache=tmp_path)
    shown = download.sys.stderr.getvalue()
    assert shown.startswith("\rnet.pth ") and shown.endswith("\n")
    assert "net.pth 100 % of 0.0 MB, " in shown


def test_silent_elsewhere(server, tmp_path, capsys):
    cache.fetch(server.url("whole"), cache=tmp_path)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"FLAX_ZOO_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/flax-zoo"),
        ({}, "/home/.cache/flax-zoo"),
    ],
)
def test_cache_folder(settings, expected, monkeypatch):
    for name in ("FLAX_ZOO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home", **settings}.items():
        monkeypatch.setenv(name, value)
    assert cache_folder().as_posix() == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.org/b/c.pth", "a.org/b/c.pth"),
        ("https://a.org/b/c.pth?token=1/2", "a.org/b/c.pth-744deb8f"),
        ("https://me:secret@a.org:80/c.pth", "a.org_80/c.pth"),
        ("https://a.org/../%2e%2e/%2Fetc/c%20d.pth", "a.org/etc/c_d.pth"),
        ("https://a.org/b\\..\\c.pth", "a.org/b_.._c.pth"),
    ],
)
def test_place(url, expected):
    assert cache.cache_path(url, "cache").as_posix() == f"cache/{expected}"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a.org/b", "https://a.org", "net.pth"])
def test_no_address(url, tmp_path):
    with pytest.raises(ValueError, match="expected https://HOST/FILE"):
        cache.fetch(url, cache=tmp_path)


def test_the_hub():
    assert cache.hub_url("hf://o/r/a/b.bin") == "https://huggingface.co/o/r/resolve/main/a/b.bin"
    for source in ("hf://o", "hf:///r", "hf://o/"):
        with pytest.raises(ValueError, match="expected hf://ORG/REPO"):
            cache.hub_url(source)


def test_the_hub_is_asked(server, tmp_path, monkeypatch):
    """Its first answer sends on to another host and tells the sha256."""
    server.url("redirect", "whole")
    monkeypatch.setattr(cache, "HUB_URL", f"http://127.0.0.1:{server.server_port}")
    path = cache.fetch("hf://org/repo", cache=tmp_path)
    assert path.read_bytes() == WHOLE
    assert path.as_posix().endswith("/org/repo/resolve/main/model.safetensors")


@pytest.mark.parametrize("sha256", ["abc", "z" * 64, "0" * 65])
def test_no_sha256(sha256, tmp_path):
    with pytest.raises(ValueError, match="expected a sha256 of 8 to 64"):
        cache.fetch("https://a.org/b", sha256=sha256, cache=tmp_path)


@pytest.mark.parametrize(("publisher", "ending"), [("torchvision", "pth"), ("akamaster", "th")])
def test_names_that_tell_their_sha256(publisher, ending, tmp_path):
    url = f"{ADDRESSES[publisher]}net-{SHA256[:8]}.{ending}"
    path = cache.cache_path(url, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(WHOLE)
    assert cache.fetch(url, cache=tmp_path) == path
    path.write_bytes(WHOLE[1:])
    with pytest.raises(ValueError, match=f"expected sha256 {SHA256[:8]}, got"):
        cache.fetch(url, cache=tmp_path)
