"""Box regression against its closed form and planted offsets."""

import numpy as np

from train.rcnn import box_regression
from train.rcnn.svm import feature_scale


def offsets(box, anchor):
    sides, own = anchor[:, 2:] - anchor[:, :2], box[:, 2:] - box[:, :2]
    middles = [each[:, :2] + each[:, 2:] for each in (box, anchor)]
    return np.concatenate([(middles[0] - middles[1]) / 2 / sides, np.log(own / sides)], 1)


def drawn(count=200):
    generator = np.random.default_rng(0)
    first = generator.uniform(0, 50, (count, 2))
    box = np.concatenate([first, first + generator.uniform(20, 40, (count, 2))], 1)
    nearest = box + generator.uniform(-4, 4, box.shape)
    return box.astype(np.float32), nearest.astype(np.float32), generator


def test_the_closed_form():
    box, nearest, generator = drawn()
    features = generator.normal(0, 1, (200, 6)).astype(np.float32)
    iou = np.stack([np.full(200, 0.7), np.linspace(0, 1, 200)], 1)
    found = box_regression.fit_boxes(
        features, box=box, iou=iou, nearest=np.stack([nearest, nearest + 1], 1)
    )
    for label, (rows, target) in enumerate(
        [(slice(0, 200), nearest), (slice(120, 200), nearest + 1)]
    ):
        rows = np.flatnonzero(iou[:, label] >= 0.6) if label else rows
        wanted = offsets(target[rows].astype(float), box[rows].astype(float))
        x = np.c_[features[rows] * feature_scale(features), np.ones(len(wanted))].astype(float)
        mean = wanted.mean(0)
        weight = np.linalg.solve(x.T @ x + 1000 * np.eye(7), x.T @ (wanted - mean))
        np.testing.assert_allclose(found.mean[label], mean, atol=1e-5)
        np.testing.assert_allclose(found.weight[label], weight.T, atol=1e-6)
        predicted = box_regression.apply_regressor(found, features[:9], box[:9])[:, label]
        ones = np.c_[features[:9] * feature_scale(features), np.ones(9)]
        np.testing.assert_allclose(
            offsets(predicted, box[:9]), ones @ weight + mean, rtol=1e-3, atol=1e-5
        )


def test_features_that_know_the_way_bring_boxes_there():
    box, nearest, _ = drawn()
    way = offsets(nearest.astype(float), box.astype(float))
    features = np.tile(way, 5).astype(np.float32)
    found = box_regression.fit_boxes(
        features, box=box, iou=np.full((200, 1), 0.8), nearest=nearest[:, None]
    )
    moved = box_regression.apply_regressor(found, features, box)[:, 0]
    assert (
        np.abs(moved - nearest).max() < 0.2 * np.abs(box - nearest).max()
    )  # the penalty holds back


def test_a_class_without_regions_leaves_boxes():
    box, nearest, _ = drawn(9)
    features = np.ones((9, 3), np.float32)
    found = box_regression.fit_boxes(
        features, box=box, iou=np.full((9, 1), 0.5), nearest=nearest[:, None]
    )
    moved = box_regression.apply_regressor(found, features, box)[:, 0]
    np.testing.assert_allclose(moved, box, atol=1e-4)
