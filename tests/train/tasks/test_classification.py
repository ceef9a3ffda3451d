"""The classifier's losses, looks and reports against plain numpy and scikit-learn."""

import csv
import io
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from train import augment, plots
from train.metrics import classification as metrics
from train.tasks.classification import LOSSES, Loss, classification
from train.tasks.crops import ten_crops
from zoo import losses
from zoo.preprocess import Preprocessing, preprocess

RANDOM = np.random.default_rng(0)
B, K = 8, 5
CLASSES = tuple("abcde")
PIXEL = Preprocessing(mean=(0.0,), std=(1.0,), size=(1, 1))
LOGITS = RANDOM.normal(0, 2, (B, K)).astype(np.float32)
LABEL = RANDOM.integers(0, K, B).astype(np.int32)
TARGET = RANDOM.dirichlet(np.ones(K), B).astype(np.float32)
WEIGHTS = (0.2, 3.0, 1.0, 0.5, 2.0)
VALID = np.arange(B) < 7
IMAGE = RANDOM.integers(0, 256, (B, 1, 1, 1), dtype=np.uint8)
task = partial(classification, preprocessing=PIXEL, classes=CLASSES)


def batch(**more):
    return {"image": IMAGE, "label": LABEL, "valid": VALID, "index": np.arange(B), **more}


def mean(built, logits=LOGITS, **more):
    total, weight, _ = built.loss({"logits": jnp.asarray(logits)}, batch(**more))
    return float(total / weight)


def logp(logits=LOGITS):
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


W = np.array(WEIGHTS)
ONE_HOT = np.eye(K)[LABEL]


def test_class_weights_divide_by_the_weights_of_the_labels():
    """torch.nn.functional.cross_entropy(weight=) with class indices."""
    own = W[LABEL][VALID]
    expected = -(own * logp()[VALID, LABEL[VALID]]).sum() / own.sum()
    assert mean(task(class_weights=WEIGHTS)) == pytest.approx(expected, rel=1e-5)


def test_class_weights_with_smoothing_weight_every_class_s_term():
    """The same with label_smoothing=: terms weighted by class, divided by the labels' weights."""
    soft = 0.9 * ONE_HOT + 0.1 / K
    expected = -(W * soft * logp())[VALID].sum() / W[LABEL][VALID].sum()
    found = mean(task(class_weights=WEIGHTS, label_smoothing=0.1))
    assert found == pytest.approx(expected, rel=1e-5)


def test_class_weights_with_mixed_labels_divide_by_the_number():
    """The same with class probabilities, which torch divides by the number of examples."""
    expected = -(W * TARGET * logp())[VALID].sum() / VALID.sum()
    found = mean(task(class_weights=WEIGHTS), target=TARGET)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_any_loss_is_weighted_by_the_true_class(name):
    each = np.asarray(LOSSES[name].hard(jnp.asarray(LOGITS), jnp.asarray(LABEL)))[VALID]
    own = W[LABEL][VALID]
    assert mean(task(loss=name)) == pytest.approx(each.mean(), rel=1e-5)
    found = mean(task(loss=name, class_weights=WEIGHTS))
    assert found == pytest.approx((own * each).sum() / own.sum(), rel=1e-5)


def test_a_mixture_under_binary_cross_entropy_is_the_expected_weighted_loss():
    """sum_c t_c w_c loss(c): what drawing the label by its shares gives on average."""
    by_class = np.stack(
        [LOSSES["binary"].hard(jnp.asarray(LOGITS), jnp.full(B, c, np.int32)) for c in range(K)], 1
    )
    expected = (TARGET * W * by_class)[VALID].sum() / VALID.sum()
    found = mean(task(loss="binary", class_weights=WEIGHTS), target=TARGET)
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_class_of_no_weight_is_no_nan():
    built = task(class_weights=(0, 1, 1, 1, 1))
    target = np.eye(K, dtype=np.float32)[[0, 0, 1, 1, 2, 2, 3, 3]]
    gradient = jax.grad(lambda x: built.loss({"logits": x}, batch(target=target))[0])(LOGITS)
    assert np.isfinite(gradient).all() and not np.asarray(gradient[:2]).any()


def test_a_function_of_the_table_brings_its_soft_form():
    given = task(loss=optax.softmax_cross_entropy_with_integer_labels)
    assert mean(given, target=TARGET) == mean(task(loss="softmax"), target=TARGET)


