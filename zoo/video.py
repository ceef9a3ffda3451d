"""Video files frame by frame: the one place that has PyAV."""

import contextlib
import pathlib
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

ENDINGS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")
TICK = Fraction(1, 90_000)  # of a second, of the times of frames that are written


def is_video(file: str) -> bool:
    """Whether a file is called as videos are.

    >>> is_video("a/B.MP4"), is_video("a.png")
    (True, False)
    """
    return file.lower().endswith(ENDINGS)


def pyav() -> Any:
    """PyAV; ValueError where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise ValueError(
            "videos are read by PyAV, which is not installed: pip install 'flax-zoo[video]'"
        ) from error
    return av


@contextlib.contextmanager
def told(file: str) -> Iterator[None]:
    """Whatever PyAV says of a file becomes a ValueError of one line."""
    av = pyav()
    try:
        yield
    except av.error.FFmpegError as error:
        reason = " ".join(str(error.strerror or error).split())
        raise ValueError(f"{file}: {reason}") from error


def frames(file: str) -> Iterator[tuple[np.ndarray, float]]:
    """A video file -> its frames, uint8 [h, w, 3], and the second that each begins at.

    One at a time. Upright as the file says. ValueError in one line where it cannot be read.
    """
    if not pathlib.Path(file).is_file():
        raise ValueError(f"no file {file}: expected a video")
    av = pyav()
    with told(file), av.open(file) as container:
        if not container.streams.video:
            raise ValueError(f"{file}: there is no video in it")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        rate = float(stream.average_rate or 25)
        for number, frame in enumerate(container.decode(stream)):
            turns = round(frame.rotation / 90)  # against the clock
            pixels = np.rot90(frame.to_ndarray(format="rgb24"), turns)
            yield (
                np.ascontiguousarray(pixels),
                number / rate if frame.time is None else float(frame.time),
            )


@contextlib.contextmanager
def writer(path: pathlib.Path) -> Iterator[Any]:
    """-> write(frame [h, w, 3] uint8, second): an H.264 MP4 file, whole or not at all.

    Frames are of one size, of which an odd last row or column is left out, as H.264 wants it.
    """
    av = pyav()
    temporary = path.with_name(f".{path.name}")
    last = -1
    try:
        with told(str(path)), av.open(str(temporary), "w", format="mp4") as container:
            stream = container.add_stream("libx264", options={"crf": "20"})
            stream.pix_fmt = "yuv420p"
            stream.time_base = stream.codec_context.time_base = TICK

            def write(pixels: np.ndarray, second: float) -> None:
                nonlocal last
                height, width = (side - side % 2 for side in pixels.shape[:2])
                if last < 0:
                    stream.height, stream.width = height, width
                frame = av.VideoFrame.from_ndarray(pixels[:height, :width].copy(), format="rgb24")
                last = max(last + 1, round(second / TICK))  # times rise
                frame.pts, frame.time_base = last, TICK
                container.mux(stream.encode(frame))

            yield write
            if last >= 0:
                container.mux(stream.encode())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
