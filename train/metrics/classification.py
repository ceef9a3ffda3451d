"""Metrics of classification and segmentation: counts on the device, figures on the host."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage, sparse

from train.metrics.connected_components import connected_components

ISBI_THRESHOLDS = np.cumsum(
    [0.0, *[0.1] * 10]
)  # added as in the script, so that the last one is just below 1


def top_k_correct(logits: jax.Array, label: jax.Array, *, k: int) -> jax.Array:
    """Returns whether the label is among the k highest logits; ties count as correct.

    Args:
        logits: logits [B, K].
        label: labels [B].
        k: number of classes.

    Returns:
        Correct predictions [B] bool; False where the logit of the label is NaN.

    >>> top_k_correct(jnp.array([[0.1, 0.3, 0.2]]), jnp.array([2]), k=2)
    Array([ True], dtype=bool)
    """
    own = jnp.take_along_axis(logits, label[:, None], axis=1)
    return jnp.sum(~(logits <= own), axis=1) < k  # a NaN compares as incorrect


def confusion_matrix(predicted: np.ndarray, label: np.ndarray, *, classes: int) -> np.ndarray:
    """Counts the predictions of each class.

    Args:
        predicted: predicted classes [N].
        label: labels [N]; -1 is ignored.
        classes: number of classes K.

    Returns:
        Counts [K, K] with a row per label and a column per prediction.

    >>> confusion_matrix(np.array([1, 0, 0]), np.array([1, 1, -1]), classes=2)
    array([[0, 0],
           [1, 1]])
    """
    kept = label >= 0
    cells = np.int64(classes) * label[kept] + predicted[kept]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def precision_recall_f1(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Computes precision, recall and F1 of each class.

    F1 is 2 correct / (examples + predictions). It is 0 for a class that is never predicted.

    Args:
        counts: confusion matrix [K, K].

    Returns:
        `precision`, `recall` and `f1` [K]; NaN for 0 / 0.

    >>> metrics = precision_recall_f1(np.array([[3, 1], [0, 2]]))
    >>> {name: values.round(2).tolist() for name, values in metrics.items()}
    {'precision': [1.0, 0.67], 'recall': [0.75, 1.0], 'f1': [0.86, 0.8]}
    """
    hits, there, said = np.diag(counts), counts.sum(1), counts.sum(0)
    with np.errstate(invalid="ignore"):
        return {
            "precision": hits / said,
            "recall": hits / there,
            "f1": 2 * hits / (there + said),
        }


def pixel_confusion_matrix(predicted: jax.Array, mask: jax.Array, *, classes: int) -> jax.Array:
    """Counts the predicted classes of pixels on the device.

    Args:
        predicted: predicted classes [...].
        mask: ground truth [...]. Values that are no class, such as 255, are ignored.
        classes: number of classes K.

    Returns:
        Counts [K, K] int32 with a row per true class and a column per prediction, exact up to 2^31
        pixels.

    >>> pixel_confusion_matrix(jnp.array([1, 0, 0]), jnp.array([1, 1, 255]), classes=2).tolist()
    [[0, 0], [1, 1]]
    """
    mask, predicted = (x.astype(jnp.int32).ravel() for x in (mask, predicted))
    cells = jnp.where(mask < classes, classes * mask + predicted, classes**2)
    counts = jnp.zeros(classes**2, jnp.int32).at[cells].add(1, mode="drop")
    return counts.reshape(classes, classes)


