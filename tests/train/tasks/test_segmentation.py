"""The segmentation task: it learns, is exact over splits, and shows what it did."""

import csv
import io
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import confusion_matrix, jaccard_score

from tests.train.fake_segmentation import CLASSES, PREPROCESSING, Convolutions, Squares, run
from train import loop, parallel, step
from train.data import eval_batches, train_batches
from train.log import read_rows
from train.metrics import classification
from train.metrics.connected_components import connected_components
from train.tasks.segmentation import segmentation
from zoo.inference import tiling

RANDOM = np.random.default_rng(0)
B, H, W, K = 4, 6, 5, 3
LOGITS = RANDOM.normal(0, 2, (B, H, W, K)).astype(np.float32)
MASK = RANDOM.integers(0, K, (B, H, W)).astype(np.uint8)
MASK[0, :3] = 255
WEIGHT = RANDOM.uniform(0, 3, MASK.shape).astype(np.float32)
VALID = np.arange(B) < 3
SCALE = (0.5, 1.0, 4.0)
task = partial(segmentation, preprocessing=PREPROCESSING, classes=("a", "b", "c"))


def batch(**more):
    image = RANDOM.integers(0, 256, (B, H, W, 1), dtype=np.uint8)
    return {"image": image, "mask": MASK, "valid": VALID, "index": np.arange(B), **more}


def entropy():
    p = np.exp(LOGITS.astype(np.float64))
    p = np.take_along_axis(p, np.where(MASK == 255, 0, MASK)[..., None].astype(int), -1)[..., 0] / (
        p.sum(-1)
    )
    return np.where(MASK == 255, 0, -np.log(p))


def weights(*parts):
    kept = (MASK != 255) & VALID[:, None, None]
    own = [np.array(SCALE)[np.where(MASK == 255, 0, MASK)], WEIGHT]
    return kept * np.prod([own[part] for part in parts] or [np.ones_like(WEIGHT)], 0)


def one_device():
    return parallel.create_layout("jit", devices=jax.devices()[:1])


def test_it_learns_a_square_and_leaves_pictures(tmp_path):
    rows = loop.fit(run(), tmp_path / "run", layout=one_device())
    assert rows["val/mean_iou"] > 0.9 and rows["val/pixel_accuracy"] > 0.95
    told = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert told[-1]["train/loss"] < told[0]["train/loss"] and "train/pixel_accuracy" in told[0]
    for picture in ("curves.png", "predictions.png", "confusion.png"):
        assert (tmp_path / "run" / picture).read_bytes().startswith(b"\x89PNG")
    table = list(csv.DictReader((tmp_path / "run" / "classes.csv").read_text().splitlines()))
    assert [row["class"] for row in table] == list(CLASSES)
    masks = np.stack([Squares(21, seed=1)[i]["mask"] for i in range(21)])
    assert [int(row["support"]) for row in table] == [np.sum(masks == k) for k in (0, 1)]


@pytest.mark.parametrize("flips", [False, True])
def test_evaluation_counts_every_pixel_once(flips):
    """21 examples in batches of 8 on 8 devices, against scikit-learn on all of them at once."""
    chosen = run(task=dict(predict=tiling.average_flips if flips else None))
    source = chosen.evaluate["val"]
    examples = [source[i] for i in range(len(source))]
    image, mask = (np.stack([e[name] for e in examples]) for name in ("image", "mask"))
    variables = jax.jit(chosen.model.init)(jax.random.key(1), np.zeros((1, 16, 16, 1), np.float32))
    layout = parallel.create_layout("jit")
    measure = parallel.compile_eval(
        layout, partial(step.eval_step, model=chosen.model, task=chosen.task)
    )
    measured = [
        parallel.gather_to_host(
            layout, measure(variables, parallel.put_batch(layout, part, mapped=False))
        )
        for part in eval_batches(source, batch_size=8)
    ]
    found = chosen.task.summarize(measured)

    @jax.jit
    def shares(pixels):
        return jax.nn.softmax(chosen.model.apply(variables, (pixels / 255 - 0.5) / 0.25)["logits"])

    views = [()] if not flips else [(), (1,), (2,), (1, 2)]
    p = np.mean([np.flip(shares(np.flip(np.float32(image), v)), v) for v in views], 0)
    kept, predicted = mask != 255, p.argmax(-1)
    truth = mask[kept].astype(int)
    counts = sum(part["confusion"].astype(int) for part in measured)
    np.testing.assert_array_equal(counts, confusion_matrix(truth, predicted[kept]))
    iou = jaccard_score(truth, predicted[kept], average="macro")
    assert found["mean_iou"] == pytest.approx(iou, rel=1e-9)
    loss = -np.log(np.take_along_axis(p[kept], truth[:, None], -1)).mean()
    assert found["loss"] == pytest.approx(loss, rel=1e-4)


