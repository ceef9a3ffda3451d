"""The bench times what it says, and nothing whose outputs are wrong."""

import json
import mmap
import sys
import time
import types
from functools import partial
from typing import Any, final

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import zoo
from tests.train import fake_detector
from tests.zoo.media.test_video_io import write
from train import loop, parallel
from train.bench import clock, programs, reference
from train.bench.__main__ import main
from train.bench.model import Settings, bench_model, check_outputs
from train.bench.pipeline import measure_pipeline
from train.data import eval_batches
from zoo.ops import nms
from zoo.profile import trace_macs

TINY = dict(depths=(1, 1), num_classes=5)


def settings(**changes) -> Settings:
    plain = Settings(
        batch=2,
        size=16,
        dtype="float32",
        modes=("forward", "folded", "train"),
        rounds=2,
        torch=False,
        fields=TINY,
        rate=1e9,
    )
    return plain._replace(**changes)


def test_turns():
    order = []

    def run(name, seconds):
        order.append(name)
        time.sleep(seconds)

    runs = dict(fast=partial(run, "fast", 0.05), slow=partial(run, "slow", 0.15))
    times = clock.time_interleaved(runs, rounds=3)
    assert order[-3:] == ["fast", "fast", "slow"]  # the faster one twice a sample
    assert times["fast"].median == pytest.approx(0.05, rel=0.5)
    assert times["slow"].median == pytest.approx(0.15, rel=0.5)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [([3.0, 1.0, 2.0], (2.0, 1.5, 2.5)), ([1.0, 1.0, 1.0, 9.0], (1.0, 1.0, 3.0))],
)
def test_timing(samples, expected):
    assert tuple(clock.summarize_timing(samples)) == expected


def test_rows_of_a_model():
    rows = bench_model("resnet20", settings())
    assert [row["what"] for row in rows] == ["forward", "folded", "train"]
    _, _, macs = trace_macs(zoo.create_model("resnet20", **TINY), (16, 16, 3))
    for row, cost in zip(rows, (1, 1, 3), strict=True):
        assert row["compile_seconds"] > 0 and row["memory"] > 0 and row["images_per_second"] > 0
        assert row["macs_per_second"] == pytest.approx(cost * macs * row["images_per_second"])
        assert row["share"] == pytest.approx(row["macs_per_second"] / 1e9)


def test_only_compiled_nothing_is_drawn(monkeypatch):
    def drawn(*arguments, **keywords):
        raise AssertionError("weights were drawn")

    monkeypatch.setattr(jax.random, "normal", drawn)
    monkeypatch.setattr(programs.Program, "__call__", drawn, raising=False)
    fields = dict(TINY, depths=(3, 3))
    kept, remat = (
        bench_model("resnet20", settings(rounds=0, batch=64, modes=["train"], fields=f))[0]
        for f in (fields | dict(scan=True), fields | dict(scan=True, remat=True))
    )
    assert "images_per_second" not in kept
    assert remat["memory"] < kept["memory"]


def test_a_step_is_momentum_on_the_cross_entropy():
    model = zoo.create_model("softmax_regression", num_classes=3)
    image = jnp.asarray(np.random.default_rng(0).uniform(size=(6, 5, 5, 1)), jnp.float32)
    variables = model.init(jax.random.key(0), image)
    label = jnp.arange(6) % 3
    logits = np.asarray(model.apply(variables, image)["logits"], np.float64)
    logits -= logits.max(1, keepdims=True)
    right = (logits - np.log(np.exp(logits).sum(1, keepdims=True)))[np.arange(6), label]
    program = programs.train_program(model, variables, image, label)
    assert float(program.first) == pytest.approx(-right.mean(), rel=1e-5)
    later = [float(program.run()) for _ in range(50)]
    assert later[-1] < later[0]


@pytest.mark.parametrize(
    ("dtype", "off", "fails"),
    [
        ("float32", 1e-5, False),
        ("float32", 1e-3, True),
        ("bfloat16", 1e-3, False),
        ("float32", np.nan, True),
    ],
)
def test_what_differs_is_not_timed(dtype, off, fails):
    theirs = np.linspace(-1, 1, 9)
    if fails:
        with pytest.raises(ValueError, match="not timed"):
            check_outputs("resnet50", "forward", theirs + off, theirs, dtype=dtype)
    else:
        check_outputs("resnet50", "forward", theirs + off, theirs, dtype=dtype)


