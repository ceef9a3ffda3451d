"""Video files frame by frame: the one place that has PyAV."""

import contextlib
import pathlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")
TIME_BASE = Fraction(1, 90_000)  # of a second, of the times of frames that are written


def is_video(file: str) -> bool:
    """Whether a file is called as videos are.

    >>> is_video("a/B.MP4"), is_video("a.png")
    (True, False)
    """
    return file.lower().endswith(VIDEO_SUFFIXES)


def import_pyav() -> Any:
    """PyAV; ValueError where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise ValueError(
            "videos are read by PyAV, which is not installed: pip install 'flax-zoo[video]'"
        ) from error
    return av


@contextlib.contextmanager
def av_errors(file: str) -> Iterator[None]:
    """Whatever PyAV says of a file becomes a ValueError of one line."""
    av = import_pyav()
    try:
        yield
    except av.error.EOFError as error:
        raise ValueError(f"{file}: there is no frame in it") from error
    except av.error.FFmpegError as error:
        reason = " ".join(str(error.strerror or error).split())
        raise ValueError(f"{file}: {reason}") from error


@contextlib.contextmanager
def open_video(file: str) -> Iterator[tuple[Any, Any]]:
    """A video file -> its container and its first video stream; ValueError in one line without one."""
    if not pathlib.Path(file).is_file():
        raise ValueError(f"no file {file}: expected a video")
    with av_errors(file), import_pyav().open(file) as container:
        if not container.streams.video:
            raise ValueError(f"{file}: there is no video in it")
        yield container, container.streams.video[0]


def rotate_upright(frame: Any) -> np.ndarray:
    """A decoded frame -> [h, w, 3] uint8, turned as the file says."""
    turns = round(frame.rotation / 90)  # against the clock
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))


def iter_frames(file: str) -> Iterator[tuple[np.ndarray, float]]:
    """A video file -> its frames, uint8 [h, w, 3], and the second that each begins at.

    One at a time. Upright as the file says. ValueError in one line where it cannot be read or has
    none.
    """
    with open_video(file) as (container, stream):
        stream.thread_type = "AUTO"
        rate, number = float(stream.average_rate or 25), None
        for number, frame in enumerate(container.decode(stream)):
            yield rotate_upright(frame), number / rate if frame.time is None else float(frame.time)
    if number is None:
        raise ValueError(f"{file}: there is no frame in it")


class FrameIndex(NamedTuple):
    """How many frames a file has, its mean rate in frames a second, and where they lie.

    times [N]: the ticks of the frames, ascending; None where a container does not tell them (AVI).
    keys: the ticks at which decoding can begin.
    """

    count: int
    rate: float
    times: np.ndarray | None
    keys: np.ndarray


def index_frames(file: str) -> FrameIndex:
    """What a video file holds; reads its packets and decodes nothing.

    ValueError in one line where it cannot be read or has no frame.
    """
    with open_video(file) as (container, stream):
        packets = [
            (packet.pts, packet.is_keyframe)
            for packet in container.demux(stream)
            if packet.size and not packet.is_discard
        ]
        rate, form = float(stream.average_rate or 25), container.format.name
    if not packets:
        raise ValueError(f"{file}: there is no frame in it")
    # AVI has no times of presentation: those that the decoder guesses come in any order.
    if form == "avi" or any(pts is None for pts, _ in packets):
        return FrameIndex(len(packets), rate, None, np.zeros(0, np.int64))
    times = np.unique([pts for pts, _ in packets])
    if len(times) < len(packets):
        return FrameIndex(len(packets), rate, None, np.zeros(0, np.int64))
    return FrameIndex(len(times), rate, times, np.unique([pts for pts, key in packets if key]))


def read_frames(
    file: str, indices: Sequence[int], *, frame_index: FrameIndex | None = None
) -> Iterator[np.ndarray]:
    """The frames [h, w, 3] uint8 of a video file at ascending indices, one at a time.

    Index n is the n-th frame that decoding the whole file gives, whatever the times between frames.
    Jumps to the key frame before each, where the file tells times, and else decodes from the start;
    one frame is held at a time. `frame_index` saves the survey. An index may come again. A file that
    ends before its packets have said so gives its last frame for what is missing.

    ValueError in one line: no such frame, no frame at all, what cannot be decoded.
    """
    found = frame_index or index_frames(file)
    wanted = [int(index) for index in indices]
    if wanted != sorted(wanted):
        raise ValueError(f"{file}: frames are read in ascending order; got {wanted!s:.80}")
    if wanted and not 0 <= wanted[0] <= wanted[-1] < found.count:
        raise ValueError(f"{file}: it has {found.count} frames, so none is {wanted!s:.80}")
    done = 0
    if found.times is not None:
        with open_video(file) as (container, stream):
            for frame in seek_frames(container, stream, wanted, found.times, found.keys):
                yield rotate_upright(frame)
                done += 1
    if done < len(wanted):
        yield from decode_frames(file, wanted[done:])


def seek_frames(
    container: Any, stream: Any, indices: Sequence[int], times: np.ndarray, keys: np.ndarray
) -> Iterator[Any]:
    """The frames at `indices`; ends early where decoding does not give a frame of the time expected."""
    at, frame, stream_of = -1, None, container.decode(stream)
    for index in indices:
        before = keys[keys <= times[index]]
        begin = int(np.searchsorted(times, before[-1])) if len(before) else 0
        if begin > at + 1:
            container.seek(int(times[begin]), stream=stream, backward=True)
            stream_of = container.decode(stream)
        if index != at:
            frame = next((f for f in stream_of if f.pts is None or f.pts >= times[index]), None)
        if frame is None or frame.pts != times[index]:
            return
        at = index
        yield frame


def decode_frames(file: str, indices: Sequence[int]) -> Iterator[np.ndarray]:
    """The frames at `indices`, by decoding all before them."""
    done, frame = 0, None
    with open_video(file) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            while done < len(indices) and indices[done] == number:
                yield rotate_upright(frame)
                done += 1
            if done == len(indices):
                return
        if frame is None:
            raise ValueError(f"{file}: there is no frame in it that can be decoded")
        for _ in indices[done:]:
            yield rotate_upright(frame)


@contextlib.contextmanager
def video_writer(path: pathlib.Path) -> Iterator[Any]:
    """-> write(frame [h, w, 3] uint8, second): an H.264 MP4 file, whole or not at all.

    Frames are of one size, of which an odd last row or column is left out, as H.264 wants it.
    """
    av = import_pyav()
    temporary = path.with_name(f".{path.name}")
    last = -1
    try:
        with av_errors(str(path)), av.open(str(temporary), "w", format="mp4") as container:
            stream = container.add_stream("libx264", options={"crf": "20"})
            stream.pix_fmt = "yuv420p"
            stream.time_base = stream.codec_context.time_base = TIME_BASE

            def write(pixels: np.ndarray, second: float) -> None:
                nonlocal last
                height, width = (side - side % 2 for side in pixels.shape[:2])
                if last < 0:
                    stream.height, stream.width = height, width
                frame = av.VideoFrame.from_ndarray(pixels[:height, :width].copy(), format="rgb24")
                last = max(last + 1, round(second / TIME_BASE))  # times rise
                frame.pts, frame.time_base = last, TIME_BASE
                container.mux(stream.encode(frame))

            yield write
            if last >= 0:
                container.mux(stream.encode())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
