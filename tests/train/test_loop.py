"""What a person relies on: it learns, resumes after anything, and says what is wrong."""

import json
import shutil
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo
from tests.train import fake_classification
from train import checkpoint, loop, parallel
from train.data.source import Subset
from train.log import read_rows


def one_device():
    return parallel.create_layout("jit", devices=jax.devices()[:1])


def rows_of(workdir):
    rows = read_rows(workdir / "metrics.jsonl")
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def fit(workdir, **changes):
    return loop.fit(fake_classification.run(**changes), workdir, layout=one_device(), recipe="tiny")


class Interrupting(fake_classification.Shades):
    """Sends the process a signal while the example that is read `at`-th is read."""

    def __init__(self, size, *, at, number=signal.SIGTERM):
        super().__init__(size)
        self.left, self.number = at, number

    def __getitem__(self, index):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(self.number)
        return super().__getitem__(index)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The workdir of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    fit(workdir)
    return workdir


def test_a_run_leaves_what_the_readme_promises(whole):
    rows = rows_of(whole)
    assert [row["step"] for row in rows] == [4, 8, 12]
    assert rows[-1]["epoch"] == 3 and rows[-1]["val/accuracy"] > 0.9
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    classes = (whole / "classes.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in classes[1:]] == [["dark", "11"], ["bright", "10"]]
    for picture in ("curves.png", "predictions.png", "confusion.png"):
        assert (whole / picture).read_bytes().startswith(b"\x89PNG")
    facts = json.loads((whole / "run.json").read_text())
    assert facts["recipe"] == "tiny" and facts["versions"]["jax"] == jax.__version__
    assert list((whole / "events").iterdir())
    model, variables = zoo.load_model("softmax_regression", whole)
    source = fake_classification.Shades(21, seed=1)
    arguments = fake_classification.run().task.inputs({"image": source.image}, False)
    predicted = np.argmax(model.apply(variables, *arguments)["logits"], -1)
    assert np.mean(predicted == source.label) == facts["finished"]["val/accuracy"]


def test_pictures_are_of_all_classes_of_a_sorted_set(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "MAX_PLOT_EXAMPLES", 10)
    labels = []

    def render(batch, outputs, measured):
        labels.extend(batch["label"].tolist())
        return {}

    shades = fake_classification.Shades(40, seed=1)
    by_class = Subset(shades, np.argsort(shades.label, kind="stable"))
    run = fake_classification.run(epochs=1, evaluate={"val": by_class})
    fit(tmp_path / "run", **run._replace(task=run.task._replace(render=render))._asdict())
    assert len(labels) == 10 and set(labels) == {0, 1}


def test_rows_tell_where_the_time_went(whole):
    rows = read_rows(whole / "metrics.jsonl")
    assert all(row["time/images_per_second"] > 0 and row["time/data_wait"] >= 0 for row in rows)
    assert [row.get("time/compile_seconds", 0) > 0 for row in rows] == [True, False, False]


class Slow(fake_classification.Shades):
    """Its batches take longer than its steps."""

    def __getitem__(self, index):
        time.sleep(0.004)
        return super().__getitem__(index)


def test_a_step_that_waits_for_its_data_is_seen(tmp_path):
    fit(tmp_path / "run", train=Slow(320), epochs=1)
    (row,) = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert 0.3 < row["time/data_wait"] <= 1


def test_a_finished_run_says_so_and_trains_nothing(whole, capsys):
    before = (whole / "metrics.jsonl").read_bytes()
    fit(whole)
    assert "is finished" in capsys.readouterr().out
    assert (whole / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("at", [2, 40, 100])
def test_a_signal_saves_and_the_same_command_goes_on_bit_for_bit(at, whole, tmp_path, capsys):
    workdir = tmp_path / "run"
    assert fit(workdir, train=Interrupting(64, at=at)) == {}
    assert "stopped at step" in capsys.readouterr().out
    assert not (workdir / "model.safetensors").exists()
    fit(workdir)
    assert rows_of(workdir) == rows_of(whole)
    assert (workdir / "model.safetensors").read_bytes() == (
        whole / "model.safetensors"
    ).read_bytes()


def test_rows_past_the_checkpoint_are_cut(whole, tmp_path):
    workdir = tmp_path / "run"
    fit(workdir, train=Interrupting(64, at=100))
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 9999, "epoch": 99, "val/loss": 0.0}) + '\n{"step": 10')
    fit(workdir)
    assert rows_of(workdir) == rows_of(whole)