def region_metrics(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Computes accuracy, IoU and Dice of each class.

    A class in neither ground truth nor predictions has NaN. A class in the predictions only has IoU
    and Dice 0, and accuracy NaN.

    Args:
        counts: confusion matrix [K, K].

    Returns:
        `accuracy`, `iou` and `dice` [K].

    >>> figures = region_metrics(np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]]))
    >>> {name: share.round(2).tolist() for name, share in figures.items()}
    {'accuracy': [0.75, 1.0, nan], 'iou': [0.75, 0.67, nan], 'dice': [0.86, 0.8, nan]}
    """
    counts = np.asarray(counts, np.int64)
    hits, there, said = np.diag(counts), counts.sum(1), counts.sum(0)
    with np.errstate(invalid="ignore"):
        return {
            "accuracy": hits / there,
            "iou": hits / (there + said - hits),
            "dice": 2 * hits / (there + said),
        }


def overlap_counts(counts: np.ndarray) -> dict[str, float]:
    """Computes the mean segmentation metrics of a confusion matrix.

    Means cover the classes for which `region_metrics` is not NaN.

    Args:
        counts: confusion matrix [K, K].

    Returns:
        `pixel_accuracy`, `mean_accuracy`, `mean_iou`, `frequency_weighted_iou` and `dice`; NaN
        without pixels.

    Source: Long et al. 2015, section 5; its release's score.py leaves classes out in the same way.

    >>> metrics = overlap_counts(np.array([[3, 1], [0, 2]]))
    >>> {name: round(value, 3) for name, value in metrics.items()}
    {'pixel_accuracy': 0.833, 'mean_accuracy': 0.875, 'mean_iou': 0.708,
     'frequency_weighted_iou': 0.722, 'dice': 0.829}
    """
    counts = np.asarray(counts, np.int64)
    total, there = counts.sum(), counts.sum(1)
    names = ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou", "dice")
    if not total:
        return dict.fromkeys(names, float("nan"))
    each = region_metrics(counts)
    seen = there > 0
    figures = (
        np.trace(counts) / total,
        np.nanmean(each["accuracy"]),
        np.nanmean(each["iou"]),
        np.sum(there[seen] * each["iou"][seen]) / total,
        np.nanmean(each["dice"]),
    )
    return {name: float(figure) for name, figure in zip(names, figures, strict=True)}


def isbi_scores(
    probabilities: Sequence[np.ndarray], truth: Sequence[np.ndarray]
) -> dict[str, float]:
    """Computes the scores V^Rand and V^Info of the ISBI 2012 challenge.

    Scores are foreground-restricted and computed after thinning. At each of `ISBI_THRESHOLDS` they
    are averaged over the images, and the best mean counts. Only pixels of cells in the ground truth
    count. Images without a cell are ignored.

    Args:
        probabilities: probability of a cell [N, H, W].
        truth: instances [N, H, W]; 0 is membrane.

    Returns:
        `rand` and `information`; NaN if no image has a cell.

    Source: Arganda-Carreras et al. 2015, Crowdsourcing the creation of image segmentation
    algorithms for connectomics; thresholds and thinning as in the published script for Fiji.

    >>> cells = np.array([[1, 1, 0, 2, 2]])
    >>> isbi_scores([0.9 * (cells > 0)], [cells])
    {'rand': 1.0, 'information': 1.0}
    """
    scores = [
        [
            rand_and_information(thin_membrane(probability > level), cells)
            for level in ISBI_THRESHOLDS
        ]
        for probability, cells in zip(probabilities, truth, strict=True)
        if np.any(cells)
    ]
    if not scores:
        return {"rand": float("nan"), "information": float("nan")}
    rand, information = np.mean(scores, 0).max(0)
    return {"rand": float(rand), "information": float(information)}


def thin_membrane(cell: np.ndarray) -> np.ndarray:
    """Labels connected cells and grows them until the membranes are one pixel wide.

    Each pixel joins the cell that is nearest in steps along rows and columns, as in flooding.
    Membranes that end within a cell vanish, as do spots. A line is two pixels wide in corners. An
    image without a cell is one region.

    Args:
        cell: whether a pixel is in a cell [H, W] bool.

    Returns:
        Regions 1 to N [H, W]; 0 on lines.

    Source: the watershed of Soille and Vincent 1990 on the two levels, cells 4-connected, which the
    script for Fiji calls thinning; which of two equally near cells gets the line differs.

    >>> thin_membrane(np.array([[1, 0, 0, 0, 1, 1, 0, 1]], bool)).tolist()
    [[1, 1, 0, 2, 2, 2, 0, 3]]
    """
    labels = connected_components(cell)
    if labels.max() <= 1:
        return np.ones(cell.shape, np.int32)
    places = ndimage.distance_transform_cdt(
        ~cell, metric="taxicab", return_distances=False, return_indices=True
    )
    grown = labels[tuple(np.asarray(places))]
    line = np.zeros(cell.shape, bool)
    for here, there in (
        (np.s_[:-1], np.s_[1:]),
        (np.s_[:, :-1], np.s_[:, 1:]),
    ):
        apart = grown[here] != grown[there]
        line[here] |= apart & ~cell[here]
        line[there] |= apart & cell[here]
    return np.where(line, 0, grown)


def rand_and_information(predicted: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Computes V^Rand and V^Info of two segmentations.

    Only pixels of an instance count, and each pixel of a line is a region of its own. V^Rand is the
    harmonic mean of two probabilities: that two pixels of a region are in one instance, and that
    two pixels of an instance are in one region. V^Info is the mutual information divided by the
    mean of both entropies. Merged and split regions have equal weight.

    Args:
        predicted: regions [H, W]; 0 is a line.
        target: instances [H, W]; 0 is membrane.

    Returns:
        V^Rand and V^Info from 0 to 1; V^Info is 1 if both entropies are 0.

    Source: Arganda-Carreras et al. 2015, with alpha = 1/2; lines as in the script for Fiji.

    >>> rand_and_information(np.array([[1, 1, 1, 1]]), np.array([[1, 1, 2, 2]]))  # merged regions
    (0.6666666666666666, 0.0)
    """
    inside = target > 0
    predicted, target = predicted[inside], target[inside]
    alone = np.sum(predicted == 0) / target.size
    joint = sparse.coo_array((np.full(target.size, 1 / target.size), (target, predicted))).tocsr()
    s = np.asarray(joint.sum(1)).ravel()
    pairs, t = joint[:, 1:].data, np.asarray(joint.sum(0)).ravel()[1:]
    single = alone / target.size  # squares of regions of one pixel
    rand = (np.sum(pairs**2) + single) / (np.sum(s**2) / 2 + (np.sum(t**2) + single) / 2)

    def entropy(shares: np.ndarray) -> float:
        return float(-np.sum(shares[shares > 0] * np.log(shares[shares > 0])))

    lines = alone * np.log(target.size)
    both, own, said = entropy(pairs) + lines, entropy(s), entropy(t) + lines
    information = 2 * (own + said - both) / (own + said) if own + said else 1.0
    return float(rand), float(information)
