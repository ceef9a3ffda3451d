"""python -m zoo predict for models that detect: pictures, COCO's results, videos, mistakes."""

import json
import sys
import types
from typing import final

import av
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import zoo
from zoo import registry
from zoo.__main__ import main
from zoo.canvas import Canvas, create_canvas
from zoo.cli import predict
from zoo.inference import detector
from zoo.media import image_io, video_io
from zoo.preprocess import Preprocessing
from zoo.weights.model_file import open_model

NAMES = ["red", "green", "blue"]
COLORS = np.array([[230, 20, 20], [20, 230, 20], [20, 20, 230]], np.float32) / 255
SCORES = np.array([0.4, 0.9, 0.6], np.float32)


@final
class Tiny(nn.Module):
    """The extent of each color: [B, H, W, 3] -> boxes [B, 3, 4], scores, labels, valid [B, 3]."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, image, truth=None, *, train=False):
        scores = self.param("scores", nn.initializers.zeros, (3,))
        where = jnp.abs(image[..., None, :] - COLORS[None, None, None]).max(-1) < 0.25
        sides = []
        for axis in (2, 1):
            along = where.any(3 - axis)  # [B, length, 3]
            first = jnp.argmax(along, 1)
            sides += [(first, along.shape[1] - jnp.argmax(along[:, ::-1], 1))]
        (x0, x1), (y0, y1) = sides
        boxes = jnp.stack([x0, y0, x1, y1], -1).astype(jnp.float32)
        truth = {"size": jnp.array([image.shape[1:3]])} if truth is None else truth
        limits = jnp.concatenate([truth["size"][:, ::-1]] * 2, -1).astype(jnp.float32)
        order = jnp.argsort(-scores)
        valid = where.any((1, 2))
        return {
            "stage1": image,
            "boxes": jnp.minimum(boxes, limits[:, None])[:, order],
            "scores": jnp.broadcast_to(scores, valid.shape)[:, order],
            "labels": jnp.broadcast_to(order, valid.shape).astype(jnp.int32),
            "valid": valid[:, order],
        }


CARD = dict(
    module=Tiny,
    task="detection",
    input=(96, 96, 3),
    paper="none",
    preprocessing=dict(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
)
SIDES = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, size=(64, 128), sides=(64, 120))


@pytest.fixture(autouse=True)
def family(monkeypatch):
    rows = types.SimpleNamespace(CARD=CARD, VARIANTS={"tiny": {}})
    monkeypatch.setitem(registry.FAMILIES, "tiny", rows)


def saved(path, **extra):
    variables = {"params": {"scores": SCORES}}
    zoo.save_model("tiny", path, zoo.create_model("tiny"), variables, extra=extra)
    return str(path)


def painted(height: int, width: int, *names: str) -> tuple[np.ndarray, dict[str, list[int]]]:
    """A gray image with a rectangle of each color, and their boxes."""
    image = np.full((height, width, 3), 120, np.uint8)
    boxes = {}
    for place, name in enumerate(names):
        top, left = height // 4, width * place // 3 + 2
        box = [left, top, left + width // 4, top + height // 2]
        image[box[1] : box[3], box[0] : box[2]] = 255 * COLORS[NAMES.index(name)]
        boxes[name] = box
    return image, boxes


def lines(capsys):
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err.splitlines()


@pytest.mark.parametrize("seen", [None, SIDES], ids=["stretch", "short"])
def test_boxes_are_those_of_the_file(seen, tmp_path, capsys):
    """Whatever the canvas, drawn, printed and written in the file's own pixels."""
    extra = {} if seen is None else {"preprocessing": seen}
    weights = saved(tmp_path / "w.safetensors", classes=NAMES, **extra)
    (tmp_path / "in").mkdir()
    boxes = {}
    for name, size in {"000139": (120, 300), "000285": (150, 90)}.items():
        image, boxes[int(name)] = painted(*size, "red", "green", "blue")
        Image.fromarray(image).save(tmp_path / "in" / f"{name}.png")
    out = tmp_path / "made"
    options = ["--weights", weights, "--output", str(out), "--json", str(tmp_path / "r.json")]
    assert main(["predict", str(tmp_path / "in"), *options, "--threshold", "0.5"]) == 0
    printed, errors = lines(capsys)
    assert errors == [] and printed[0] == str(tmp_path / "in" / "000139.png")
    assert printed[1] == f"  {out / '000139_boxes.jpg'}"
    assert [line.split()[:3] for line in printed[2:4]] == [
        ["90.00", "%", "green"],
        ["60.00", "%", "blue"],
    ]
    assert sorted(path.name for path in out.iterdir()) == ["000139_boxes.jpg", "000285_boxes.jpg"]
    results = json.loads((tmp_path / "r.json").read_text())
    assert [(row["image_id"], row["category_id"], row["score"]) for row in results] == [
        (number, category, score)
        for number in (139, 285)
        for category, score in ((2, 0.9), (3, 0.6))
    ]
    for row in results:
        x0, y0, x1, y1 = boxes[row["image_id"]][NAMES[row["category_id"] - 1]]
        expected = [x0, y0, x1 - x0, y1 - y0]
        np.testing.assert_allclose(row["bbox"], expected, atol=4.5)  # a pixel of the canvas


