"""From a region's features to the box that its object fills: ridge regression, class by class."""

from typing import NamedTuple

import jax
import numpy as np

from train.rcnn.svm import feature_scale
from zoo.ops.boxes import decode_boxes, encode_boxes

RIDGE_PENALTY = 1000.0
MIN_IOU = 0.6  # IoU from which on a region learns the way to its object


class Regressor(NamedTuple):
    """weight [K, 4, D + 1], the last for a feature of 1, and mean [K, 4] of features [R, D] times `scale` []."""

    weight: np.ndarray
    mean: np.ndarray
    scale: np.ndarray


def fit_boxes(
    features: np.ndarray, *, box: np.ndarray, iou: np.ndarray, nearest: np.ndarray
) -> Regressor:
    """Features [R, D] of regions, as in Regions -> Regressor.

    A class learns from the regions that overlap one of its objects by 0.6, their offsets from it
    less their mean. One without such regions leaves boxes as they are.

    Source: Girshick et al. 2014, R-CNN, appendix C; rcnn_train_bbox_regressor.m, whose whitening of
    the offsets is undone by its inverse, as ridge regression is linear in them.
    """
    from sklearn.linear_model import Ridge  # a second to import

    scale = feature_scale(features)
    classes = iou.shape[1]
    weight = np.zeros((classes, 4, features.shape[1] + 1), np.float32)
    mean = np.zeros((classes, 4), np.float32)
    ways = np.asarray(jax.jit(encode_boxes)(nearest, box[:, None]))
    for label in range(classes):
        near = np.flatnonzero(iou[:, label] >= MIN_IOU)
        if not len(near):
            continue
        offsets = ways[near, label]
        mean[label] = offsets.mean(0)
        machine = Ridge(alpha=RIDGE_PENALTY, fit_intercept=False, solver="cholesky")
        machine.fit(append_ones(features[near] * scale), offsets - mean[label])
        weight[label] = machine.coef_
    return Regressor(weight, mean, scale)


def apply_regressor(regressor: Regressor, features: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Features [R, D], boxes [R, 4] -> boxes [R, K, 4] of each class."""
    rows = append_ones(features * regressor.scale)
    offsets = np.einsum("rd,kod->rko", rows, regressor.weight) + regressor.mean
    return np.asarray(jax.jit(decode_boxes)(offsets, box[:, None]))


def append_ones(features: np.ndarray) -> np.ndarray:
    return np.concatenate([features, np.ones((len(features), 1), features.dtype)], 1)
