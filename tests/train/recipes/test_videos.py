"""The recipes of video: small ones train, large ones are traced, as the papers say."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.train.recipes.test_photographs import steps_at
from tests.zoo.media.test_video_io import write
from train import step
from train.__main__ import main
from train.data import eval_batches, train_batches
from train.data.synthetic import moving_digits
from train.recipes import RECIPES, slowfast_moving_digits
from zoo.files import cache_folder

VIDEOS = (
    "slowfast_moving_digits",
    "frame_moving_digits",
    "cnn3d_moving_digits",
    "two_stream_moving_digits",
    "slowfast_kinetics",
    "c3d_ucf101",
    "two_stream_ucf101",
)


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(moving_digits, "SPLIT_SIZES", {"train": 40, "val": 20, "test": 20})


@pytest.fixture(scope="module")
def ucf(tmp_path_factory):
    """UCF101's layout: five clips of two classes, one of each to test on."""
    folder = tmp_path_factory.mktemp("ucf")
    names = [f"{c}/v_{c}_g0{g}_c01.avi" for c in ("Archery", "Basketball") for g in (1, 2, 3, 4, 5)]
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        write(folder / name, 20, codec="mpeg4", size=(48, 64))
    (folder / "classInd.txt").write_text("1 Archery\n2 Basketball\n")
    train = [f"{n} {1 + ('Bas' in n)}" for n in names if "_g01_" not in n]
    (folder / "trainlist01.txt").write_text("\n".join(train))
    (folder / "testlist01.txt").write_text("\n".join(n for n in names if "_g01_" in n))
    return f"ucf101:{folder}"


def words(workdir, **knobs):
    each = [(f"--{name}", *str(value).split()) for name, value in knobs.items()]
    return [*(word for knob in each for word in knob), "--workdir", str(workdir)]


def traced(run):
    """The step of the run, and its evaluation, fit its data: nothing is computed."""
    (batch,) = train_batches(run.train, batch_size=2, seed=0, start=0, stop=1)
    parts = dict(model=run.model, task=run.task, optimizer=run.optimizer)
    state = jax.eval_shape(partial(step.init_state, **parts), jax.random.key(0), batch)
    _, sums = jax.eval_shape(partial(step.train_step, **parts), state, batch)
    assert {"loss", "weight", "accuracy"} <= set(sums)
    source = next(iter(run.evaluate.values()))
    batch = next(eval_batches(source, batch_size=2))
    variables = {"params": state.params, **state.collections}
    measured = jax.eval_shape(
        partial(step.eval_step, model=run.model, task=run.task), variables, batch
    )
    assert measured["scores"].shape == (2, len(run.train.classes))
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))


def test_the_control_trains_on_frames(few, tmp_path):
    small = dict(model="softmax_regression", epochs=1, batch_size=40)
    assert main(["frame_moving_digits", *words(tmp_path, **small)]) == 0
    assert (tmp_path / "predictions.png").stat().st_size > 5_000
    model, _ = zoo.load_model("softmax_regression", tmp_path)
    assert model.num_classes == 10


def test_two_streams_train_and_their_scores_are_fused(few, tmp_path):
    small = dict(model="softmax_regression", epochs=1, batch_size=40)
    assert main(["two_stream_moving_digits", *words(tmp_path, **small)]) == 0
    found = json.loads((tmp_path / "fusion.json").read_text())
    assert found.keys() == {"spatial", "temporal", "mean", "svm"}
    assert all(0 <= share <= 1 for share in found.values())
    assert list((cache_folder() / "flow").rglob("*.npz"))
    zoo.load_model("softmax_regression", tmp_path / "temporal")


def test_two_streams_of_files(ucf, tmp_path):
    small = dict(spatial="softmax_regression", temporal="softmax_regression", flow="dis")
    small |= dict(image_size=28, views="2 1", epochs=1, batch_size=8, source=ucf)
    assert main(["two_stream_ucf101", *words(tmp_path, **small)]) == 0
    found = json.loads((tmp_path / "fusion.json").read_text())
    assert found.keys() == {"spatial", "temporal", "mean"}


def test_small_networks_of_moving_digits(few, monkeypatch):
    monkeypatch.setitem(slowfast_moving_digits.SMALL_FIELDS, "depths", (1, 1, 1))
    assert traced(RECIPES["slowfast_moving_digits"](batch_size=20, epochs=1)) < 500_000
    assert traced(RECIPES["cnn3d_moving_digits"](batch_size=20, epochs=1)) == 295_458 + 7 * 128


def rates(run, counts):
    """The rate at these steps, by what a weight of 0 moves under a gradient of 1."""
    weight = {"kernel": jnp.zeros(())}
    moved = steps_at(run, weight, {"kernel": jnp.ones(())}, counts)["kernel"]
    return -np.asarray(moved)


def test_slowfast_s_schedule_and_parts(ucf):
    """34 of 196 epochs from 0.01 on, then half a cosine; sides of 256 to 320 for parts of 224."""
    recipe = RECIPES["slowfast_kinetics"]
    run = recipe(source=ucf, batch_size=2, epochs=196, model="slow_r50", image_size=28)
    assert run.precise_bn_batches == 200 and run.model.zero_init and run.model.dropout == 0.5
    assert run.train.sampling.sides == (32, 40) and run.train.sampling.size == (28, 28, 3)
    assert run.evaluate["test"][0]["video"].shape == (8, 32, 32, 3)
    traced(run)
    at = rates(run, [0, 136, 460, 783]) / 1.9  # nesterov's first step
    cosine = 0.05 * (1 + np.cos(np.pi * np.array([136, 460, 783]) / 784))
    np.testing.assert_allclose(at, [0.01, *cosine], rtol=1e-3, atol=1e-7)


def test_c3d_s_schedule(ucf):
    run = RECIPES["c3d_ucf101"](source=ucf, batch_size=2, epochs=190, image_size=32)
    assert traced(run) < 20e6
    np.testing.assert_allclose(
        rates(run, [0, 252, 254, 508, 759]), [3e-3, 3e-3, 3e-4, 3e-5, 3e-5], rtol=1e-4
    )


def test_each_is_told_in_its_card():
    for name in VIDEOS:
        assert "Source: " in RECIPES[name].__doc__