def damage_truncate(folder):
    for file in folder.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def damage_empty(folder):
    for file in (folder / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")


def damage_remove_state(folder):
    shutil.rmtree(folder / "state")


@pytest.mark.parametrize("damage", [damage_truncate, damage_empty, damage_remove_state])
def test_a_broken_checkpoint_falls_back_to_the_one_before(damage, whole, tmp_path, capsys):
    workdir = tmp_path / "run"
    fit(workdir, train=Interrupting(64, at=150))
    steps = sorted(int(folder.name) for folder in (workdir / "checkpoints").iterdir())
    assert len(steps) >= 2
    damage(workdir / "checkpoints" / str(steps[-1]))
    fit(workdir)
    said = capsys.readouterr().out
    assert f"checkpoint {steps[-1]} cannot be read" in said
    assert f"resumed at step {steps[-2]}" in said
    assert rows_of(workdir) == rows_of(whole)


def test_checkpoints_of_another_model_are_refused(tmp_path):
    workdir = tmp_path / "run"
    fit(workdir, train=Interrupting(64, at=150))
    other = zoo.create_model("softmax_regression", num_classes=3)
    with pytest.raises(ValueError, match="can be read"):
        fit(workdir, model=other)


def test_a_workdir_of_another_run_is_refused(whole, tmp_path):
    with pytest.raises(ValueError, match="seed 0 there, 1 asked for"):
        fit(whole, seed=1)
    (tmp_path / "thesis.txt").write_text("do not touch")
    with pytest.raises(ValueError, match="is not empty"):
        fit(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_run_that_diverges_names_the_step_and_the_good_checkpoint(tmp_path):
    def rate(count):
        return jnp.where(count < 6, 0.01, jnp.nan)

    with pytest.raises(loop.DivergedError, match=r"at step 8.*checkpoint of step 4.*learning rate"):
        fit(tmp_path / "run", optimizer=optax.sgd(rate))


def test_patience_keeps_the_best_snapshot(tmp_path, capsys):
    def rate(count):  # learns for three epochs, then unlearns
        return jnp.where(count < 12, 0.03, -0.03)

    workdir = tmp_path / "run"
    kept = fit(
        workdir,
        optimizer=optax.sgd(rate),
        epochs=20,
        patience=3,
        monitor=("val/loss", "min"),
    )
    losses = [row["val/loss"] for row in rows_of(workdir)]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 3 < 20
    assert kept["val/loss"] == losses[best]
    assert "stopped early" in capsys.readouterr().out
    model, variables = zoo.load_model("softmax_regression", workdir)
    run = fake_classification.run()
    source = fake_classification.Shades(21, seed=1)
    batch = {"image": source.image, "label": source.label}
    measured = run.task.measure(
        lambda *arguments: model.apply(variables, *arguments),
        {**batch, "index": np.arange(21), "valid": np.ones(21, bool)},
    )
    found = run.task.summarize([jax.tree.map(np.asarray, measured)])["loss"]
    np.testing.assert_allclose(found, losses[best], rtol=1e-6)


@pytest.mark.parametrize(("first", "then"), [(1, 8), (8, 1)])
def test_what_some_devices_saved_other_numbers_restore(first, then, whole, tmp_path):
    workdir = tmp_path / "run"
    layouts = {n: parallel.create_layout("jit", devices=jax.devices()[:n]) for n in (1, 8)}
    run = fake_classification.run(train=Interrupting(64, at=100))
    loop.fit(run, workdir, layout=layouts[first], recipe="tiny")
    with checkpoint.open_checkpoints(workdir / "checkpoints") as checkpoints:
        saved = {
            n: checkpoint.restore_checkpoint(
                checkpoints, loop.compile_run(run, layouts[n]).abstract
            )
            for n in layouts
        }
    for a, b in zip(*(jax.tree.leaves(saved[n][0].params) for n in layouts), strict=True):
        assert len(b.sharding.device_set) == 8
        np.testing.assert_array_equal(a, b)
    loop.fit(fake_classification.run(), workdir, layout=layouts[then], recipe="tiny")
    for found, expected in zip(rows_of(workdir), rows_of(whole), strict=True):
        assert found == pytest.approx(expected, rel=1e-5)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    save = checkpoint.start_save

    def no_room(checkpoints, state, progress, *, step, best):
        if step > 4:
            raise OSError(28, "No space left on device")
        save(checkpoints, state, progress, step=step, best=best)

    monkeypatch.setattr(checkpoint, "start_save", no_room)
    with pytest.raises(OSError, match=r"step 8 .*No space left.*step 4 is good.*make room"):
        fit(workdir)
    monkeypatch.undo()
    assert fit(workdir)["val/accuracy"] > 0.9


def test_a_monitor_that_nobody_measures(tmp_path):
    with pytest.raises(ValueError, match="val/accurracy.*val/accuracy"):
        fit(tmp_path / "run", monitor=("val/accurracy", "max"))