def test_an_own_loss_with_a_soft_form():
    sharp = Loss(LOSSES["binary"].hard, partial(losses.binary_cross_entropy, threshold=0.2))
    expected = losses.binary_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(TARGET > 0.2))
    found = mean(task(loss=sharp), target=TARGET)
    assert found == pytest.approx(float(expected[VALID].mean()), rel=1e-5)


@pytest.mark.parametrize("loss", ["svm", "hinge", losses.multiclass_svm, lambda x, y: x[:, 0]])
def test_mixed_labels_and_a_loss_of_labels_is_one_line(loss):
    mixed = augment.mixup(jax.random.split(jax.random.key(0), B), batch(), classes=K)
    built = task(loss=loss)
    with pytest.raises(ValueError, match="^mixed or smoothed labels need .*softmax or binary"):
        jax.jit(built.loss)({"logits": LOGITS}, mixed)


BAD = {
    "loss": (dict(loss="softmx"), "unknown loss 'softmx': did you mean softmax"),
    "smoothing": (dict(loss="svm", label_smoothing=0.1), "label_smoothing"),
    "smoothing of all": (dict(label_smoothing=1.0), "label_smoothing"),
    "weights": (dict(class_weights=(1, 2)), "class_weights are 5 numbers"),
    "negative weight": (dict(class_weights=(1, 2, 3, -1, 1)), "class_weights are 5 numbers"),
    "temperature": (dict(temperature=0.0), "temperature above 0"),
    "teacher": (dict(teacher_weight=1.5), "teacher_weight is from 0 to 1"),
    "crops": (dict(crops=5), "crops is 1 .* or 10; got 5"),
    "ten crops of nothing": (dict(crops=10), "images larger than the crop"),
}


@pytest.mark.parametrize("case", BAD)
def test_knobs_that_cannot_be(case):
    knobs, says = BAD[case]
    with pytest.raises(ValueError, match=says) as caught:
        task(**knobs)
    assert "\n" not in str(caught.value)


def linear(kernel):
    return lambda image: image.reshape(len(image), -1) @ kernel


def test_a_student_that_is_its_teacher_learns_nothing_more():
    kernel = jnp.asarray(RANDOM.normal(size=(1, K)).astype(np.float32))
    taught = task(teacher=linear(kernel), teacher_weight=1.0)
    half = task(teacher=linear(kernel), teacher_weight=0.5)

    def total(kernel, built):
        outputs = {"logits": linear(kernel)(*built.inputs(batch(), True))}
        return built.loss(outputs, batch())[0]

    value, gradient = jax.value_and_grad(total)(kernel, taught)
    assert abs(float(value)) < 1e-5 and np.abs(gradient).max() < 1e-6
    plain = jax.grad(total)(kernel, task())
    np.testing.assert_allclose(jax.grad(total)(kernel, half), plain / 2, rtol=1e-4, atol=1e-6)


def test_a_teacher_sees_what_the_model_sees_and_gets_no_gradient():
    kernel = jnp.asarray(RANDOM.normal(size=(1, K)).astype(np.float32))

    def total(kernel):
        built = task(teacher=linear(kernel), teacher_weight=0.3, temperature=2.0)
        return built.loss({"logits": jnp.asarray(LOGITS)}, batch())[0]

    s, t = logp(LOGITS / 2), logp(IMAGE.reshape(B, 1) / 255 @ np.asarray(kernel) / 2)
    lesson = 4 * (np.exp(t) * (t - s)).sum(1)
    expected = 0.7 * -logp()[np.arange(B), LABEL] + 0.3 * lesson
    value, gradient = jax.value_and_grad(total)(kernel)
    assert float(value) == pytest.approx(expected[VALID].sum(), rel=1e-4)
    assert not np.asarray(gradient).any()


def test_evaluation_knows_neither_weights_nor_teacher():
    apply = lambda image: {"logits": jnp.asarray(LOGITS)}
    plain = task().summarize([task().measure(apply, batch())])
    taught = task(class_weights=WEIGHTS, teacher=None, label_smoothing=0.1)
    assert taught.summarize([taught.measure(apply, batch())]) == plain
    expected = -logp()[np.arange(B), LABEL][VALID].mean()
    assert plain["loss"] == pytest.approx(expected, rel=1e-5)


TEN = Preprocessing(mean=(0.3, 0.5, 0.4), std=(0.2, 0.3, 0.4), size=(4, 6), crop=0.5)


