"""YOLO's recipes: two real steps, and the paper's schedule."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.train.recipes.test_photographs import steps_at, two_steps
from train import step
from train.data import train_batches
from train.recipes import RECIPES, yolo_bccd, yolov1_voc
from zoo.losses import yolo_v1_loss
from zoo.models import yolo

TRIED = ("yolo_digit_scenes", "yolo_bccd", "yolov1_voc")


def one_step_fits(run):
    """Traced alone: the step of the cells is taken."""
    (batch,) = train_batches(run.train, batch_size=2, seed=0, start=0, stop=1)
    parts = dict(model=run.model, task=run.task, optimizer=run.optimizer)
    state = jax.eval_shape(partial(step.init_state, **parts), jax.random.key(0), batch)
    _, sums = jax.eval_shape(partial(step.train_step, **parts), state, batch)
    assert {"box", "object", "background", "class"} <= set(sums)


def test_cells(cells, monkeypatch):
    monkeypatch.setattr(yolo_bccd, "SIZE", (48, 64))
    run = RECIPES["yolo_bccd"](source=cells, width=4, batch_size=2, epochs=1)
    assert run.train.classes == ("rbc", "wbc") and len(run.evaluate["val"]) == 2
    assert run.preprocessing.size == (48, 64) and run.model.num_classes == 2
    backbone = run.model.backbone.clone(depths=(1, 1, 1))
    two_steps(run._replace(model=run.model.clone(backbone=backbone)))


def test_a_million_weights_and_cells_of_16_pixels(cells):
    run = RECIPES["yolo_bccd"](source=cells, epochs=1)
    fields = dict(backbone=run.model.backbone, num_classes=3, boxes=3, stride=16, width=128)
    card = zoo.model_card("yolo_grid", **fields)
    assert 1.2e6 < card.parameters < 1.4e6 and card.features["stage3"] == (16, 128)


def test_digits():
    run = RECIPES["yolo_digit_scenes"](image_size=64, width=4, batch_size=2, epochs=1)
    assert run.train.classes == tuple("0123456789") and len(run.evaluate["val"]) == 100
    assert run.train[0]["image"].shape == (64, 64, 1)
    one_step_fits(run)


RATES = {0: 0.1, 2.5: 0.55, 5: 1.0, 74.5: 1.0, 75: 0.1, 104.5: 0.1, 105: 0.01, 134.5: 0.01}


def test_voc(cells, monkeypatch, tmp_path):
    """The paper's rates; on from weights of another number of classes; half of the paper's cost."""
    few = dict(layers=((2, 7, 2), None, (3, 3, 2), None, None, None), norm="batch", hidden=0)
    monkeypatch.setitem(yolo.VARIANTS, "yolov1_tiny", few)
    knobs = dict(source=cells, model="yolov1_tiny", image_size=64, batch_size=2, learning_rate=1.0)
    run = RECIPES["yolov1_voc"](**knobs)
    assert run.preprocessing.mean == (0.0, 0.0, 0.0) and run.model.num_classes == 2
    one_step_fits(run)

    params, gradients = ({"kernel": jnp.full((1,), value)} for value in (0.0, 0.1))
    counts = [round(epoch * len(run.train) / run.batch_size) for epoch in RATES]
    steps = steps_at(run, params, gradients, counts)["kernel"][:, 0]
    np.testing.assert_allclose(steps / -0.1, list(RATES.values()), rtol=1e-5)

    model = run.model.clone(num_classes=5)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    extra = {"preprocessing": run.preprocessing}
    zoo.save_model("yolov1_tiny", tmp_path / "five.safetensors", model, ones, extra=extra)
    with pytest.warns(UserWarning, match="fresh head for 2 classes"):
        more = RECIPES["yolov1_voc"](**knobs, weights=str(tmp_path / "five.safetensors"))
    assert more.variables["params"]["conv1"]["conv"]["kernel"].min() == 1

    outputs = {"grid": np.ones((1, 1, 1, 12), np.float32)}
    batch = {key: value[None] for key, value in run.train[1].items()}
    whole, half = (
        yolo_v1_loss(outputs, batch, classes=2),
        yolov1_voc.zero_loss_half(outputs, batch, classes=2),
    )
    assert half == {name: part / 2 for name, part in whole.items()}
