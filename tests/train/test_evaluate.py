"""python -m train evaluate: weights judged on labeled images, from the command line."""

import csv
import json
import types
from typing import final

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import zoo
from tests.zoo.media.test_video_io import write
from train.__main__ import main
from train.data import open_boxes, open_clips, open_masks, open_source
from train.metrics import detection
from zoo import registry
from zoo.canvas import Canvas
from zoo.preprocess import Preprocessing, preprocess

NAME = "softmax_regression"
CLASSES = [str(digit) for digit in range(10)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A classifier that separates digits a little: its rows are the classes' mean images."""
    card = zoo.model_card(NAME)
    train = open_source("digits")["train"]
    images = np.stack([train[i]["image"] for i in range(len(train))])
    labels = np.array([train[i]["label"] for i in range(len(train))])
    seen = card.preprocessing._replace(size=images.shape[1:3], crop=1.0)
    flat = np.asarray(preprocess(images, seen)).reshape(len(images), -1)
    means = np.stack([flat[labels == digit].mean(0) for digit in range(10)])
    model = zoo.create_model(NAME)
    shape = jax.ShapeDtypeStruct((1, *images.shape[1:]), np.float32)
    ((path, dense),) = jax.eval_shape(model.init, jax.random.key(0), shape)["params"].items()
    assert dense["kernel"].shape == means.T.shape
    variables = {"params": {path: {"kernel": means.T, "bias": -0.5 * (means**2).sum(1)}}}
    file = tmp_path_factory.mktemp("weights") / "model.safetensors"
    extra = {"classes": CLASSES, "preprocessing": seen}
    zoo.save_model(NAME, file, model, jax.tree.map(np.float32, variables), extra=extra)
    test = open_source("digits")["test"]
    pixels = np.stack([test[i]["image"] for i in range(len(test))])
    truth = np.array([test[i]["label"] for i in range(len(test))])
    rows = np.asarray(preprocess(pixels, seen)).reshape(len(pixels), -1).astype(np.float64)
    nearest = ((rows[:, None] - means[None]) ** 2).sum(-1).argmin(1)
    return file, float((nearest == truth).mean()), np.bincount(truth)


def test_figures_pictures_and_a_table(weights, tmp_path, capsys):
    file, accuracy, support = weights
    words = ["evaluate", NAME, "--weights", str(file), "--source", "digits", "--batch-size", "100"]
    assert main([*words, "--workdir", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["images"] == 360 and report["split"] == "test"
    assert report["accuracy"] == pytest.approx(accuracy) and accuracy > 0.8
    assert f"{accuracy:.4f}" in capsys.readouterr().out
    for picture in ("confusion.png", "predictions.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((tmp_path / "classes.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == CLASSES
    assert [int(row["support"]) for row in rows] == support.tolist()
    wrong = list(csv.DictReader((tmp_path / "mistakes.csv").read_text().splitlines()))
    assert len(wrong) == round(360 * (1 - accuracy))
    test = open_source("digits")["test"]
    assert all(CLASSES[test[int(row["example"])]["label"]] == row["label"] for row in wrong)
    assert all(float(row["p_label"]) <= float(row["p_predicted"]) for row in wrong)


def test_wrong_labels_cost_little_and_come_first(tmp_path):
    """Folders whose every hundredth training image lies in another class's: as a user has them."""
    moved = set()
    for part in ("train", "test"):
        data = open_source("digits")[part]
        for i in range(len(data)):
            label, wrong = int(data[i]["label"]), part == "train" and i % 100 == 50
            file = tmp_path / part / str((label + wrong * (1 + i % 7)) % 10) / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(data[i]["image"][..., 0]).save(file)
            moved |= {str(file)} if wrong else set()
    source, run = ["--source", f"folder:{tmp_path}"], tmp_path / "run"
    assert (
        main(
            [
                "mlp_digits",
                *source,
                "--epochs",
                "8",
                "--learning-rate",
                "3e-3",
                "--workdir",
                str(run),
            ]
        )
        == 0
    )
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["test/accuracy"] > 0.95
    judged = ["evaluate", "mlp", "--weights", str(run), *source, "--split", "train"]
    assert main([*judged, "--workdir", str(tmp_path / "judged")]) == 0
    report = csv.DictReader((tmp_path / "judged" / "mistakes.csv").read_text().splitlines())
    first = [row["example"] for row in report][: len(moved)]
    assert len(moved) == 13 and len(moved & set(first)) >= 10


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--split", "tset"], "test"),
        (["--weights", "no.safetensors"], "no.safetensors"),
        (["--crops", "10"], "crop"),
    ],
)
def test_mistakes_are_one_line(weights, words, said, tmp_path, capsys):
    plain = ["evaluate", NAME, "--weights", str(weights[0]), "--source", "digits"]
    assert main([*plain, "--workdir", str(tmp_path), *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error


@pytest.mark.parametrize("classes", [CLASSES[::-1], CLASSES[:9]])
def test_other_classes_are_refused(weights, classes, tmp_path, capsys):
    model, variables = zoo.load_model(NAME, weights[0])
    if len(classes) < 10:
        variables = jax.tree.map(lambda leaf: leaf[..., :9], variables)
        model = model.clone(num_classes=9)
    seen = zoo.weights.read_preprocessing(NAME, weights[0])
    file = tmp_path / "other.safetensors"
    zoo.save_model(NAME, file, model, variables, extra={"classes": classes, "preprocessing": seen})
    assert main(["evaluate", NAME, "--weights", str(file), "--source", "digits"]) == 2
    error = capsys.readouterr().err
    assert "in the same order" in error and f"{len(classes)} classes" in error


def test_no_classifier(capsys):
    assert main(["evaluate", "autoencoder", "--weights", "x", "--source", "digits"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_segmenter_on_scenes(tmp_path, capsys):
    """Figures are those of its masks; classes of other data are refused."""
    fields = {"width": 2, "depth": 1, "norm": "group", "num_classes": 11}
    model = zoo.create_model("unet_same", **fields)
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32))
    source = open_masks("digit_scenes", size=(64, 64, 1))["val"]
    file = tmp_path / "model.safetensors"
    zoo.save_model("unet_same", file, model, variables, extra={"classes": list(source.classes)})
    words = ["evaluate", "unet_same", "--weights", str(file), "--source", "digit_scenes"]
    words += ["--split", "val", "--size", "64", "64", "1", "--flips", "--workdir", str(tmp_path)]
    assert main(words) == 0
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["images"] == 100 and report["flips"] and 0 <= report["mean_iou"] < 0.2
    rows = list(csv.DictReader((tmp_path / "classes.csv").read_text().splitlines()))
    masks = np.stack([source[i]["mask"] for i in range(100)])
    assert [int(row["support"]) for row in rows] == np.bincount(masks.ravel()).tolist()
    assert (tmp_path / "predictions.png").read_bytes().startswith(b"\x89PNG")
    assert main([*words, "--membrane", "0"]) == 2
    assert "membrane is 0 or 1, of two classes" in capsys.readouterr().err


@final
class Everywhere(nn.Module):
    """A box of each digit around each of 3 x 3 points, as wide and high as `side` says."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, image, truth=None, *, train=False):
        side = self.param("side", nn.initializers.ones, (2,))
        y, x, label = (n.ravel() for n in jnp.mgrid[:3, :3, :10])
        middle = 16.0 * (1 + jnp.stack([x, y], -1))
        boxes = jnp.concatenate([middle - side[None] / 2, middle + side[None] / 2], -1)
        outputs = {"boxes": boxes, "scores": jnp.linspace(1, 0, 90), "labels": label}
        outputs["valid"] = jnp.ones(90, bool)
        return {k: jnp.broadcast_to(v, (len(image), *v.shape)) for k, v in outputs.items()}


def test_a_detector_on_scenes(tmp_path, capsys, monkeypatch):
    """Average precision is that of its boxes; a canvas and classes of its own; one-line mistakes."""
    pixels = dict(mean=(0.5,), std=(0.5,))
    card = dict(module=Everywhere, task="detection", input=(64, 64, 1), paper="-")
    family = types.SimpleNamespace(CARD={**card, "preprocessing": pixels}, VARIANTS={"every": {}})
    monkeypatch.setitem(registry.FAMILIES, "every", family)
    file = tmp_path / "model.safetensors"
    side = np.array([14, 20], np.float32)
    model, extra = Everywhere(), {"classes": CLASSES}
    zoo.save_model("every", file, model, {"params": {"side": side}}, extra=extra)
    words = ["evaluate", "every", "--weights", str(file), "--source", "digit_scenes"]
    words += ["--split", "val", "--workdir", str(tmp_path)]
    assert main(words) == 0
    source = open_boxes("digit_scenes", canvas=Canvas((64, 64)), channels=1)["val"]
    examples = [source[i] for i in range(100)]
    names = ("boxes", "labels", "box_valid", "crowd")
    boxes, labels, valid, crowd = (np.stack([e[name] for e in examples]) for name in names)
    outputs = model.apply({"params": {"side": side}}, np.zeros((100, 64, 64, 1), np.float32))
    truth = dict(truth_boxes=boxes, truth_labels=labels, truth_valid=valid, crowd=crowd)
    rows = jax.tree.map(np.asarray, {**outputs, **truth, "index": np.arange(100)})
    expected = detection.voc_metrics(rows, classes=10)
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["images"] == 100 and report["metric"] == "voc" and "loss" not in report
    assert report["ap50"] == pytest.approx(expected["ap50"]) and expected["ap50"] > 0
    assert report["ap50_voc07"] == pytest.approx(expected["ap50_voc07"])
    table = list(csv.DictReader((tmp_path / "classes.csv").read_text().splitlines()))
    assert [int(row["objects"]) for row in table] == np.bincount(labels[valid]).tolist()
    for picture in ("precision_recall.png", "predictions.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    extra = {"classes": CLASSES[::-1]}
    zoo.save_model("every", file, model, {"params": {"side": side}}, extra=extra)
    capsys.readouterr()
    assert main(words) == 2
    assert "in the same order" in capsys.readouterr().err


@final
class Columns(nn.Module):
    """How bright the columns of a clip are, a class each, in all its frames."""

    num_classes: int = 2

    @nn.compact
    def __call__(self, clip, *, train=False):
        scale = self.param("scale", nn.initializers.ones, (1, 1))
        columns = clip.mean((1, 2, 4))
        halves = columns.reshape(len(clip), self.num_classes, -1).mean(-1)
        return {"logits": scale * halves}


@pytest.mark.parametrize("views", [(1, 1), (2, 3)])
def test_a_model_of_clips(views, tmp_path, capsys, monkeypatch):
    """The mean over a video's views, of crops as long as the source gives them."""
    pixels = dict(mean=(0.5,) * 3, std=(0.25,) * 3, size=(16, 16), crop=0.5, frames=4, stride=2)
    card = dict(module=Columns, task="video", input=(4, 16, 16, 3), paper="-", preprocessing=pixels)
    family = types.SimpleNamespace(CARD=card, VARIANTS={"columns": {}})
    monkeypatch.setitem(registry.FAMILIES, "columns", family)
    for name in ("train/a/1", "train/b/2", "test/a/3", "test/b/4", "test/b/5"):
        file = tmp_path / f"{name}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file, 23 * int(name[-1]), codec="mpeg4", size=(32, 64))
    file, model = tmp_path / "model.safetensors", Columns()
    variables = {"params": {"scale": np.full((1, 1), 2, np.float32)}}
    zoo.save_model("columns", file, model, variables, extra={"classes": ["a", "b"]})
    words = ["evaluate", "columns", "--weights", str(file), "--source", f"folder:{tmp_path}"]
    words += ["--views", *map(str, views), "--workdir", str(tmp_path / "out")]
    assert main(words) == 0

    test = open_clips(f"folder:{tmp_path}", Preprocessing(**pixels), views=views)["test"]
    assert len(test) == 3 * views[0] * views[1]
    examples = [test[i] for i in range(len(test))]
    pixels = np.stack([e["video"] for e in examples]).astype(np.float64)
    assert pixels.shape[2:] == (32, 32, 3)
    if views[1] == 1:
        pixels = pixels[:, :, 8:24, 8:24]
    half = pixels.shape[3] // 2
    brighter = pixels[..., :half, :].mean((1, 2, 3, 4)) - pixels[..., half:, :].mean((1, 2, 3, 4))
    left = (1 / (1 + np.exp(-2 * brighter / 255 / 0.25))).reshape(3, -1).mean(1)
    truth = np.array([True, False, False])
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert report["images"] == len(test) and report["views"] == list(views)
    assert report["accuracy"] == pytest.approx(np.mean((left > 0.5) == truth))
    assert report["loss"] == pytest.approx(
        -np.log(np.where(truth, left, 1 - left)).mean(), abs=1e-4
    )
    for picture in ("confusion.png", "predictions.png"):
        assert (tmp_path / "out" / picture).read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "out" / "mistakes.csv").exists()


def test_a_model_of_more_than_clips(tmp_path, capsys):
    """Its maps are made by its recipe."""
    model, file = zoo.create_model("cnn3d_ji2013"), tmp_path / "model.safetensors"
    variables = model.init(jax.random.key(0), np.zeros((1, 60, 40, 33), np.float32))
    zoo.save_model("cnn3d_ji2013", file, model, variables)
    words = ["evaluate", "cnn3d_ji2013", "--weights", str(file), "--source", "moving_digits"]
    assert main(words) == 2
    assert "see its recipe" in capsys.readouterr().err
