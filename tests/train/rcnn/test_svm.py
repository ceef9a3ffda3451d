"""SVMs with hard negatives, on toy data."""

import numpy as np
import pytest

from train.rcnn import svm


def objective(weight, bias, positive, negative):
    """Of liblinear with a 10 beside the features: the bias is decayed too, as a weight of that."""
    cost = np.maximum(0, 1 - positive @ weight - bias).sum() * svm.WEIGHT
    cost += np.maximum(0, 1 + negative @ weight + bias).sum()
    return 0.5 * (weight @ weight + (bias / svm.BIAS) ** 2) + svm.COST * cost


@pytest.fixture
def clouds():
    """500 regions of 50 pictures: two classes, their objects' own boxes, and the background."""
    generator = np.random.default_rng(0)
    label = generator.choice([-1, 0, 1, -1, -1], 500)
    centers = np.float64([[3, 0, 1, 0], [0, 3, 1, 0], [0, 0, 1, 0]])
    features = centers[label] + generator.normal(0, 1, (500, 4))
    iou = np.zeros((500, 2), np.float32)
    iou[label >= 0, label[label >= 0]] = 1
    iou[::7] = np.maximum(iou[::7], 0.4)  # neither
    return dict(
        features=features.astype(np.float32),
        image=np.repeat(np.arange(50), 10),
        iou=iou,
        truth=label,
    )


def parts(clouds, label):
    scaled = clouds["features"] * svm.feature_scale(clouds["features"])
    return scaled[clouds["truth"] == label], scaled[clouds["iou"][:, label] < svm.NEGATIVE_IOU]


def test_a_fit_is_the_least_of_its_objective(clouds):
    positive, negative = parts(clouds, 0)
    weight, bias = svm.fit_svm(positive, negative)
    least = objective(weight, bias, positive, negative)
    generator = np.random.default_rng(1)
    for size in (1e-2, 1e-1, 1):
        for _ in range(20):
            step = size * generator.normal(0, 0.01, 5) * [1, 1, 1, 1, svm.BIAS]
            other = objective(weight + step[:4], bias + step[4], positive, negative)
            assert other > least * (1 - 1e-4)


@pytest.mark.parametrize("added", [5, 60, 2000])
def test_mining_finds_what_all_negatives_would_give(added, clouds, monkeypatch):
    monkeypatch.setattr(svm, "MAX_ADDED", added)
    machines, kept = svm.train_svms(**clouds)
    found = svm.svm_scores(machines, clouds["features"])
    np.testing.assert_allclose(
        np.linalg.norm(clouds["features"] * machines.scale, axis=1).mean(), 20, rtol=1e-4
    )
    for label in (0, 1):
        positive, negative = parts(clouds, label)
        whole = objective(*svm.fit_svm(positive, negative), positive, negative)
        mined = objective(machines.weight[label], machines.bias[label], positive, negative)
        assert mined < 1.05 * whole
        assert 0 < kept[label] < len(negative)
        accuracy = (found[:, label] > 0) == (clouds["truth"] == label)
        assert accuracy[clouds["iou"][:, label] != np.float32(0.4)].mean() > 0.9


def test_what_overlaps_is_no_negative(clouds):
    """Regions of an IoU between 0.3 and 1 change nothing, wherever they lie."""
    clouds["features"][::7][clouds["truth"][::7] < 0] /= 1e3
    scale = svm.feature_scale(clouds["features"])
    before, _ = svm.train_svms(**clouds)
    odd = np.flatnonzero((clouds["iou"] == np.float32(0.4)).all(1) & (clouds["truth"] < 0))
    clouds["features"][odd] = np.roll(clouds["features"][odd], 1, 1)
    after, _ = svm.train_svms(**clouds)
    assert scale > 0 and len(odd) > 20
    np.testing.assert_allclose(before.weight, after.weight, atol=1e-5)


def test_a_class_without_objects_is_never_found(clouds):
    clouds["truth"] = np.where(clouds["truth"] == 1, -1, clouds["truth"])
    machines, _ = svm.train_svms(**clouds)
    found = svm.svm_scores(machines, clouds["features"])
    assert np.isneginf(found[:, 1]).all() and np.isfinite(found[:, 0]).all()
