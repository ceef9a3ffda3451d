"""What the tasks count, against plain numpy; what they draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import augment, log, plots
from train.metrics import classification as metrics
from train.tasks.classification import classification
from train.tasks.reconstruction import LOSSES, reconstruction
from zoo.preprocess import Preprocessing

GENERATOR = np.random.default_rng(0)
CLASSES = tuple(f"class{number}" for number in range(25))


def scores(task, logits, label, valid):
    """What `measure` and `summarize` make of given logits, in two uneven batches."""
    parts = []
    for rows in (slice(0, 30), slice(30, None)):
        batch = {"image": np.zeros((len(label[rows]), 1, 1, 1), np.uint8)}
        batch |= {"label": label[rows], "valid": valid[rows], "index": np.arange(len(label[rows]))}
        measured = task.measure(lambda _, rows=rows: {"logits": jnp.asarray(logits[rows])}, batch)
        parts.append(jax.tree.map(np.asarray, measured))
    return task.summarize(parts)


def test_classification_counts_like_numpy_and_leaves_padding_out():
    task = classification(
        preprocessing=Preprocessing(mean=(0.0,), std=(1.0,), size=(1, 1)), classes=CLASSES
    )
    logits = GENERATOR.normal(size=(40, 25)).astype(np.float32)
    label = GENERATOR.integers(0, 25, 40).astype(np.int32)
    valid = np.arange(40) < 37
    found = scores(task, logits, label, valid)
    order = np.argsort(-logits[valid], 1)
    hits = order == label[valid][:, None]
    assert found["accuracy"] == pytest.approx(hits[:, 0].mean())
    assert found["top5_accuracy"] == pytest.approx(hits[:, :5].any(1).mean())
    p = np.exp(logits[valid]) / np.exp(logits[valid]).sum(1, keepdims=True)
    loss = -np.log(p[np.arange(37), label[valid]]).mean()
    assert found["loss"] == pytest.approx(loss, rel=1e-5)


def test_label_smoothing_is_the_mixture_with_the_uniform_law():
    smooth = classification(
        preprocessing=Preprocessing(mean=(0.0,), std=(1.0,), size=(1, 1)),
        classes=CLASSES,
        label_smoothing=0.1,
    )
    logits = GENERATOR.normal(size=(4, 25)).astype(np.float32)
    label = np.array([3, 0, 24, 7])
    logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -(0.9 * logp[np.arange(4), label] + 0.1 * logp.mean(1)).sum()
    total, weight, _ = smooth.loss({"logits": logits}, {"label": label, "valid": np.ones(4, bool)})
    assert float(total) == pytest.approx(expected, rel=1e-5) and float(weight) == 4


def test_soft_labels_of_mixup_replace_the_label_in_the_loss():
    task = classification(
        preprocessing=Preprocessing(mean=(0.0,), std=(1.0,), size=(1, 1)), classes=("a", "b")
    )
    keys, images = jax.random.split(jax.random.key(0), 4), np.zeros((4, 2, 2, 1), np.float32)
    batch = {"image": images, "label": np.array([0, 1, 1, 0]), "valid": np.ones(4, bool)}
    mixed = augment.mixup(keys, batch, classes=2)
    logits = GENERATOR.normal(size=(4, 2)).astype(np.float32)
    logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    total, _, _ = task.loss({"logits": logits}, mixed)
    assert float(total) == pytest.approx(-float((mixed["target"] * logp).sum()), rel=1e-5)


def test_a_model_of_nans_scores_nothing():
    logits = np.full((3, 25), np.nan, np.float32)
    assert not metrics.top_k_correct(logits, np.array([0, 1, 2]), k=5).any()


@pytest.mark.parametrize("loss", ["cross_entropy", *LOSSES])
def test_reconstruction_losses_are_means_over_pixels(loss):
    image = GENERATOR.integers(0, 256, (2, 4, 4, 1), dtype=np.uint8)
    logits = GENERATOR.normal(size=image.shape).astype(np.float32)
    y, x = 1 / (1 + np.exp(-logits)), image / 255
    r = np.abs(y - x)
    expected = {
        "cross_entropy": -(x * np.log(y) + (1 - x) * np.log(1 - y)),
        "squared": r**2,
        "absolute": r,
        "smooth_l1": r**2 / 2,  # every error is below 1
        "huber": r**2 / 2,
    }[loss]
    batch = {"image": image, "valid": np.array([True, True]), "index": np.arange(2)}
    task = reconstruction(loss=loss)
    outputs = {"reconstruction": jnp.asarray(y), "reconstruction_logits": jnp.asarray(logits)}
    total, weight, parts = task.loss(outputs, batch)
    assert float(total / weight) == pytest.approx(expected.mean(), rel=1e-4)
    assert float(parts["squared_error"]) == pytest.approx((r**2).sum(), rel=1e-4)


def test_noise_is_fresh_in_training_and_fixed_in_evaluation():
    task = reconstruction(noise=0.3)
    image = np.full((6, 8, 8, 1), 128, np.uint8)
    batch = {"image": image, "valid": np.ones(6, bool), "index": np.arange(6, dtype=np.int32)}
    draws = [
        np.asarray(task.inputs(task.augment(jax.random.split(jax.random.key(k), 6), batch), True))
        for k in (0, 0, 1)
    ]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.abs(draws[0] - draws[2]).max() > 0.1
    (whole,) = task.inputs(batch, False)
    (part,) = task.inputs({name: value[3:] for name, value in batch.items()}, False)
    np.testing.assert_array_equal(whole[3:], part)
    assert 0.2 < float(jnp.std(whole)) < 0.3 and float(whole.min()) >= 0 <= float(whole.max()) <= 1


def test_shift_reaches_every_place_and_loses_nothing_else():
    image = np.zeros((7, 7, 1), np.float32)
    image[3, 3] = 1
    keys = jax.random.split(jax.random.key(0), 300)
    moved = jax.vmap(lambda key: augment.shift(key, image, pixels=2))(keys)
    places = {tuple(np.argwhere(one[..., 0])[0]) for one in np.asarray(moved)}
    assert places == {(y, x) for y in range(1, 6) for x in range(1, 6)}
    assert float(moved.sum()) == 300


def test_functions_on_images_draw_apart():
    def draw(key, image):
        return image + jax.random.uniform(key)

    batch = {"image": jnp.zeros((3, 1, 1, 1)), "label": jnp.arange(3)}
    keys = jax.random.split(jax.random.key(0), 3)
    one = augment.images(draw)(keys, batch)["image"]
    two = augment.images(draw, draw)(keys, batch)["image"]
    assert len({float(x) for x in (two - one).ravel()} | {float(x) for x in one.ravel()}) == 6


def test_curves_have_a_line_for_every_source_and_metric():
    rows = [
        {"step": s, "epoch": s / 2, "train/loss": 1 / s, "val/loss": 2 / s, "val/accuracy": 0.5}
        for s in (1, 2, 3)
    ]
    figure = plots.plot_curves(rows, best=2)
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy"]
    labels = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes]
    assert labels[0][:2] == ["train 0.3333", "val 0.6667"] and "kept: epoch 1" in labels[0]
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [1, 1 / 2, 1 / 3])


def test_pictures_stand_where_their_titles_say():
    images = GENERATOR.integers(0, 256, (13, 8, 6, 3), dtype=np.uint8)
    canvas, corners = plots.tile_images(images, columns=5, strip=3, gap=1)
    assert canvas.shape == (3 * 11, 5 * 7, 3)
    for (top, left), image in zip(corners, images, strict=True):
        np.testing.assert_array_equal(canvas[top : top + 8, left : left + 6], image)
    floats, _ = plots.tile_images(images / 255, columns=5, strip=3, gap=1)
    np.testing.assert_array_equal(floats, canvas)


def test_a_row_s_line_and_a_file_cut_by_a_kill(tmp_path):
    assert log.format_row({"step": 20, "epoch": 2.0, "val/accuracy": 0.98765}).split() == (
        ["epoch", "2", "step", "20", "val/accuracy", "0.9877"]
    )
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a/b": 1.0}\n{"step": 2, "a/')
    assert log.read_rows(path) == [{"step": 1, "a/b": 1.0}]


def test_many_metrics_stand_in_rows():
    row = {"step": 1, "epoch": 1.0} | {f"val/metric{number}": 0.5 for number in range(9)}
    figure = plots.plot_curves([row])
    assert len(figure.axes) == 9
    assert len({round(axes.get_position().y0, 2) for axes in figure.axes}) == 3
