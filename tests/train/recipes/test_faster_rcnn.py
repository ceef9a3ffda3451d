"""Faster R-CNN's recipes: real steps, the schedules as published, and what they start from."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.train.recipes.test_photographs import steps_at, two_steps
from train import step
from train.data import train_batches
from train.recipes import RECIPES, fasterrcnn_bccd
from zoo.models import faster_rcnn, resnet, vgg

TRIED = ("fasterrcnn_bccd", "fasterrcnn_voc", "fasterrcnn_resnet50_fpn_coco")
FEW = dict(
    hidden=8,
    width=8,
    rpn_pre_nms_top_n=(20, 20),
    rpn_post_nms_top_n=(10, 10),
    box_batch_size_per_image=8,
    box_detections_per_img=5,
)
SEEN = dict(mean=(0.5,) * 3, std=(0.25,) * 3, size=(64, 96), sides=(60, 90))


@pytest.fixture
def small(monkeypatch):
    """The variants with few channels, on small canvases."""
    for name in ("fasterrcnn_vgg16", "fasterrcnn_resnet50_fpn"):
        row = faster_rcnn.VARIANTS[name]
        card = {**row["card"], "preprocessing": SEEN}
        monkeypatch.setitem(faster_rcnn.VARIANTS, name, {**row, **FEW, "card": card})
    monkeypatch.setitem(vgg.VARIANTS["vgg16"], "widths", (2, 2, 2, 2, 3))
    monkeypatch.setitem(vgg.VARIANTS["vgg16"], "hidden", FEW["hidden"])
    monkeypatch.setitem(resnet.VARIANTS["resnet18"], "width", 4)


def one_step_fits(run):
    """Traced alone: a step of the training, whose four losses are all there."""
    (batch,) = train_batches(run.train, batch_size=run.batch_size, seed=0, start=0, stop=1)
    parts = dict(model=run.model, task=run.task, optimizer=run.optimizer)
    state = jax.eval_shape(partial(step.init_state, **parts), jax.random.key(0), batch)
    _, sums = jax.eval_shape(partial(step.train_step, **parts), state, batch)
    assert {"rpn_objectness", "rpn_boxes", "roi_classes", "roi_boxes"} <= set(sums)


def rates(run, epochs):
    """The rate at these epochs of a run whose highest is 1, of a kernel that nothing freezes."""
    counts = [round(epoch * len(run.train) / run.batch_size) for epoch in epochs]
    params = {"backbone": {f"{name}": {"kernel": jnp.zeros(1)} for name in FROZEN}}
    params["kernel"] = jnp.zeros(1)
    gradients = jax.tree.map(lambda leaf: leaf + 0.1, params)
    return steps_at(run, params, gradients, counts)


FROZEN = ("stem", "stage1_0", "stage2_0", "stage3_0")


def test_cells(cells, monkeypatch):
    monkeypatch.setattr(fasterrcnn_bccd, "SIZE", (48, 64))
    run = RECIPES["fasterrcnn_bccd"](source=cells, width=4, batch_size=2, epochs=1)
    assert run.train.classes == ("rbc", "wbc") and len(run.evaluate["val"]) == 2
    assert run.preprocessing.size == (48, 64) and run.model.num_classes == 2
    backbone = run.model.backbone.clone(depths=(1,))
    small = run.model.clone(backbone=backbone, anchor_sizes=run.model.anchor_sizes[:2], **FEW)
    two_steps(run._replace(model=small))


def test_two_million_weights(cells):
    run = RECIPES["fasterrcnn_bccd"](source=cells, epochs=1)
    image = jax.ShapeDtypeStruct((1, *fasterrcnn_bccd.SIZE, 3), jnp.float32)
    shapes = jax.eval_shape(run.model.init, jax.random.key(0), image)["params"]
    assert 1.5e6 < sum(leaf.size for leaf in jax.tree.leaves(shapes)) < 2.5e6


def test_voc(cells, small, tmp_path):
    """The paper's rates; conv1 and conv2 stay; the start is a classifier's, fc6 and fc7 too."""
    knobs = dict(source=cells, batch_size=2, learning_rate=1.0)
    run = RECIPES["fasterrcnn_voc"](**knobs, weights=None)
    (batch,) = train_batches(run.train, batch_size=2, seed=0, start=0, stop=1)
    assert batch["image"].shape == (2, 64, 96, 3) and run.model.num_classes == 2
    assert next(iter(run.evaluate.values()))[0]["image"].shape == (96, 96, 3)
    one_step_fits(run)
    told = {0: 1.0, 19.5: 1.0, 20: 0.1, 27.5: 0.1}
    steps = rates(run, told)
    np.testing.assert_allclose(steps["kernel"][:, 0] / -0.1, list(told.values()), rtol=1e-5)
    still = [name for name in FROZEN if not np.any(steps["backbone"][name]["kernel"])]
    assert still == ["stage1_0", "stage2_0"]

    classifier = zoo.create_model("vgg16")
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(classifier.init, jax.random.key(0), image)
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    zoo.save_model("vgg16", tmp_path / "vgg.safetensors", classifier, ones)
    more = RECIPES["fasterrcnn_voc"](**knobs, weights=str(tmp_path / "vgg.safetensors"))
    params = more.variables["params"]
    assert params["head"]["fc6"]["kernel"].min() == params["head"]["fc7"]["bias"].min() == 1
    assert params["backbone"]["stage5_2"]["conv"]["kernel"].min() == 1
    assert np.abs(params["head"]["logits"]["kernel"]).max() < 0.1  # fresh


def test_coco(cells, small, tmp_path):
    """torchvision's rates and frozen layers; norms of a classifier become frozen ones."""
    knobs = dict(source=cells, backbone="resnet18", batch_size=2, learning_rate=1.0)
    run = RECIPES["fasterrcnn_resnet50_fpn_coco"](**knobs, weights=None)
    told = {0: 0.001, 2: 1.0, 15.5: 1.0, 16: 0.1, 21.5: 0.1, 22: 0.01}
    steps = rates(run, told)
    np.testing.assert_allclose(steps["kernel"][:, 0] / -0.1, list(told.values()), rtol=1e-5)
    still = [name for name in FROZEN if not np.any(steps["backbone"][name]["kernel"])]
    assert still == ["stem", "stage1_0"]

    classifier = zoo.create_model("resnet18")
    shapes = jax.eval_shape(classifier.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    zoo.save_model("resnet18", tmp_path / "resnet.safetensors", classifier, ones)
    file = str(tmp_path / "resnet.safetensors")
    more = RECIPES["fasterrcnn_resnet50_fpn_coco"](**knobs, weights=file)
    fresh = jax.eval_shape(run.model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert jax.tree.structure(more.variables) == jax.tree.structure(fresh)
    norm = more.variables["batch_stats"]["backbone"]["stem"]["norm"]
    assert norm["scale"].min() == 1 and norm["var"].min() == np.float32(1 + 1e-5)