def test_compilations(tmp_path):
    """One for pictures of all sizes where they are stretched, two where they keep their shape."""
    plain = saved(tmp_path / "a.safetensors", classes=NAMES)
    kept = saved(tmp_path / "b.safetensors", classes=NAMES, preprocessing=SIDES)
    for weights, count in ((plain, 1), (kept, 2)):
        model = detector.create_detector(open_model(None, weights), weights)
        for size, names in (((50, 90), NAMES), ((90, 50), ["red"]), ((30, 30), []), ((1, 1), [])):
            found = detector.detect(model, painted(*size, *names)[0])
            assert sorted(model.classes[label] for label in found.labels) == sorted(names)
        assert model.apply.func._cache_size() == count


def test_the_canvas_of_a_card(tmp_path):
    assert create_canvas(SIDES) == Canvas((64, 128), "short", short=64, long=120)
    weights = saved(tmp_path / "w.safetensors", preprocessing=SIDES)
    model = detector.create_detector(open_model(None, weights), weights)
    assert model.canvas == create_canvas(SIDES) and model.classes[1] == "class 1"
    assert "does not name its 3 classes; pass --classes" in model.note
    plain = saved(tmp_path / "plain.safetensors")
    assert detector.create_detector(open_model(None, plain), plain).canvas == Canvas((96, 96))


def test_a_picture_with_boxes():
    """Outlines of their color where the boxes end, the first on top; small pictures grow."""
    image = np.full((60, 90, 1), 100, np.uint8)
    boxes = np.array([[10.0, 30, 50, 55], [20, 40, 80, 58]])
    colors = np.array([[200, 0, 0], [0, 0, 200]])
    drawn = np.asarray(image_io.draw_boxes(image, boxes, colors, ["a", "b " * 40]))
    assert drawn.shape == (240, 360, 3)
    assert drawn[4 * 45, 40].tolist() == [200, 0, 0] and drawn[4 * 45, 39].tolist() == [100] * 3
    assert drawn[219, 100].tolist() == [200, 0, 0] and drawn[231, 300].tolist() == [0, 0, 200]
    assert drawn[4 * 40, 199].tolist() == [200, 0, 0]  # where they cross
    plain = image_io.draw_boxes(image, np.zeros((0, 4)), np.zeros((0, 3), int), [])
    assert (np.asarray(plain) == 100).all()


