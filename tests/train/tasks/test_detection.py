"""The detection task: exact over splits, blind to crowds and padding, and it shows what it did."""

import csv
from functools import partial

import jax
import numpy as np
import pytest

from tests.train.fake_detector import CLASSES, HEIGHT, OBJECTS, WIDTH, Reader, Told, run, task
from train import loop, parallel, step
from train.data import eval_batches
from train.log import read_rows
from train.metrics import detection as metrics
from train.tasks.detection import prediction_rows


def whole(source, **more):
    """All examples as one batch."""
    examples = [source[i] for i in range(len(source))]
    batch = {name: np.stack([e[name] for e in examples]) for name in examples[0]}
    count = len(examples)
    return {**batch, "index": np.arange(count), "valid": np.ones(count, bool), **more}


def measured(built, batch):
    """What the task gives for a batch that tells the detections."""
    apply = partial(Reader().apply, {"params": {"weight": np.float32(1)}})
    return jax.tree.map(np.asarray, jax.jit(partial(built.measure, apply))(batch))


def told(batch):
    """What the images tell, as a detector's outputs."""
    rows = batch["image"][:, :8, :7, 0].astype(np.float32)
    found = dict(boxes=rows[..., :4], scores=rows[..., 4] / 255)
    return {**found, "labels": rows[..., 5].astype(int), "valid": rows[..., 6] > 0}


def one_device():
    return parallel.create_layout("jit", devices=jax.devices()[:1])


def test_it_trains_and_leaves_pictures(tmp_path):
    rows = loop.fit(run(), tmp_path / "run", layout=one_device())
    logged = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert logged[-1]["train/much"] < logged[0]["train/much"] and 0 < rows["val/ap50"] < 1
    assert rows["val/loss"] == pytest.approx(rows["val/much"] + rows["val/many"])
    for picture in ("curves.png", "predictions.png", "precision_recall.png"):
        assert (tmp_path / "run" / picture).read_bytes().startswith(b"\x89PNG")
    table = list(csv.DictReader((tmp_path / "run" / "classes.csv").read_text().splitlines()))
    assert [row["class"] for row in table] == list(CLASSES)
    seen = whole(Told(21, seed=1))
    counted = seen["labels"][seen["box_valid"] & ~seen["crowd"]]
    assert [int(row["objects"]) for row in table] == np.bincount(counted).tolist()
    mean = np.mean([float(row["ap50"]) for row in table])
    assert mean == pytest.approx(rows["val/ap50"], abs=1e-4)


@pytest.mark.parametrize("metric", ["voc", "coco"])
def test_evaluation_counts_every_image_once(metric):
    """21 examples in batches of 8 on 8 devices, against what the images tell, all at once."""
    chosen = run(task=task(metric=metric))
    source = chosen.evaluate["val"]
    layout = parallel.create_layout("jit")
    measure = parallel.compile_eval(
        layout, partial(step.eval_step, model=chosen.model, task=chosen.task)
    )
    variables = {"params": {"weight": np.float32(2)}}
    parts = [
        parallel.gather_to_host(
            layout, measure(variables, parallel.put_batch(layout, part, mapped=False))
        )
        for part in eval_batches(source, batch_size=8)
    ]
    found = chosen.task.summarize(parts)
    seen = whole(source)
    half = np.array([1, 0.5, 1, 0.5], np.float32)  # the files' pixels
    rows = dict(
        index=seen["index"],
        seen=seen["valid"],
        **{**told(seen), "boxes": told(seen)["boxes"] * half},
        truth_boxes=seen["boxes"] * half,
        truth_labels=seen["labels"],
        truth_valid=seen["box_valid"],
        crowd=seen["crowd"],
    )
    figures = metrics.voc_metrics if metric == "voc" else metrics.coco_metrics
    expected = figures(metrics.collect_rows([rows]), classes=3)
    np.testing.assert_equal({name: found[name] for name in expected}, expected)
    assert found["much"] == pytest.approx(
        np.mean((510 * told(seen)["scores"].mean(-1)) ** 2) / 100, rel=1e-5
    )
    assert found["many"] == (seen["box_valid"] & ~seen["crowd"]).sum() / 21


def test_the_loss_leaves_out_padding_and_crowds():
    batch = whole(Told(6), valid=np.arange(6) < 4)
    built = task()
    confidence = np.array([1, 2, 3, 4, np.nan, np.inf], np.float32)
    total, weight, parts = jax.jit(built.loss)({"confidence": confidence}, batch)
    many = (batch["box_valid"] & ~batch["crowd"])[:4].sum()
    assert weight == 4 and parts["many"] == many and batch["crowd"].any()
    assert total == pytest.approx(many + 0.3, rel=1e-6)


