"""Selected frames of a video against decoding all of it; errors take one line."""

import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest

from zoo.media.video_io import index_frames, iter_frames, read_frames, seek_frames

SIZE = (48, 64)
CODECS = {"mp4": "libx264", "mkv": "libx264", "avi": "mpeg4", "webm": "libvpx", "mov": "mpeg4"}


def pictures(count, size=SIZE):
    """[N, h, w, 3] uint8: frame n carries n in eight blocks of black or white, seen through any codec."""
    height, width = size
    made = np.full((count, height, width, 3), 90, np.uint8)
    step = width // 8
    for n in range(count):
        for bit in range(8):
            made[n, :, bit * step : (bit + 1) * step] = 255 * (n >> bit & 1)
    return made


def number_of(frame):
    step = frame.shape[1] // 8
    blocks = [frame[:, b * step + 1 : (b + 1) * step - 1].mean() > 127 for b in range(8)]
    return sum(int(on) << b for b, on in enumerate(blocks))


def write(
    file, count, *, codec="libx264", size=SIZE, ticks=None, gop=12, pix_fmt="yuv420p", **options
):
    """A clip at 25 frames a second, or with a frame at each of `ticks` (of 1/1000 s)."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.gop_size = gop
        stream.options = {key: str(value) for key, value in options.items()}
        if ticks is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for n, picture in enumerate(pictures(count, size)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if ticks is not None:
                frame.pts, frame.time_base = int(ticks[n]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(file)


@pytest.mark.parametrize("ending", CODECS)
def test_indices_are_those_of_decoding_all(tmp_path, ending):
    file = write(tmp_path / f"clip.{ending}", 70, codec=CODECS[ending])
    every = [pixels for pixels, _ in iter_frames(file)]
    assert [number_of(frame) for frame in every] == list(range(70))
    assert index_frames(file).count == 70
    for wanted in ([0], [69], [3, 3, 4, 50, 51, 69, 69], range(1, 70, 11), [40, 41]):
        found = list(read_frames(file, wanted))
        np.testing.assert_array_equal(found, [every[n] for n in wanted])


def test_indices_are_exact_where_the_times_between_frames_vary(tmp_path):
    ticks = np.cumsum(np.random.default_rng(0).integers(5, 300, 60)) - 5
    for ending in ("mp4", "mkv"):
        file = write(tmp_path / f"uneven.{ending}", 60, ticks=ticks, gop=7, bf=2)
        known = index_frames(file)
        seconds = np.array([second for _, second in iter_frames(file)])
        np.testing.assert_allclose(seconds - seconds[0], (ticks - ticks[0]) / 1000, atol=2e-3)
        wanted = [2, 17, 18, 33, 58]
        found = [number_of(frame) for frame in read_frames(file, wanted, frame_index=known)]
        assert found == wanted and known.count == 60 and len(known.keys) > 4


def test_jumping_decodes_few_frames_and_holds_one(tmp_path):
    large = (240, 320)
    file = write(tmp_path / "long.mp4", 250, size=large, gop=10, preset="ultrafast")
    known = index_frames(file)
    assert len(known.keys) >= 25
    decoded = []
    with av.open(file) as container:
        stream = container.streams.video[0]

        class Counted:
            def decode(self, which):
                for frame in container.decode(which):
                    decoded.append(frame.pts)
                    yield frame

            seek = staticmethod(container.seek)

        found = list(seek_frames(Counted(), stream, [100, 245], known.times, known.keys))
    assert len(found) == 2 and len(decoded) <= 30
    tracemalloc.start()
    seen = [number_of(frame) for frame in read_frames(file, range(250), frame_index=known)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seen == list(range(250)) and peak < 20 * 240 * 320 * 3


SHAPES = {
    "odd": dict(size=(49, 65), codec="mpeg4", ending="avi"),
    "portrait": dict(size=(64, 48), codec="libx264", ending="mp4"),
    "gray": dict(size=(48, 64), codec="ffv1", ending="mkv", pix_fmt="gray"),
    "one frame": dict(size=(48, 64), codec="libx264", ending="mp4", count=1),
}


@pytest.mark.parametrize("name", SHAPES)
def test_sizes_and_colors(tmp_path, name):
    case = {"count": 9, **SHAPES[name]}
    file = write(tmp_path / f"clip.{case.pop('ending')}", case.pop("count"), **case)
    last = index_frames(file).count - 1
    (frame,) = read_frames(file, [last])
    assert frame.shape == (*SHAPES[name]["size"], 3) and number_of(frame) == last


BROKEN = {
    "text": b"this is no video at all, whatever its name says",
    "nothing": b"",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_video_is_one_line_that_names_it(tmp_path, name):
    file = tmp_path / "broken.mp4"
    file.write_bytes(BROKEN[name])
    for read in (index_frames, lambda f: list(read_frames(f, [0])), lambda f: list(iter_frames(f))):
        with pytest.raises(ValueError, match=f"^{file}: ") as caught:
            read(str(file))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ending", "says"),
    [("avi", "no frame in it"), ("mp4", "no video in it"), ("mkv", "no frame in it")],
)
def test_a_container_without_frames_is_one_line(tmp_path, ending, says):
    file = tmp_path / f"bare.{ending}"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        container.start_encoding()
    for read in (index_frames, lambda f: list(read_frames(f, [0])), lambda f: list(iter_frames(f))):
        with pytest.raises(ValueError, match=f"^{file}: there is {says}$"):
            read(str(file))


@pytest.mark.parametrize("ending", ["mp4", "avi", "mkv", "front.mp4"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_cut_file_gives_what_is_there_or_one_line(tmp_path, ending, share):
    options = {"movflags": "faststart"} if ending == "front.mp4" else {}
    whole = tmp_path / f"whole.{ending}"
    with av.open(str(whole), "w", options=options) as container:
        stream = container.add_stream(CODECS[ending[-3:]], rate=25)
        stream.height, stream.width = SIZE
        for picture in pictures(60):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    file = tmp_path / f"cut.{ending}"
    file.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    try:
        known = index_frames(str(file))
        found = [
            number_of(f) for f in read_frames(str(file), range(known.count), frame_index=known)
        ]
    except ValueError as error:
        assert str(error).startswith(f"{file}: ") and "\n" not in str(error)
        return
    assert share > 0.02 and len(found) == known.count > 5
    assert found[:-3] == list(range(len(found) - 3)) and found == sorted(found)


def test_what_cannot_be_read_is_one_line(tmp_path):
    file = write(tmp_path / "clip.mp4", 5)
    for wanted, says in (([5], "it has 5 frames"), ([2, 1], "ascending"), ([-1], "5 frames")):
        with pytest.raises(ValueError, match=f"^{file}: .*{says}"):
            list(read_frames(file, wanted))
    with pytest.raises(ValueError, match="no file"):
        index_frames(str(tmp_path / "none.mp4"))
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match="there is no video in it"):
        index_frames(str(tmp_path / "sound.mp4"))
