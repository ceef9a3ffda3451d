"""Figures of masks against scikit-learn; ISBI's scores against pairs of pixels, one by one."""

import itertools
import warnings
from functools import partial

import jax
import numpy as np
import pytest
from scipy import ndimage
from sklearn import metrics as independent

from train.metrics import classification
from train.metrics.connected_components import connected_components

RANDOM = np.random.default_rng(0)
K = 5


@pytest.fixture(scope="module")
def masks():
    """Truth [2, 9, 8], prediction: class 3 never true, class 4 in neither."""
    truth = RANDOM.integers(0, 3, (2, 9, 8)).astype(np.uint8)
    predicted = np.where(RANDOM.random(truth.shape) < 0.6, truth, 0).astype(np.int32)
    predicted[0, 0, :2] = 3
    truth[1, :2] = 255
    return truth, predicted


def test_figures_are_scikit_learn_s(masks):
    truth, predicted = masks
    count = jax.jit(partial(classification.pixel_confusion_matrix, classes=K))
    counts = count(predicted, truth)
    assert counts.dtype == np.int32
    t, p = truth[truth != 255], predicted[truth != 255]
    np.testing.assert_array_equal(counts, independent.confusion_matrix(t, p, labels=range(K)))
    found = classification.region_metrics(np.asarray(counts))
    scores = partial(lambda f, **more: f(t, p, labels=range(K), average=None, **more))
    iou = scores(independent.jaccard_score, zero_division=0)
    f1, recall = (
        scores(f, zero_division=np.nan) for f in (independent.f1_score, independent.recall_score)
    )
    np.testing.assert_allclose(found["iou"], [*iou[:4], np.nan])
    np.testing.assert_allclose(found["dice"], [*f1[:3], 0, np.nan])
    np.testing.assert_allclose(found["accuracy"], recall)
    whole = classification.overlap_counts(np.asarray(counts))
    assert whole["pixel_accuracy"] == pytest.approx(independent.accuracy_score(t, p))
    assert whole["mean_accuracy"] == pytest.approx(recall[:3].mean())
    assert whole["mean_iou"] == pytest.approx(iou[:4].mean())
    weighted = independent.jaccard_score(t, p, average="weighted")
    assert whole["frequency_weighted_iou"] == pytest.approx(weighted)
    assert whole["dice"] == pytest.approx(np.append(f1[:3], 0).mean())


def test_counts_add_up_beyond_32_bits():
    counts = np.full((2, 2), 2**31 - 1, np.int32)
    assert classification.overlap_counts(counts)["pixel_accuracy"] == 0.5
    assert (
        classification.overlap_counts(np.zeros((2, 2)))["mean_iou"]
        != classification.overlap_counts(counts)["mean_iou"]
    )


def pairs_by_hand(found: np.ndarray, truth: np.ndarray) -> float:
    """Chances that pixels drawn twice are together, counted; a line's pixel is with itself alone."""
    region, instance = found[truth > 0], truth[truth > 0]
    same = [0, 0, 0]
    for i, j in itertools.product(range(len(region)), repeat=2):
        there = instance[i] == instance[j]
        said = (region[i] == region[j] and region[i] > 0) or i == j
        same[0] += there
        same[1] += said
        same[2] += there and said
    precision, recall = same[2] / same[1], same[2] / same[0]
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_counted_pairs_and_of_scikit_learn(seed):
    random = np.random.default_rng(seed)
    truth, found = random.integers(0, 4, (2, 9, 8))
    rand, information = classification.rand_and_information(found, truth)
    assert rand == pytest.approx(pairs_by_hand(found, truth), rel=1e-12)
    inside = truth > 0
    alone = np.where(found == 0, 100 + np.arange(found.size).reshape(found.shape), found)
    expected = independent.normalized_mutual_info_score(truth[inside], alone[inside])
    assert information == pytest.approx(expected, rel=1e-10)


def test_thinning_leaves_a_line_of_a_pixel_between_the_nearest_cells():
    cell = ndimage.gaussian_filter(RANDOM.normal(size=(40, 40)), 2) > 0.05
    found = classification.thin_membrane(cell)
    labels = connected_components(cell)
    np.testing.assert_array_equal(found[cell], labels[cell])  # cells are what they were
    for here, there in ((found[:-1], found[1:]), (found[:, :-1], found[:, 1:])):
        apart = (here != there) & (here > 0) & (there > 0)
        assert not apart.any(), "regions touch"
    rows, columns = np.mgrid[:40, :40]
    for row, column in np.argwhere(~cell):
        steps = np.abs(rows - row) + np.abs(columns - column)
        nearest = set(labels[cell & (steps == steps[cell].min())].tolist())
        around = found[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
        if found[row, column]:
            assert found[row, column] in nearest
        else:
            assert len(set(around[around > 0].tolist())) > 1, "a line within a region"


def test_scores_take_the_best_threshold_for_all_images():
    cells = np.zeros((2, 12, 12), int)
    cells[:, :, :5], cells[:, :, 7:] = 1, 2
    sure = np.where(cells > 0, 0.95, 0.35)
    assert classification.isbi_scores(sure, cells) == {
        "rand": pytest.approx(1),
        "information": pytest.approx(1),
    }
    # A hole in the membrane that no threshold closes merges the two cells of one image.
    leaking = sure.copy()
    leaking[1, 6, 5:7] = 0.95
    merged = classification.rand_and_information(np.ones((12, 12), int), cells[1])
    found = classification.isbi_scores(leaking, cells)
    assert found["rand"] == pytest.approx((1 + merged[0]) / 2)
    assert merged == (pytest.approx(2 / 3, abs=0.01), pytest.approx(0, abs=1e-9))
    assert found["information"] == pytest.approx(0.5)


def test_thick_membranes_cost_nothing_after_thinning():
    cells = np.zeros((24, 24), int)
    cells[1:11, 1:], cells[13:, :11], cells[13:, 13:] = 1, 2, 3
    thick = ndimage.binary_erosion(cells > 0, iterations=3)
    found = classification.isbi_scores([thick.astype(float)], [cells])
    assert (
        found["rand"] > 0.98
        and classification.rand_and_information(connected_components(thick), cells)[0] < 0.7
    )


def test_nothing_to_score():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        empty = classification.isbi_scores([np.zeros((4, 4))], [np.zeros((4, 4), int)])
    assert np.isnan(
        [*empty.values(), *classification.overlap_counts(np.zeros((3, 3), int)).values()]
    ).all()
    whole = np.ones((4, 4), int)
    assert classification.isbi_scores([np.zeros((4, 4))], [whole]) == {
        "rand": 1.0,
        "information": 1.0,
    }
