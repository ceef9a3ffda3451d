"""A linear SVM for each class, against the negatives that it finds hard."""

from typing import Any, NamedTuple

import numpy as np

FEATURE_NORM = 20.0  # mean length to which features are brought
COST = 1e-3  # liblinear's C
BIAS = 10.0  # the feature beside the others whose weight is the bias
WEIGHT = 2.0  # of positives
NEGATIVE_IOU = 0.3  # IoU with every object of the class, below which a region is a negative
HARD_MARGIN = -1.0001  # score above which a negative is one that the SVM has still to learn
EASY_MARGIN = -1.2  # score below which it is forgotten
MAX_ADDED = 2000  # new negatives after which an SVM is fitted again


class LinearSVMs(NamedTuple):
    """weight [K, D] and bias [K] of features [R, D] times `scale` [] each.

    A class without an object has a bias of minus infinity.
    """

    weight: np.ndarray
    bias: np.ndarray
    scale: np.ndarray


def svm_scores(machines: LinearSVMs, features: np.ndarray) -> np.ndarray:
    """Features [R, D] -> [R, K] float32.

    >>> one = LinearSVMs(np.float32([[1, 2]]), np.float32([3]), np.float32(10))
    >>> svm_scores(one, np.float32([[1, 1]])).tolist()
    [[33.0]]
    """
    return (features * machines.scale) @ machines.weight.T + machines.bias


def feature_scale(features: np.ndarray) -> np.ndarray:
    """Features [R, D] -> [], the factor by which their mean length becomes 20.

    >>> float(feature_scale(np.float32([[3, 4], [0, 15]])))
    2.0
    """
    mean = np.linalg.norm(features, axis=1).mean()
    return np.array(FEATURE_NORM / mean if mean > 0 else 1.0, np.float32)


def fit_svm(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, float]:
    """Scaled features of positives [P, D] and negatives [N, D] -> weight [D], bias.

    Source: liblinear's L2-regularized hinge loss with R-CNN's options -s 3 -c 1e-3 -B 10 -w1 2.
    """
    from sklearn.svm import LinearSVC  # a second to import

    options: dict[str, Any] = dict(loss="hinge", random_state=0, max_iter=10_000)
    options |= dict(C=COST, intercept_scaling=BIAS, class_weight={1: WEIGHT})
    machine = LinearSVC(**options)
    labels = np.repeat([1, -1], [len(positive), len(negative)])
    machine.fit(np.concatenate([positive, negative]), labels)
    fitted: Any = machine  # scikit-learn says that a bias may be a number
    return fitted.coef_[0].astype(np.float32), float(fitted.intercept_[0])


def train_svms(
    features: np.ndarray, *, image: np.ndarray, iou: np.ndarray, truth: np.ndarray
) -> tuple[LinearSVMs, np.ndarray]:
    """Features [R, D] of regions, as in Regions -> Machines, negatives that each ended with [K].

    Positives are the objects' own boxes alone, negatives what overlaps no object of the class by
    0.3. One pass over the pictures collects those that score above -1.0001; after 2,000 new ones
    the class's SVM is fitted again, and those below -1.2 are let go.

    Source: Girshick et al. 2014, R-CNN, section 2.3 and appendix B; rcnn_train.m.
    """
    scale = feature_scale(features)
    classes = iou.shape[1]
    weight = np.zeros((classes, features.shape[1]), np.float32)
    bias = np.zeros(classes, np.float32)
    own = [features[truth == label] * scale for label in range(classes)]
    cached: list[np.ndarray] = [np.zeros(0, int) for _ in range(classes)]
    added = [0] * classes

    def refit(label: int) -> None:
        rows = cached[label]
        if len(own[label]) and len(rows):
            negative = features[rows] * scale
            weight[label], bias[label] = fit_svm(own[label], negative)
            cached[label] = rows[negative @ weight[label] + bias[label] >= EASY_MARGIN]
        added[label] = 0

    for rows in np.split(np.arange(len(image)), np.flatnonzero(np.diff(image)) + 1):
        found = features[rows] * scale @ weight.T + bias
        for label in range(classes):
            hard = rows[(found[:, label] > HARD_MARGIN) & (iou[rows, label] < NEGATIVE_IOU)]
            cached[label] = np.concatenate([cached[label], hard])
            added[label] += len(hard)
            if added[label] > MAX_ADDED:
                refit(label)
    kept = np.zeros(classes, int)
    for label in range(classes):
        refit(label)
        kept[label] = len(cached[label])
        if not len(own[label]):
            bias[label] = -np.inf
    return LinearSVMs(weight, bias, scale), kept