CASES = {
    "plain": ({}, {}, ()),
    "class weights": (dict(class_weights=SCALE), {}, (0,)),
    "weight map": ({}, dict(weight=WEIGHT), (1,)),
    "both": (dict(class_weights=SCALE), dict(weight=WEIGHT), (0, 1)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_the_weighted_mean_over_pixels(case):
    knobs, more, parts = CASES[case]
    built, own = task(**knobs), weights(*parts)

    def total(logits):
        sums = built.loss({"logits": logits}, batch(**more))
        return sums[0], sums

    gradient, (found, weight, others) = jax.jit(jax.grad(total, has_aux=True))(LOGITS)
    assert found == pytest.approx(np.sum(own * entropy()), rel=1e-5)
    assert weight == pytest.approx(own.sum(), rel=1e-5)
    hits = np.sum(own * (LOGITS.argmax(-1) == MASK))
    assert others["pixel_accuracy"] == pytest.approx(hits, rel=1e-5)
    np.testing.assert_array_equal(np.any(gradient, -1), own > 0)


def test_losses_are_summed_and_an_image_counts_as_its_pixels():
    def ones(logits, mask):
        return jnp.arange(1.0, 1.0 + len(mask))

    built = task(loss=["cross_entropy", ones], auxiliary_weight=0.25)
    own = weights()
    expected = np.sum(own * entropy()) + np.sum(own.sum((1, 2)) * np.arange(1, 1 + B))
    found = jax.jit(lambda x: built.loss({"logits": x}, batch()))(LOGITS)[0]
    assert found == pytest.approx(expected, rel=1e-5)
    both = jax.jit(lambda x: built.loss({"logits": x, "auxiliary_logits": x}, batch()))(LOGITS)[0]
    assert both == pytest.approx(1.25 * expected, rel=1e-5)


def test_a_batch_of_ignored_pixels_teaches_nothing():
    empty = np.full_like(MASK, 255)
    built = task(loss=["cross_entropy", "focal", "dice", "lovasz"])

    def mean(logits):
        total, weight, _ = built.loss({"logits": logits}, batch(mask=empty))
        return total / weight

    value, gradient = jax.jit(jax.value_and_grad(mean))(LOGITS)
    assert float(value) == 0 and not np.asarray(gradient).any()


@pytest.mark.parametrize("layout", ["micro-batches", "jit", "pmap"])
def test_splits_of_a_batch_train_alike(layout):
    """Loss, gradients and parameters of two steps; SGD, so that nothing hides their size."""
    chosen = run(
        Convolutions(auxiliary=True),
        dict(loss=("cross_entropy", "dice", "lovasz"), class_weights=(1.0, 3.0)),
        optimizer=optax.sgd(0.1),
    )

    def trained(layout, accumulate=1):
        parts = dict(model=chosen.model, task=chosen.task, optimizer=chosen.optimizer)
        start = partial(step.init_state, **parts)
        example = {"image": np.zeros((1, 16, 16, 1), np.uint8)}
        places = parallel.state_shardings(layout, jax.eval_shape(start, jax.random.key(0), example))
        state = jax.jit(start, out_shardings=places)(jax.random.key(0), example)
        one = partial(step.train_step, **parts, accumulation_steps=accumulate, unroll=True)
        one, rows = parallel.compile_train(layout, one, places), []
        batches = train_batches(chosen.train, batch_size=16, seed=0, start=0, stop=2)
        for part in parallel.prefetch_to_device(layout, batches):
            state, sums = one(state, part)
            rows.append(jax.tree.map(np.asarray, parallel.gather_to_host(layout, sums)))
        return rows, parallel.gather_to_host(layout, state.params)

    if "expected" not in trained_alone:
        trained_alone["expected"] = trained(one_device())
    if layout == "micro-batches":
        found = trained(one_device(), accumulate=4)
    else:
        found = trained(parallel.create_layout(layout))
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found, trained_alone["expected"]
    )


trained_alone = {}


def test_valid_convolutions_see_the_middle_of_the_mask_or_a_mirrored_image():
    model = Convolutions(padding="VALID")
    image = np.stack([Squares(2)[i]["image"] for i in range(2)])
    mask = np.stack([Squares(2)[i]["mask"] for i in range(2)])
    part = {"image": image, "mask": mask, "valid": np.ones(2, bool)}
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 16, 16, 1), np.float32))
    apply = jax.jit(partial(model.apply, variables))
    pixels = (image / np.float32(255) - np.float32(0.5)) / np.float32(0.25)
    for margin, padded, seen in (
        (0, pixels, mask[:, 2:-2, 2:-2]),
        (2, np.pad(pixels, [(0, 0), (2, 2), (2, 2), (0, 0)], mode="reflect"), mask),
        (3, np.pad(pixels, [(0, 0), (2, 2), (2, 2), (0, 0)], mode="reflect"), mask),
    ):
        built = segmentation(preprocessing=PREPROCESSING, classes=CLASSES, margin=margin)
        (given,) = built.inputs(part, True)
        assert given.shape == (2, 16 + 2 * margin, 16 + 2 * margin, 1)
        logits = np.asarray(apply(padded)["logits"])
        measured = jax.jit(partial(built.measure, apply))(part)
        kept = seen != 255
        expected = confusion_matrix(seen[kept], logits.argmax(-1)[kept])
        np.testing.assert_array_equal(measured["confusion"], expected)
    with pytest.raises(ValueError, match="16 x 16 can be mirrored by less.* got margin 16"):
        segmentation(preprocessing=PREPROCESSING, classes=CLASSES, margin=16).inputs(part, True)


