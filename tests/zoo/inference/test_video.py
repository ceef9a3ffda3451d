"""python -m zoo predict of models of clips: which frames they see, what is printed and drawn."""

import re

import jax
import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.__main__ import main
from zoo.inference.video import clip_indices, read_clips
from zoo.media import video_io
from zoo.preprocess import Preprocessing, preprocess

SEEN = Preprocessing((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), (16, 16), crop=0.8, frames=4, stride=2)
CLASSES = ["left", "right", "up"]
Y, X = np.mgrid[0:40, 0:60] / 40
FIELDS = dict(depths=(1,), kinds=("2d",), width=4, num_classes=3)


@pytest.mark.parametrize(
    ("count", "clips", "expected"),
    [
        (7, 3, [[0, 2, 4, 6]] * 3),
        (17, 3, [[0, 2, 4, 6], [5, 7, 9, 11], [10, 12, 14, 16]]),
        (17, 1, [[5, 7, 9, 11]]),
        (5, 3, [[0, 2, 4, 4]] * 3),
        (1, 3, [[0, 0, 0, 0]] * 3),
    ],
)
def test_clips_of_a_file(count, clips, expected):
    assert clip_indices(count, SEEN, clips) == expected


@pytest.fixture(scope="module")
def run(tmp_path_factory, draw):
    folder = tmp_path_factory.mktemp("run")
    model = zoo.create_model("r3d_18", **FIELDS)
    variables = draw(model, (4, 16, 16, 3))
    extra = {"preprocessing": SEEN, "classes": CLASSES}
    zoo.save_model("r3d_18", folder / "model.safetensors", model, variables, extra=extra)
    return folder


def write(path, count):
    with video_io.video_writer(path) as frame:
        for t in range(count):
            shifted = (X + t / 10) % 1
            pixels = np.stack([255 * shifted, 200 * Y, 255 * (Y + shifted) / 2.5], -1)
            frame(pixels.astype(np.uint8), t / 10)


def test_probabilities_are_the_mean_over_clips(run, tmp_path, capsys):
    write(tmp_path / "a.mp4", 17)
    (tmp_path / "broken.mp4").write_bytes(b"no video\n" * 20)
    words = ["predict", str(tmp_path), "--weights", str(run), "--output", str(tmp_path / "out")]
    assert main([*words, "--top", "2"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "broken.mp4" in captured.err
    file, strip, *printed = captured.out.splitlines()
    assert file == str(tmp_path / "a.mp4") and strip.strip() == str(tmp_path / "out/a_strip.jpg")
    model, variables = zoo.load_model("r3d_18", run)
    whole = np.stack([pixels for pixels, _ in video_io.iter_frames(file)])
    clips = np.stack([whole[start : start + 8 : 2] for start in (0, 5, 10)])
    logits = jax.jit(model.apply)(variables, preprocess(clips, SEEN))["logits"]
    expected = np.asarray(jax.nn.softmax(logits).mean(0))
    assert len(printed) == 2
    for line, index in zip(printed, np.argsort(-expected), strict=False):
        percent, name = re.fullmatch(r" +([\d.]+) %  (\w+)", line).groups()
        assert name == CLASSES[index] and float(percent) == pytest.approx(
            100 * expected[index], abs=1.0
        )  # Pillow resizes in 8 bits
    with Image.open(tmp_path / "out/a_strip.jpg") as drawn:
        pixels = np.asarray(drawn.convert("L"), int)
    assert drawn.width >= 4 * 160 and pixels[165:].min() < 80  # words below the frames


def test_a_model_of_gray_clips_sees_gray(tmp_path):
    """Frames are gray before they are resized, by the weights of Pillow's "L"."""
    write(tmp_path / "a.mp4", 4)
    seen = SEEN._replace(mean=(0.5,), std=(0.2,), frames=2, stride=1, size=(40, 60), crop=1.0)
    clips = read_clips(str(tmp_path / "a.mp4"), seen)
    first = next(video_io.iter_frames(str(tmp_path / "a.mp4")))[0].astype(float)
    assert clips.shape == (3, 2, 40, 60, 1)
    np.testing.assert_allclose(clips[0, 0, ..., 0], first @ [0.299, 0.587, 0.114], atol=1)


def test_flow_is_not_in_a_file(tmp_path, draw, capsys):
    fields = dict(hidden=(3, 3), num_classes=2, layers=(((4, 7, 2, 0),),) * 1, normalized=(False,))
    model = zoo.create_model("two_stream_temporal_cnn_m", **fields)
    seen = Preprocessing((0.5,) * 4, (0.2,) * 4, (32, 32), frames=3)
    path = tmp_path / "a.safetensors"
    extra = {"preprocessing": seen}
    zoo.save_model("two_stream_temporal_cnn_m", path, model, draw(model, (32, 32, 4)), extra=extra)
    write(tmp_path / "a.mp4", 3)
    assert main(["predict", str(tmp_path / "a.mp4"), "--weights", str(path)]) == 2
    assert "inputs other than RGB frames" in capsys.readouterr().err