@final
class Crowd(nn.Module):
    """400 boxes on one another, one of each class at the score of an image's pixel."""

    num_classes: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image, truth=None, *, train=False):
        scores = nn.Dense(400, name="scores")(image.reshape(len(image), -1))
        boxes = jnp.broadcast_to(jnp.array([0.0, 0, 8, 8]), (400, 4))
        labels = jnp.arange(400) % self.num_classes

        def found(scores):
            index, valid = nms.batched_nms(
                boxes, scores, labels, valid=scores > 0, iou_threshold=0.5, max_outputs=50
            )
            return dict(boxes=boxes[index], scores=scores[index], labels=labels[index], valid=valid)

        return jax.vmap(found)(scores)


def test_a_detector_s_suppression(monkeypatch):
    """A row without training; what takes its place keeps the best; nothing is left of it after."""
    pixels = dict(mean=(0.5,) * 3, std=(0.5,) * 3)
    card = dict(module=Crowd, task="detection", input=(8, 8, 3), paper="-", preprocessing=pixels)
    family = types.SimpleNamespace(CARD=card, VARIANTS={"crowd": {}})
    monkeypatch.setitem(zoo.registry.FAMILIES, "crowd", family)
    (row,) = bench_model("crowd", settings(fields={}, size=8, modes=("forward", "train")))
    assert 0 <= row["nms_share"] < 1 and row["what"] == "forward"
    random = np.random.default_rng(0)
    image = random.normal(size=(2, 8, 8, 3)).astype(np.float32)
    kernel = random.normal(size=(192, 400)).astype(np.float32)
    variables = {"params": {"scores": {"kernel": kernel, "bias": np.zeros(400, np.float32)}}}
    scores = image.reshape(2, -1) @ kernel
    best = [[row[label::4].max() for label in range(4)] for row in scores]
    expected = -np.sort(-np.array(best))
    with programs.without_suppression():
        plain = programs.forward_program(Crowd(), variables, image).first
    again = programs.forward_program(Crowd(), variables, image).first
    assert plain["valid"].all() and np.diff(plain["scores"]).max() <= 0
    assert again["valid"].sum(1).tolist() == [4, 4]
    np.testing.assert_allclose(again["scores"][:, :4], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="crowd finds boxes: --against torch compares logits"):
        bench_model("crowd", settings(fields={}, torch=True))


def test_one_compilation_for_any_number_of_objects():
    """Pixels to boxes, and the measured rows: nothing, a few, as many as there is room for."""
    chosen = fake_detector.run()
    layout = parallel.create_layout("jit", devices=jax.devices()[:1])
    functions = loop.compile_run(chosen, layout)
    batch = next(iter(eval_batches(chosen.train, batch_size=8)))
    variables = {"params": {"weight": np.float32(1)}}
    counts = []
    for most in (0, 1, fake_detector.OBJECTS):
        batch["box_valid"] = np.arange(fake_detector.OBJECTS) < np.full((8, 1), most)
        batch["image"][:, :, 6] = np.arange(fake_detector.HEIGHT)[:, None] < most
        counts.append(int(functions.predict(variables, batch)["valid"].sum()))
        functions.measure(variables, batch)
    assert counts == [0, 8, 40]
    assert functions.predict._cache_size() == functions.measure._cache_size() == 1