@pytest.mark.parametrize("membrane", [0, 1])
def test_membranes_are_scored_as_the_challenge_scores_them(membrane):
    cells = np.zeros((3, 12, 12), bool)
    cells[:, :5], cells[:, 7:, :6], cells[:, 7:, 8:] = True, True, True
    shown = np.clip(cells + RANDOM.normal(0, 1.0, cells.shape), 0.01, 0.99).astype(np.float32)
    logits = np.log(np.stack([1 - shown, shown], -1))[..., :: 1 if membrane == 0 else -1]
    mask = np.where(cells, 1 - membrane, membrane).astype(np.uint8)
    mask[0, :2] = 255
    valid = np.array([True, True, False])
    part = {"image": np.zeros((3, 12, 12, 1), np.uint8), "mask": mask, "valid": valid}
    built = segmentation(preprocessing=PREPROCESSING, classes=CLASSES, membrane=membrane)
    measured = jax.jit(partial(built.measure, lambda image: {"logits": logits}))(part)
    found = built.summarize([jax.tree.map(np.asarray, measured)])
    truth = [connected_components(one == 1 - membrane) for one in mask[:2]]
    expected = classification.isbi_scores(shown[:2], truth)
    assert found["rand"] == pytest.approx(expected["rand"], rel=1e-3)
    assert found["information"] == pytest.approx(expected["information"], rel=1e-3)
    assert 0.1 < found["rand"] < 1


def test_pictures_show_the_hardest_first_and_name_the_classes():
    count = 12
    mask = np.resize(MASK, (count, H, W)).copy()
    mask[2] = 255
    right = np.eye(K, dtype=np.float32)[np.where(mask == 255, 0, mask)]
    right[7] = np.roll(right[7], 1, -1)
    right[5, :2] = np.roll(right[5, :2], 1, -1)
    image = RANDOM.integers(0, 256, (count, H, W, 1), dtype=np.uint8)
    part = {"image": image, "mask": mask, "valid": np.ones(count, bool), "index": np.arange(count)}
    palette = np.array([[1, 2, 3], [40, 50, 60], [200, 0, 7]])
    built = task(palette=palette)
    outputs = {"logits": right}
    measured = jax.jit(partial(built.measure, lambda image: {"logits": right}))(part)
    drawn = built.render(part, outputs, [jax.tree.map(np.asarray, measured)])
    figure = drawn["predictions.png"]
    said = [text.get_text() for text in figure.axes[0].texts]
    assert said[0].startswith("hardest: number 7, mean IoU 0.000, 0.0 % of the pixels right")
    assert said[1].startswith("hardest: number 5, mean IoU 0.")
    assert len(said) == 6 + 4 + 4 and said[-4:] == ["image", "truth", "prediction", "error"]
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["a", "b", "c", "wrong", "ignored"]
    canvas = figure.axes[0].get_images()[0].get_array()
    colors = {tuple(color) for color in np.asarray(canvas).reshape(-1, 3).tolist()}
    assert {tuple(color) for color in palette.tolist()} <= colors
    table = list(csv.DictReader(io.StringIO(drawn["classes.csv"])))
    assert list(table[0]) == ["class", "support", "predicted", "accuracy", "iou", "dice"]
    shares = classification.region_metrics(np.asarray(measured["confusion"]))
    np.testing.assert_allclose([float(row["iou"]) for row in table], shares["iou"], atol=6e-5)


BAD = {
    "loss": (dict(loss="lovas"), "unknown loss 'lovas': did you mean lovasz"),
    "no loss": (dict(loss=()), "expected a loss or several"),
    "weights": (dict(class_weights=(1, 2)), "class_weights are 3 numbers"),
    "negative": (dict(class_weights=(1, 2, -1)), "class_weights are 3 numbers"),
    "margin": (dict(margin=-1), "margin is 0 or more pixels; got -1"),
    "membrane": (dict(membrane=0), "membrane is 0 or 1, of two classes; got 0 of 3"),
    "palette": (dict(palette=np.zeros((2, 3))), "palette is .3, 3., a color for each"),
    "classes": (dict(classes=("one",)), "2 to 255 classes; got 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_knobs_that_cannot_be(case):
    knobs, says = BAD[case]
    with pytest.raises(ValueError, match=says) as caught:
        task(**knobs)
    assert "\n" not in str(caught.value)
