"""Hits on the device, counts and figures on the host."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage, sparse

from train.metrics.connected_components import connected_components

ISBI_THRESHOLDS = np.cumsum(
    [0.0, *[0.1] * 10]
)  # as the script adds them up: the last is just below 1


def top_k_correct(logits: jax.Array, label: jax.Array, *, k: int) -> jax.Array:
    """[B, K], [B] -> [B] bool: the label is among the k highest; ties count for the label.

    >>> top_k_correct(jnp.array([[0.1, 0.3, 0.2]]), jnp.array([2]), k=2)
    Array([ True], dtype=bool)
    """
    own = jnp.take_along_axis(logits, label[:, None], axis=1)
    return jnp.sum(~(logits <= own), axis=1) < k  # so written, a NaN is no hit


def confusion_matrix(predicted: np.ndarray, label: np.ndarray, *, classes: int) -> np.ndarray:
    """[N], [N] -> counts [K, K]: row the truth, column the prediction; a label of -1 is left out.

    >>> confusion_matrix(np.array([1, 0, 0]), np.array([1, 1, -1]), classes=2)
    array([[0, 0],
           [1, 1]])
    """
    kept = label >= 0
    cells = np.int64(classes) * label[kept] + predicted[kept]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def precision_recall_f1(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Confusion counts [K, K] -> {"precision", "recall", "f1"} [K], nan where it is 0 / 0.

    F1 is 2 hits / (examples + predictions): 0 for a class that is there and never found.

    >>> {name: share.round(2).tolist() for name, share in precision_recall_f1(np.array([[3, 1], [0, 2]])).items()}
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
    """[...], [...] -> counts [K, K] int32: row the truth, column the prediction; on the device.

    Pixels whose mask is no class, 255 as a rule, are left out. Exact up to 2^31 pixels.

    >>> pixel_confusion_matrix(jnp.array([1, 0, 0]), jnp.array([1, 1, 255]), classes=2).tolist()
    [[0, 0], [1, 1]]
    """
    mask, predicted = (x.astype(jnp.int32).ravel() for x in (mask, predicted))
    cells = jnp.where(mask < classes, classes * mask + predicted, classes**2)
    counts = jnp.zeros(classes**2, jnp.int32).at[cells].add(1, mode="drop")
    return counts.reshape(classes, classes)


def region_metrics(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Confusion counts [K, K] -> {"accuracy", "iou", "dice"} [K], nan where it is 0 / 0.

    So a class that is in neither truth nor prediction is nan throughout; one that is predicted
    and never true has IoU and Dice 0, and no accuracy.

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
    """Confusion counts [K, K] -> {"pixel_accuracy", "mean_accuracy", "mean_iou",
    "frequency_weighted_iou", "dice"}; nan without a pixel.

    The means are over the classes for which `region_metrics` has a figure; "dice" is one of them.

    Source: Long et al. 2015, section 5; its release's score.py leaves classes out in the same way.

    >>> {name: round(share, 3) for name, share in overlap_counts(np.array([[3, 1], [0, 2]])).items()}
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
    """Of cell, [N, H, W]; instances [N, H, W], 0 = membrane -> {"rand", "information"}.

    The scores of the ISBI 2012 challenge, V^Rand and V^Info, foreground-restricted, after thinning:
    at each of `ISBI_THRESHOLDS` the mean over the images, of these the best. Only pixels that are cell
    in the truth count; images without one are left out. nan where none is left.

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
    """[H, W] bool -> regions [H, W], 1 ... N: the connected cells, grown over the membranes until a
    line, 0, of one pixel (two in a corner) is left. Without a cell the image is one region.

    As flooding does it: a pixel goes to the cell that is nearest by steps along rows and columns.
    Membranes that end within a cell, and spots in it, vanish.

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
    """Regions [H, W], 0 = line; instances [H, W], 0 = membrane -> (V^Rand, V^Info), 0 to 1.

    Over the pixels that are in an instance; each of a line is a region of its own. V^Rand is the
    harmonic mean of the chances that two pixels of a region are of one instance, and two of an
    instance in one region; V^Info is the mutual information over the mean of both entropies, 1
    where both are 0. Merged and split regions weigh alike.

    Source: Arganda-Carreras et al. 2015, with alpha = 1/2; lines as in the script for Fiji.

    >>> rand_and_information(np.array([[1, 1, 1, 1]]), np.array([[1, 1, 2, 2]]))  # merged: P 1/2, R 1
    (0.6666666666666666, 0.0)
    """
    inside = target > 0
    predicted, target = predicted[inside], target[inside]
    alone = np.sum(predicted == 0) / target.size
    joint = sparse.coo_array((np.full(target.size, 1 / target.size), (target, predicted))).tocsr()
    s = np.asarray(joint.sum(1)).ravel()
    pairs, t = joint[:, 1:].data, np.asarray(joint.sum(0)).ravel()[1:]
    single = alone / target.size  # `alone` as squares, one pixel each
    rand = (np.sum(pairs**2) + single) / (np.sum(s**2) / 2 + (np.sum(t**2) + single) / 2)

    def entropy(shares: np.ndarray) -> float:
        return float(-np.sum(shares[shares > 0] * np.log(shares[shares > 0])))

    lines = alone * np.log(target.size)
    both, own, said = entropy(pairs) + lines, entropy(s), entropy(t) + lines
    information = 2 * (own + said - both) / (own + said) if own + said else 1.0
    return float(rand), float(information)
