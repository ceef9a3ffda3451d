"""Reading and writing of videos. Only this module imports PyAV."""

import contextlib
import pathlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from zoo.files import atomic_write

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")
TIME_BASE = Fraction(1, 90_000)  # seconds per tick of written files


def is_video(file: str) -> bool:
    """Returns whether a file has the suffix of a video.

    >>> is_video("a/B.MP4"), is_video("a.png")
    (True, False)
    """
    return file.lower().endswith(VIDEO_SUFFIXES)


def import_pyav() -> Any:
    """Imports PyAV; raises ValueError if it is not installed."""
    try:
        import av
    except ImportError as error:
        raise ValueError(
            "videos are read by PyAV, which is not installed: pip install 'flax-zoo[video]'"
        ) from error
    return av


@contextlib.contextmanager
def av_errors(file: str) -> Iterator[None]:
    """Turns PyAV's errors about a file into a ValueError of one line."""
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
    """Yields the container and the first video stream of a file."""
    if not pathlib.Path(file).is_file():
        raise ValueError(f"no file {file}; expected a video")
    with av_errors(file), import_pyav().open(file) as container:
        if not container.streams.video:
            raise ValueError(f"{file}: there is no video in it")
        yield container, container.streams.video[0]


def rotate_upright(frame: Any) -> np.ndarray:
    """Converts a decoded frame to [h, w, 3] uint8, rotated as the file's metadata requires."""
    quarter_turns = round(frame.rotation / 90)  # counterclockwise
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), quarter_turns))


def iter_frames(file: str) -> Iterator[tuple[np.ndarray, float]]:
    """Yields the frames of a video with their times in seconds, one at a time.

    Args:
        file: the video.

    Yields:
        Frame [h, w, 3] of uint8, rotated upright, and its time.

    Raises:
        ValueError: if the file cannot be read or has no frame.
    """
    with open_video(file) as (container, stream):
        stream.thread_type = "AUTO"
        rate, number = float(stream.average_rate or 25), None
        for number, frame in enumerate(container.decode(stream)):
            yield rotate_upright(frame), number / rate if frame.time is None else float(frame.time)
    if number is None:
        raise ValueError(f"{file}: there is no frame in it")


class FrameIndex(NamedTuple):
    """Number and positions of the frames of a file.

    Attributes:
        count: number of frames.
        rate: mean frames per second.
        times: ticks of the frames in ascending order [N]; None if the container lacks them (AVI).
        keys: ticks of the key frames.
    """

    count: int
    rate: float
    times: np.ndarray | None
    keys: np.ndarray


def index_frames(file: str) -> FrameIndex:
    """Indexes the frames of a video by reading its packets, without decoding.

    Args:
        file: the video.

    Returns:
        The index.

    Raises:
        ValueError: if the file cannot be read or has no frame.
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
    # AVI has no presentation times; those that the decoder guesses are not in order.
    if form == "avi" or any(pts is None for pts, _ in packets):
        return FrameIndex(len(packets), rate, None, np.zeros(0, np.int64))
    times = np.unique([pts for pts, _ in packets])
    if len(times) < len(packets):
        return FrameIndex(len(packets), rate, None, np.zeros(0, np.int64))
    return FrameIndex(len(times), rate, times, np.unique([pts for pts, key in packets if key]))


def read_frames(
    file: str, indices: Sequence[int], *, frame_index: FrameIndex | None = None
) -> Iterator[np.ndarray]:
    """Yields the frames of a video at ascending indices, one at a time.

    Index n is the n-th frame of decoding the complete file, whatever the times between frames. The
    function seeks to the key frame before each index if the file has times, and decodes from the
    start otherwise. An index may repeat. If a file ends before its packets claim, its last frame
    replaces the missing ones.

    Args:
        file: the video.
        indices: frame indices in ascending order.
        frame_index: the result of `index_frames`, if available.

    Yields:
        Frames [h, w, 3] of uint8.

    Raises:
        ValueError: if an index does not exist or a frame cannot be decoded.
    """
    entries = frame_index or index_frames(file)
    targets = [int(index) for index in indices]
    if targets != sorted(targets):
        raise ValueError(f"{file}: frames are read in ascending order; got {targets!s:.80}")
    if targets and not 0 <= targets[0] <= targets[-1] < entries.count:
        raise ValueError(f"{file}: it has {entries.count} frames, so none is {targets!s:.80}")
    done = 0
    if entries.times is not None:
        with open_video(file) as (container, stream):
            for frame in seek_frames(container, stream, targets, entries.times, entries.keys):
                yield rotate_upright(frame)
                done += 1
    if done < len(targets):
        yield from decode_frames(file, targets[done:])


def seek_frames(
    container: Any, stream: Any, indices: Sequence[int], times: np.ndarray, keys: np.ndarray
) -> Iterator[Any]:
    """Yields the frames at `indices`; ends early if decoding does not give the expected time."""
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
    """Yields the frames at `indices` by decoding all frames before them."""
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
    """Yields a function write(frame, seconds) that writes an H.264 MP4 file, atomically.

    Frames [h, w, 3] of uint8 have one size; an odd last row or column is dropped, as H.264
    requires.

    Args:
        path: the file.

    Yields:
        The function.
    """
    av = import_pyav()
    last = -1
    with (
        atomic_write(path) as temporary,
        av_errors(str(path)),
        av.open(str(temporary), "w", format="mp4") as container,
    ):
        stream = container.add_stream("libx264", options={"crf": "20"})
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = TIME_BASE

        def write(pixels: np.ndarray, second: float) -> None:
            nonlocal last
            height, width = (side - side % 2 for side in pixels.shape[:2])
            if last < 0:
                stream.height, stream.width = height, width
            frame = av.VideoFrame.from_ndarray(pixels[:height, :width].copy(), format="rgb24")
            last = max(last + 1, round(second / TIME_BASE))  # times must increase
            frame.pts, frame.time_base = last, TIME_BASE
            container.mux(stream.encode(frame))

        yield write
        if last >= 0:
            container.mux(stream.encode())
