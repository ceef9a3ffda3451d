"""Nearest neighbors against scikit-learn's, ties and all; the command that judges with them."""

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

import zoo
from train import knn
from train.__main__ import main
from train.data import open_source
from train.knn import knn_accuracies

PIXELS, LABELS = load_digits(return_X_y=True)
METRICS = {"l1": "manhattan", "l2": "euclidean", "cosine": "cosine"}
KNOWN, ASKED = slice(0, 700), slice(700, 1100)


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """700 examples in blocks of 256, 400 queries in blocks of 96: neither divides."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn, "EXAMPLES", 256)
        patch.setattr(knn, "QUERIES", 96)
        yield


@pytest.mark.parametrize("distance", METRICS)
@pytest.mark.parametrize("k", [1, 4])
def test_predictions_are_scikit_learn_s(distance, k):
    """But where the k-th neighbor is as far as the next: there any of the two is right for it."""
    judge = KNeighborsClassifier(k, metric=METRICS[distance], algorithm="brute")
    judge.fit(PIXELS[KNOWN], LABELS[KNOWN])
    apart, _ = judge.kneighbors(PIXELS[ASKED], n_neighbors=k + 1)
    clear = apart[:, k - 1] < apart[:, k]
    assert clear.mean() > 0.8
    knobs = dict(k=k, distance=distance, classes=10)
    found = np.asarray(knn_accuracies(PIXELS[KNOWN], LABELS[KNOWN], PIXELS[ASKED], **knobs))
    np.testing.assert_array_equal(found[clear], judge.predict(PIXELS[ASKED])[clear])
    if distance == "l1":  # whole numbers, so ties are ties
        far = np.abs(PIXELS[ASKED][:, None] - PIXELS[KNOWN]).sum(-1)
        votes = LABELS[KNOWN][np.argsort(far, 1, kind="stable")[:, :k]]
        expected = [np.bincount(row).argmax() for row in votes]
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("distance", METRICS)
def test_equal_distances_go_to_the_earlier_and_equal_votes_to_the_lower(distance):
    points = np.array([[2, 1], [2, 1], [1, 2], [1, 2], [-5, -5]], np.float32)
    knobs = dict(distance=distance, classes=4)
    labels = np.array([3, 1, 2, 0, 1])
    asked = np.array([[2, 1], [1, 2]], np.float32)
    assert knn_accuracies(points, labels, asked, k=1, **knobs).tolist() == [3, 2]
    assert knn_accuracies(points, labels, asked, k=2, **knobs).tolist() == [1, 0]
    judge = KNeighborsClassifier(2, metric=METRICS[distance], algorithm="brute")
    assert judge.fit(points, labels).predict(asked).tolist() == [1, 0]


def test_a_zero_vector_has_a_direction_of_none():
    points = np.array([[0, 0], [1, 0]], np.float32)
    found = knn_accuracies(points, np.array([0, 1]), np.eye(2), k=1, distance="cosine", classes=2)
    assert found.tolist() == [1, 0]  # 1 - 1 against 1; then 1 against 1, the earlier


def test_the_distances_of_all_pairs_are_never_there():
    shapes = [jax.ShapeDtypeStruct((n, 64), np.float32) for n in (60_000, 10_000)]
    text = str(jax.make_jaxpr(lambda *x: knn.nearest_indices(*x, k=5, distance="l2"))(*shapes))
    assert "10000,60000" not in text and "96,256" in text


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        (dict(k=0), "k is 1 to 3"),
        (dict(k=4), "k is 1 to 3"),
        (dict(distance="l3"), "unknown distance .l3.: did you mean l"),
    ],
)
def test_what_cannot_be(knobs, says):
    points = np.eye(3, dtype=np.float32)
    with pytest.raises(ValueError, match=says):
        knn_accuracies(
            points, np.arange(3), points, **{**dict(k=1, distance="l2", classes=3), **knobs}
        )


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "lenet.safetensors"
    model = zoo.create_model("lenet5_modern")
    variables = model.init(jax.random.key(0), np.zeros((1, 32, 32, 1), np.float32))
    zoo.save_model("lenet5_modern", path, model, variables)
    return path


def judged(capsys, *words):
    assert main(["nearest", "digits", *map(str, words)]) == 0
    lines = capsys.readouterr().out.splitlines()
    return [line for line in lines if not line.startswith("preparing the UCI digits")]


def test_the_command_judges_pixels(capsys):
    said = judged(capsys, "--k", 1, 3, "--distance", "l2")
    assert said[0].startswith("share of 360 test images of UCI digits")
    assert "by pixels of 1257 others" in said[0]
    parts = open_source("digits")
    (x, y), (asked, truth) = (knn.read_pixels(parts[name]) for name in ("train", "test"))
    for row, metric in zip(said[2:], ("euclidean",), strict=True):
        for k, share in zip((1, 3), row.split()[1::2], strict=True):
            judge = KNeighborsClassifier(k, metric=metric, algorithm="brute").fit(x, y)
            assert float(share) == pytest.approx(100 * judge.score(asked, truth), abs=0.3)


def test_the_command_judges_features(capsys, weights):
    said = judged(capsys, "--model", "lenet5_modern", "--weights", weights, "--k", 1)
    assert "by lenet5_modern's pooled features of 1257 others" in said[0]
    assert float(said[2].split()[1]) > 80  # even of an untrained one


def test_a_model_without_weights_is_one_line(capsys):
    assert main(["nearest", "digits", "--model", "lenet5_modern"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--model NAME and --weights W" in said