class Same:
    """Stands for torch's model: the same outputs, by our own arithmetic."""

    def __init__(self, name, *, classes, half, side):
        self.model = zoo.create_model(name, num_classes=classes, depths=TINY["depths"])
        self.variables = self.model.init(jax.random.key(3), jnp.zeros((1, side, side, 3)))

    def tensors(self):
        return {
            "/".join(key.key for key in path): np.asarray(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(self.variables)
        }

    def forward(self, image):
        return lambda: np.asarray(self.model.apply(self.variables, image)["logits"])


def test_a_reference_gives_the_weights_and_a_ratio(monkeypatch):
    monkeypatch.setattr("train.bench.model.Reference", Same)
    row = bench_model("resnet20", settings(torch=True, modes=["forward"]))[0]
    expected = row["images_per_second"] / row["torch_images_per_second"]
    assert row["ratio"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mlp", "--accumulation-steps", "3"], "--batch 8"),
        (["resnet21"], "resnet20"),
        (["mlp", "--fields", "widths"], "scan=True"),
        (["mlp", "--fields", "wdths=(3,)"], "widths"),
        (["mlp", "--rounds", "1"], "2 or more"),
    ],
)
def test_mistakes_are_one_line(words, said, capsys, tmp_path):
    assert main(["--rounds", "0", *words, "--output", str(tmp_path / "b.json")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error


def test_micro_batches_are_the_same_step():
    model = zoo.create_model("softmax_regression", num_classes=3)
    image = jnp.asarray(np.random.default_rng(0).uniform(size=(6, 5, 5, 1)), jnp.float32)
    variables = model.init(jax.random.key(0), image)
    plain, split = (
        programs.train_program(model, variables, image, jnp.arange(6) % 3, accumulation_steps=n)
        for n in (1, 3)
    )
    for _ in range(3):
        assert float(plain.run()) == pytest.approx(float(split.run()), rel=1e-5)


def test_peak_memory_is_that_of_the_run():
    if not sys.platform.startswith("linux"):
        assert clock.peak_resident(lambda: None) is None
        return

    def fill(count):
        with mmap.mmap(-1, count) as fresh:  # malloc may give memory that is resident already
            for start in range(0, count, mmap.PAGESIZE):
                fresh[start] = 1

    few, many = (clock.peak_resident(lambda n=n: fill(n)) for n in (1, 300_000_000))
    assert many - few == pytest.approx(300e6, rel=0.1)


@pytest.mark.parametrize("kind", [ImportError, RuntimeError])
def test_torch_is_named_where_it_lacks(kind, monkeypatch):
    def missing(name):
        if name == "torchvision_cpu":
            raise ImportError
        raise kind(f"No module named {name!r}")

    monkeypatch.setattr(reference.importlib, "import_module", missing)
    with pytest.raises(ValueError, match=r"flax-zoo\[parity\]"):
        reference.import_torch()


def test_command_writes_and_adds(tmp_path, capsys):
    output = tmp_path / "bench.json"
    words = ["mlp", "--batch", "4", "--rounds", "2", "--modes", "forward", "--output", str(output)]
    assert main(words) == 0
    assert main([*words[:1], "--rounds", "0", *words[5:]]) == 0
    rows = json.loads(output.read_text())
    assert [row["model"] for row in rows] == ["mlp", "mlp"]
    assert "images_per_second" in rows[0] and "images_per_second" not in rows[1]
    assert "| mlp | forward | 4 |" in capsys.readouterr().out


def test_pipeline(tmp_path, capsys):
    words = ["--pipeline", "digits", "--batch", "16", "--rounds", "0"]
    assert main([*words, "--output", str(tmp_path / "b.json")]) == 0
    assert "UCI digits" in capsys.readouterr().out


def test_pipeline_of_photographs(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (6, 60, 80, 3), np.uint8)
    for number, pixels in enumerate(noise):
        path = tmp_path / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    rows = measure_pipeline(f"folder:{tmp_path}", size=32, batch=2, batches=3)
    assert [row["what"] for row in rows] == ["decoded", "cropped", "delivered"]
    assert all(row["images_per_second"] > 0 for row in rows)


def test_pipeline_of_clips(tmp_path):
    for name in ("train/a/1.mp4", "train/b/2.mp4", "val/a/3.mp4", "val/b/4.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / name, 12, codec="mpeg4")
    for spec, title in ((f"clips:folder:{tmp_path}", "folder:"), ("clips:moving_digits", "moving")):
        rows = measure_pipeline(spec, size=32, batch=2, batches=1)
        assert [row["what"] for row in rows] == ["clips cut", "clips delivered"]
        assert all(row["images_per_second"] > 0 and row["model"].startswith(title) for row in rows)