def test_what_the_model_is_called_with():
    """Zeros beyond the picture; with `truth` the objects that are not crowd, then the size alone."""
    batch = whole(Told(3))
    batch["image"] += 7
    batch["size"] = np.array([[HEIGHT, WIDTH], [11, WIDTH], [HEIGHT, 13]], np.int32)
    (image,) = jax.jit(partial(task().inputs, train=True))(batch)
    expected = batch["image"].astype(np.float32)
    expected[1, 11:], expected[2, :, 13:] = 0, 0
    np.testing.assert_allclose(image, expected, rtol=1e-6)
    built = task(truth=True)
    again, truth = jax.jit(partial(built.inputs, train=True))(batch)
    np.testing.assert_array_equal(again, image)
    assert sorted(truth) == ["box_valid", "boxes", "labels", "size"]
    np.testing.assert_array_equal(truth["box_valid"], batch["box_valid"] & ~batch["crowd"])
    np.testing.assert_array_equal(truth["boxes"], batch["boxes"])
    _, truth = jax.eval_shape(partial(built.inputs, train=False), batch)
    assert list(truth) == ["size"]
    figures = built.summarize([measured(built, batch)])
    assert list(figures) == ["ap50", "ap50_voc07"]  # such a model has no loss in evaluation


def test_objects_are_measured_by_their_area_where_it_is_known():
    batch = whole(Told(4), area=np.full((4, OBJECTS), 5000.0, np.float32))
    built = task(metric="coco")
    given = measured(built, batch)
    figures = built.summarize([given])
    assert np.isnan(figures["ap_small"]) and figures["ar_medium"] >= 0
    drawn = built.render(batch, told(batch), [given])["classes.csv"].splitlines()
    assert drawn[0] == "class,objects,detections,found,ap50,ap50_voc07,ap"


def test_pictures_show_the_hardest_first_and_what_is_wrong():
    """Of twelve images one misses all, one finds one and errs; the score drawn from is the best."""
    count = 12
    box, other, far = (2, 2, 8, 8), (10, 4, 18, 14), (12, 12, 20, 20)
    batch = whole(Told(count))
    batch["boxes"] = np.tile(np.array([box, other, far, box, box], np.float32), (count, 1, 1))
    batch["labels"] = np.tile(np.arange(5) % 3, (count, 1))
    batch["box_valid"] = np.tile(np.arange(5) < 3, (count, 1))
    batch["crowd"] = np.tile(np.arange(5) == 2, (count, 1))
    outputs = {name: batch[name].copy() for name in ("boxes", "labels")}
    outputs |= {"valid": batch["box_valid"].copy(), "scores": np.full((count, 5), 0.9, np.float32)}
    outputs["valid"][7] = False
    outputs["labels"][5, 0] = 2
    outputs["valid"][:, 3], outputs["scores"][:, 3] = True, 0.3  # twice: wrong, and not drawn
    built = task()
    rows = dict(prediction_rows(batch, outputs), seen=batch["valid"])
    drawn = built.render(batch, outputs, [{"rows": rows, "parts": {}}])
    figure = drawn["predictions.png"]
    said = [text.get_text() for text in figure.axes[0].texts]
    titles = [words for words in said if "number" in words]
    assert titles[0] == "hardest: number 7, 0 of 2 found, 0 wrong"
    assert titles[1] == "hardest: number 5, 1 of 2 found, 1 wrong"
    assert titles[2] == "hardest: number 0, 2 of 2 found, 0 wrong"
    assert [title.split(":")[0] for title in titles] == ["hardest"] * 6 + ["as it comes"] * 4
    # three objects an image; detections of ten images but one, that of crowd among them
    assert len(figure.axes[0].patches) == 30 + 27
    dashed = [patch for patch in figure.axes[0].patches if patch.get_linestyle() == "--"]
    assert len(dashed) == 2 + 2  # both of number 7; ring missed and cross wrong in number 5
    assert said[:3] == ["ring", "disc", "cross"] and "cross 0.90" in said
    assert "from a score of 0.90 on" in figure.texts[0].get_text()
    legend = drawn["precision_recall.png"].legends[0].get_texts()
    ap = [row.split(",")[4] for row in drawn["classes.csv"].splitlines()[1:]]
    named = [f"{name} {float(share):.3f}" for name, share in zip(CLASSES, ap, strict=True) if share]
    assert [text.get_text() for text in legend] == named and len(named) == 2
    lines = drawn["precision_recall.png"].axes[0].lines
    assert lines[0].get_xdata()[9] == pytest.approx(10 / 12)
    assert lines[0].get_ydata()[-1] == pytest.approx(12 / 22)


def test_pictures_of_nothing():
    batch = whole(Told(2))
    batch["box_valid"][:] = False
    outputs = {**told(batch), "valid": np.zeros((2, 8), bool)}
    built = task()
    rows = dict(prediction_rows(batch, outputs), seen=batch["valid"])
    drawn = built.render(batch, outputs, [{"rows": rows, "parts": {}}])
    assert drawn["classes.csv"].splitlines()[1] == "ring,0,0,0,,"
    assert not drawn["precision_recall.png"].axes[0].lines


BAD = {
    "metric": (dict(metric="voc12"), "metric is one of voc, coco; got 'voc12'"),
    "classes": (dict(classes=()), "one class or more; got none"),
}


@pytest.mark.parametrize("case", BAD)
def test_knobs_that_cannot_be(case):
    knobs, says = BAD[case]
    with pytest.raises(ValueError, match=says) as caught:
        task(**knobs)
    assert "\n" not in str(caught.value)