def clip(path, frames, *, rate=10):
    """An MP4 of uint8 frames, by PyAV itself."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "10"})
        stream.height, stream.width = frames[0].shape[:2]
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


def test_a_video(tmp_path, capsys):
    weights = saved(tmp_path / "w.safetensors", classes=NAMES)
    shown = [NAMES[: number % 4] for number in range(7)]
    file = clip(tmp_path / "clip.mp4", [painted(90, 160, *names)[0] for names in shown])
    options = ["--weights", weights, "--output", str(tmp_path / "o"), "--json", str(tmp_path / "r")]
    assert main(["predict", file, *options]) == 0
    printed, errors = lines(capsys)
    made = tmp_path / "o" / "clip_boxes.mp4"
    assert printed == [file, f"  {made}", "  7 frames, 9 boxes"] and errors == []
    results = json.loads((tmp_path / "r").read_text())
    found = {f"{file}#{n}": sorted(names) for n, names in enumerate(shown) if names}
    by_frame = {frame: [] for frame in found}
    for row in results:
        by_frame[row["image_id"]].append(NAMES[row["category_id"] - 1])
    assert {frame: sorted(names) for frame, names in by_frame.items()} == found
    again = list(video_io.iter_frames(str(made)))
    assert len(again) == 7 and again[0][0].shape == (180, 320, 3)
    np.testing.assert_allclose([second for _, second in again], np.arange(7) / 10, atol=1e-3)
    changed = np.abs(again[3][0].astype(int) - again[0][0]).max(-1) > 60
    assert changed[45:135].any()
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["clip_boxes.mp4"]


def test_a_turned_video(tmp_path):
    """As a telephone held upright writes it: turned by a quarter with the clock for display."""
    file = clip(tmp_path / "clip.mp4", [painted(48, 80, "red")[0]])
    content = bytearray((tmp_path / "clip.mp4").read_bytes())
    matrix = content.index(b"tkhd") + 4 + 4 + 36
    one = 1 << 16
    turned = [0, one, 0, (1 << 32) - one, 0, 0, 48 * one, 0, 1 << 30]
    content[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big") for value in turned)
    (tmp_path / "clip.mp4").write_bytes(content)
    ((frame, second),) = video_io.iter_frames(file)
    assert second == 0
    expected = np.rot90(painted(48, 80, "red")[0], -1).astype(int)
    assert frame.shape == expected.shape and np.abs(frame - expected).mean() < 20


def test_hostile_files(tmp_path, capsys, monkeypatch):
    """Each is reported in one line, the valid one is predicted, and no partial file remains."""
    weights = saved(tmp_path / "w.safetensors", classes=NAMES)
    (tmp_path / "text.jpg").write_bytes(b"no image\n" * 20)
    (tmp_path / "text.mp4").write_bytes(b"no video\n" * 20)
    whole = clip(tmp_path / "cut.mp4", [painted(90, 160, "red")[0]] * 3)
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "cut.mp4").read_bytes()[:300])
    Image.fromarray(painted(40, 50, "green")[0]).save(tmp_path / "good.png")
    Image.new("L", (400_000, 1)).save(tmp_path / "thread.png")
    names = ("text.jpg", "text.mp4", "good.png", "absent.avi", "thread.png")
    files = [*(str(tmp_path / name) for name in names), whole]
    out = tmp_path / "o"
    options = ["--weights", weights, "--output", str(out), "--json", str(tmp_path / "r.json")]
    assert main(["predict", *files, *options]) == 2
    printed, errors = lines(capsys)
    assert [line for line in printed if not line.startswith(" ")] == [files[2]]
    assert len(errors) == 5
    for line, said in zip(
        errors,
        ("known kind", "text.mp4", "no file", "400000 x 1 pixels exceed the limits", "cut.mp4"),
        strict=True,
    ):
        assert said in line and line.startswith("python -m zoo: ")
    assert [path.name for path in out.iterdir()] == ["good_boxes.jpg"]
    (row,) = json.loads((tmp_path / "r.json").read_text())
    assert row["image_id"] == files[2]
    monkeypatch.setitem(sys.modules, "av", None)
    assert main(["predict", files[1], *options]) == 2
    _, (line,) = lines(capsys)
    assert line.endswith("PyAV, which is not installed: pip install 'flax-zoo[video]'")


def test_mistakes(tmp_path, capsys):
    weights = saved(tmp_path / "w.safetensors", classes=NAMES)
    tight = saved(tmp_path / "tight.safetensors", preprocessing=SIDES._replace(size=(64, 100)))
    Image.fromarray(painted(20, 60)[0]).save(tmp_path / "a.png")
    image = str(tmp_path / "a.png")
    model = zoo.create_model("lenet5_modern")
    variables = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 1)))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), variables)
    zoo.save_model("lenet5_modern", tmp_path / "lenet", model, zeros)
    detecting, classifying = ["--weights", weights], ["--weights", str(tmp_path / "lenet")]
    cases = [
        ([*detecting, "--top", "3"], "--top is for classification: tiny is for detection"),
        ([*detecting, "--flips"], "--flips is for segmentation: tiny is for detection"),
        ([*classifying, "--json", "a"], "--json is for detection: lenet5_modern is for classif"),
        ([*detecting, "--threshold", "1.5"], "expected --threshold from 0 to 1, got 1.5"),
        ([*detecting, "--threshold", "nan"], "expected --threshold from 0 to 1, got nan"),
        ([*detecting, "--json", str(tmp_path / "no" / "a")], "No such file or directory"),
        (["--weights", tight, "--classes", "none"], "no file none: expected names"),
    ]
    for options, said in cases:
        assert (
            main(["predict", image, *options, "--output", str(tmp_path / "o")][: 2 + len(options)])
            == 2
        )
        out, errors = lines(capsys)
        assert out == [] and len(errors) == 1 and said in errors[0], errors
    assert main(["predict", image, "--weights", tight]) == 2
    _, (_, line) = lines(capsys)
    assert "a.png: expected a canvas of at least 120 x 40 for an image of 60 x 20 pixels" in line


def test_json_of_nothing_and_an_interruption(tmp_path):
    with predict.coco_results_file(str(tmp_path / "a")) as write:
        write([])
    assert json.loads((tmp_path / "a").read_text()) == []
    with pytest.raises(KeyboardInterrupt), predict.coco_results_file(str(tmp_path / "b")) as write:
        write([{"image_id": 1}])
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