def crops_by_hand(image):
    """[H, W, C] uint8 -> [10, 4, 6, C]: corners, center, mirrors; normalized."""
    height, width, _ = image.shape
    places = [(0, 0), (0, width - 6), (height - 4, 0), (height - 4, width - 6)]
    places.append(((height - 4) // 2, (width - 6) // 2))
    cut = [image[top : top + 4, left : left + 6] for top, left in places]
    cut += [part[:, ::-1] for part in cut]
    return (np.stack(cut) / 255 - TEN.mean) / TEN.std


def test_ten_crops_are_corners_center_and_mirrors():
    images = RANDOM.integers(0, 256, (3, 8, 12, 3), dtype=np.uint8)
    found = np.stack(ten_crops(jnp.asarray(images), TEN), 1)
    expected = np.stack([crops_by_hand(image) for image in images])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[:, 4], preprocess(jnp.asarray(images), TEN))
    large = np.repeat(np.repeat(images, 2, 1), 2, 2)  # resized as preprocess does
    np.testing.assert_array_equal(
        ten_crops(jnp.asarray(large), TEN)[4], preprocess(jnp.asarray(large), TEN)
    )


def test_ten_crops_average_probabilities():
    images = RANDOM.integers(0, 256, (B, 8, 12, 3), dtype=np.uint8)
    kernel = RANDOM.normal(0, 0.4, (4 * 6 * 3, K)).astype(np.float32)
    built = classification(preprocessing=TEN, classes=CLASSES, crops=10)
    apply = lambda image: {"logits": linear(kernel)(image)}
    measured = jax.jit(partial(built.measure, apply))({**batch(), "image": images})
    every = np.stack([crops_by_hand(image) for image in images])
    p = np.exp(logp(every.reshape(B, 10, -1) @ kernel)).mean(1)
    found = built.summarize([jax.tree.map(np.asarray, measured)])
    assert found["accuracy"] == np.mean((p.argmax(1) == LABEL)[VALID])
    expected = -np.log(p[np.arange(B), LABEL])[VALID].mean()
    assert found["loss"] == pytest.approx(expected, rel=1e-4)


def test_in_training_the_whole_image_is_what_augment_leaves():
    built = classification(preprocessing=TEN, classes=CLASSES)
    image = RANDOM.integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    (seen,) = built.inputs({"image": image}, True)
    np.testing.assert_allclose(seen, (image / 255 - TEN.mean) / TEN.std, rtol=1e-4, atol=1e-5)


def measured_rows(label, predicted):
    zero = np.float32(0)
    return [{"label": label, "predicted": predicted, "loss": zero, "top5": zero}]


def test_the_table_of_classes_is_scikit_learn_s():
    label, predicted = RANDOM.integers(0, 4, (2, 200)).astype(np.int32)  # "e" never comes
    predicted[label == 2] = 0  # and "c" is never found
    counts = metrics.confusion_matrix(np.append(predicted, 1), np.append(label, -1), classes=K)
    np.testing.assert_array_equal(counts, confusion_matrix(label, predicted, labels=range(K)))
    outputs = {"logits": LOGITS}
    drawn = task().render(batch(), outputs, measured_rows(label, predicted))
    assert drawn.keys() == {"predictions.png", "confusion.png", "classes.csv"}
    rows = list(csv.DictReader(io.StringIO(drawn["classes.csv"])))
    assert [row["class"] for row in rows] == list(CLASSES)
    precision, recall, f1, support = precision_recall_fscore_support(
        label, predicted, labels=range(K), zero_division=np.nan
    )
    expected = {"support": support, "precision": precision, "recall": recall, "f1": f1}
    for name, values in expected.items():
        found = [float(row[name] or "nan") for row in rows]
        np.testing.assert_allclose(found, values, atol=6e-5, err_msg=name)


@pytest.mark.parametrize("classes", [2, 20, 21, 130])
def test_a_map_of_confusions_names_its_classes(classes):
    counts = np.diag(np.arange(1, classes + 1))
    counts[1, 0] = 777
    counts[0] = 0
    figure = plots.plot_confusion(counts, [f"class {number}" for number in range(classes)])
    axes = figure.axes[0]
    assert axes.get_title().startswith(f"{np.trace(counts)} of {counts.sum()} right")
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names[:2] == (["class 0", "class 1"] if classes <= 120 else ["class 0", "class 2"])
    said = {text.get_text(): text.get_position() for axes in figure.axes for text in axes.texts}
    if classes <= 20:
        assert said["777"] == (0, 1) and len(said) >= classes - 1
    else:
        ((lines, _),) = said.items()
        assert lines.splitlines()[2].split(None, 3) == ["777", "100", "%", "class 1 as class 0"]
        assert len(lines.splitlines()) == 3
