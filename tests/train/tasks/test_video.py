"""Clips to labels: what a model is called with, and scores averaged over the views of a video."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.tasks.video import average_views, video
from zoo.preprocess import Preprocessing

PRE = Preprocessing(mean=(0.4,), std=(0.25,), size=(4, 4), crop=0.5)
CLASSES = tuple("abcde")
RANDOM = np.random.default_rng(0)
B, T, K = 6, 5, len(CLASSES)
BATCH = {
    "video": RANDOM.integers(0, 256, (B, T, 8, 8, 1), dtype=np.uint8),
    "flow": RANDOM.integers(0, 256, (B, 3, 8, 8, 2), dtype=np.uint8),
    "maps": RANDOM.integers(0, 256, (B, 8, 8, 7), dtype=np.uint8),
    "label": np.int32([0, 1, 2, 3, 4, 0]),
    "index": np.arange(B, dtype=np.int32),
    "valid": np.array([True] * 5 + [False]),
}


def task(**knobs):
    return video(preprocessing=PRE, classes=CLASSES, **knobs)


def unit(pixels, mean=0.4):
    return (pixels / 255 - mean) / 0.25


def center(maps, rows=-3):
    return np.take(np.take(maps, range(2, 6), rows), range(2, 6), rows + 1)


def test_in_evaluation_the_model_sees_the_center():
    (clip,) = task().inputs(BATCH, False)
    np.testing.assert_allclose(clip, center(unit(BATCH["video"])), atol=1e-5)
    (frame,) = task(inputs="frame").inputs(BATCH, False)
    np.testing.assert_allclose(frame, center(unit(BATCH["video"]))[:, T // 2], atol=1e-5)
    (maps,) = task(inputs="maps").inputs(BATCH, False)
    np.testing.assert_allclose(maps, center(unit(BATCH["maps"])), atol=1e-5)


def test_flow_is_a_stack_of_x_and_y_less_the_mean_of_each_field():
    (stack,) = task(inputs="flow").inputs(BATCH, False)
    assert stack.shape == (B, 4, 4, 6)
    field = center(BATCH["flow"][:, 1, :, :, 1] / 255, -2)
    expected = (field - field.mean((1, 2), keepdims=True)) / 0.25
    np.testing.assert_allclose(stack[..., 3], expected, atol=1e-5)
    image, both = task(inputs="both", flow=PRE._replace(std=(0.5,))).inputs(BATCH, False)
    assert image.shape == (B, 4, 4, 1)
    np.testing.assert_allclose(2 * both, stack, atol=1e-5)


def test_in_training_a_frame_is_drawn_by_the_example_s_number():
    built = video(preprocessing=PRE._replace(size=(8, 8)), classes=CLASSES, inputs="frame")
    many = {"video": np.repeat(BATCH["video"][:1], 200, 0), "index": np.arange(200)}
    (first,) = built.inputs(many, True)
    every = unit(BATCH["video"][0])
    times = np.abs(np.asarray(first)[:, None] - every).sum((2, 3, 4)).argmin(1)
    np.testing.assert_allclose(first, every[times], atol=1e-5)
    assert (np.bincount(times, minlength=T) > 20).all()
    np.testing.assert_array_equal(first, built.inputs(many, True)[0])
    later = {**many, "index": many["index"] + 200}
    assert (np.asarray(built.inputs(later, True)[0]) != np.asarray(first)).any()


def test_the_loss_is_the_mean_over_clips():
    logits = RANDOM.normal(size=(B, K)).astype(np.float32)
    total, weight, parts = task().loss({"logits": logits}, BATCH)
    logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -logp[np.arange(5), BATCH["label"][:5]]
    assert float(weight) == 5 and float(total) == pytest.approx(expected.sum(), rel=1e-5)
    assert float(parts["accuracy"]) == np.sum((logits.argmax(1) == BATCH["label"])[:5])


@pytest.mark.parametrize("classes", [5, 30])
def test_views_of_a_video_are_averaged_before_they_are_counted(classes):
    """40 videos of 1 to 7 views, shuffled over uneven batches with padding in between."""
    built = video(preprocessing=PRE, classes=[str(k) for k in range(classes)])
    label = RANDOM.integers(0, classes, 40)
    group = np.repeat(np.arange(40) * 3, RANDOM.integers(1, 8, 40))
    group = RANDOM.permutation(group)
    logits = RANDOM.normal(0, 2, (len(group), classes)).astype(np.float32)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    mean = np.stack([shares[group == 3 * v].mean(0) for v in range(40)])
    measured = []
    for rows in np.split(np.arange(len(group)), [10, 50, 51]):
        padded = np.append(rows, rows[-1:])
        batch = {
            "video": np.zeros((len(padded), 2, 8, 8, 1), np.uint8),
            "label": label[group[padded] // 3].astype(np.int32),
            "group": group[padded].astype(np.int32),
            "index": padded,
            "valid": np.arange(len(padded)) < len(rows),
        }
        apply = lambda clip, padded=padded: {"logits": jnp.asarray(logits[padded])}
        measured.append(jax.tree.map(np.asarray, built.measure(apply, batch)))
    scores, labels, groups = average_views(measured)
    np.testing.assert_allclose(scores, mean, rtol=1e-5)
    assert labels.tolist() == label.tolist() and groups.tolist() == [3 * v for v in range(40)]
    found = built.summarize(measured)
    order = np.argsort(-mean, 1)
    assert found["accuracy"] == np.mean(order[:, 0] == label)
    assert found["loss"] == pytest.approx(-np.log(mean[np.arange(40), label]).mean(), rel=1e-5)
    if classes > 20:
        assert found["top5_accuracy"] == np.mean((order[:, :5] == label[:, None]).any(1))
    else:
        assert found.keys() == {"loss", "accuracy"}


def test_a_model_s_own_scores_are_averaged():
    scores = np.eye(K, dtype=np.float32)[[1, 1, 2, 0, 4, 0]]
    outputs = {"scores": jnp.asarray(scores), "logits": jnp.zeros((B, K))}
    rows = jax.tree.map(np.asarray, task().measure(lambda clip: outputs, BATCH))
    assert task().summarize([rows])["accuracy"] == 3 / 5


@pytest.mark.parametrize("kind", ["video", "flow", "maps"])
def test_strips_of_frames_with_truth_and_guess(kind):
    batch = {name: BATCH[name] for name in (kind, "label", "index", "valid")}
    logits = np.full((B, K), -3.0)
    logits[np.arange(B), [0, 1, 2, 3, 0, 0]] = 3
    rows = [{"scores": np.exp(logits), "label": batch["label"], "group": batch["index"]}]
    drawn = task(inputs=kind).render(batch, {"logits": logits}, rows)
    assert drawn.keys() == {"predictions.png", "confusion.png", "classes.csv"}
    said = [text.get_text() for text in drawn["predictions.png"].axes[0].texts]
    assert len(said) == 2 * B and said[0] == "a 99%, is e"
    colors = [text.get_color() for text in drawn["predictions.png"].axes[0].texts]
    assert colors.count("red") == 2
    assert "a,2,3," in drawn["classes.csv"]


BAD = {
    "inputs": (dict(inputs="frames"), "inputs is one of video, frame, flow, maps, both; got 'fra"),
    "loss": (dict(loss="softmx"), "unknown loss 'softmx'"),
}


@pytest.mark.parametrize("case", BAD)
def test_knobs_that_cannot_be(case):
    knobs, says = BAD[case]
    with pytest.raises(ValueError, match=says):
        task(**knobs)
    with pytest.raises(ValueError, match="expected videos"):
        task().inputs({"video": BATCH["maps"]}, True)
