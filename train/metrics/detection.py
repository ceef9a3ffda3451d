"""Average precision of Pascal VOC, and the twelve metrics of COCO.

Rows are a dict of arrays of I images with M detections and N objects each, in one coordinate
system: `index` [I] int, `boxes` [I, M, 4], `scores` [I, M], `labels` [I, M] int, `valid` [I, M]
bool, `truth_boxes` [I, N, 4], `truth_labels` [I, N] int, `truth_valid` [I, N] bool, `crowd` [I, N]
bool, and optionally `area` [I, N]. `crowd` marks the difficult objects of VOC and the crowds of
COCO, whose detections are neither correct nor wrong. COCO measures the size of objects by `area`,
and by the area of the box without it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

DetectionRows = Mapping[str, np.ndarray]
CHUNK_SIZE = 64  # images whose overlaps are in memory together
COCO_NAMES = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
)


class MatchedDetections(NamedTuple):
    """The objects that detections are matched to.

    Attributes:
        verdict: [I, M] int8, 1 for correct, 0 for wrong, -1 for neither.
        owner: index [I, M] of the matched object, -1 for none.
        objects: number of objects of each class [K], without crowds.
    """

    verdict: np.ndarray
    owner: np.ndarray
    objects: np.ndarray


def collect_rows(per_batch: Sequence[DetectionRows]) -> dict[str, np.ndarray]:
    """Joins the rows of batches and sorts them by image.

    The order makes ties independent of the number of devices.

    Args:
        per_batch: rows of each batch with "seen" [B], which is False for padding.

    Returns:
        Rows of all images.
    """
    names = [name for name in per_batch[0] if name != "seen"]
    seen = np.concatenate([part["seen"] for part in per_batch]).astype(bool)
    rows = {name: np.concatenate([part[name] for part in per_batch])[seen] for name in names}
    order = np.argsort(rows["index"], kind="stable")
    return drop_non_finite({name: value[order] for name, value in rows.items()})


def drop_non_finite(rows: DetectionRows) -> dict[str, np.ndarray]:
    """Marks detections with values that are not finite as invalid."""
    finite = np.isfinite(rows["scores"]) & np.isfinite(rows["boxes"]).all(-1)
    valid = rows["valid"] & finite
    return {**rows, "valid": valid, "boxes": np.where(valid[..., None], rows["boxes"], 0)}


def pairwise_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Computes the IoU [..., M, N] float64 of boxes [..., M, 4] and [..., N, 4]; 0 without area.

    >>> others = np.array([[1, 0, 3, 2], [5, 5, 5, 5]])
    >>> pairwise_iou(np.array([[0, 0, 2, 2]]), others).round(3).tolist()
    [[0.333, 0.0]]
    """
    a, b = a[..., :, None, :].astype(np.float64), b[..., None, :, :].astype(np.float64)
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    both = np.prod(np.maximum(high - low, 0), -1)
    areas = [np.prod(np.maximum(x[..., 2:] - x[..., :2], 0), -1) for x in (a, b)]
    union = areas[0] + areas[1] - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def match_detections(rows: DetectionRows, *, classes: int, iou: float = 0.5) -> MatchedDetections:
    """Matches each detection to the object of its class with the largest IoU.

    A detection is correct if the IoU is at least `iou` and no detection with a higher score is
    matched to the object. It is neither correct nor wrong if the object is a crowd. Ties keep their
    order.

    Args:
        rows: detections and objects.
        classes: number of classes K.
        iou: IoU threshold.

    Returns:
        The matches.

    Source: VOCevaldet.m of Pascal VOC's development kit. Its boxes hold their last pixel; here they
    end where it ends, so that nothing is added to widths.
    """
    count, most = rows["truth_valid"].shape
    valid, scores = rows["valid"], rows["scores"]
    best, owner = np.zeros(valid.shape), np.full(valid.shape, -1)
    for first in range(0, count if most else 0, CHUNK_SIZE):
        part = slice(first, first + CHUNK_SIZE)
        same = rows["labels"][part, :, None] == rows["truth_labels"][part, None]
        same &= rows["truth_valid"][part, None]
        found = np.where(same, pairwise_iou(rows["boxes"][part], rows["truth_boxes"][part]), -1.0)
        best[part], owner[part] = found.max(-1), found.argmax(-1)
    owner = np.where(valid & (best >= iou), owner, -1)
    meets = owner >= 0
    crowd = meets & np.take_along_axis(rows["crowd"], np.maximum(owner, 0), 1) if most else meets
    verdict = np.where(valid & ~crowd, 0, -1).astype(np.int8)
    order = np.argsort(-scores, axis=None, kind="stable")
    order = order[(meets & ~crowd).ravel()[order]]
    numbers = (owner + most * np.arange(count)[:, None]).ravel()[order]
    _, before = np.unique(numbers, return_index=True)
    verdict.ravel()[order[before]] = 1
    wanted = rows["truth_labels"][rows["truth_valid"] & ~rows["crowd"]]
    return MatchedDetections(verdict, owner, np.bincount(wanted, minlength=classes)[:classes])


def rank_by_score(
    rows: DetectionRows, judged: MatchedDetections, *, label: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Sorts detections by score.

    Args:
        rows: detections and objects.
        judged: their matches.
        label: class; all classes if not given.

    Returns:
        Scores [D] in descending order, and whether each is correct [D].
    """
    counted = judged.verdict >= 0
    if label is not None:
        counted &= rows["labels"] == label
    scores, true = rows["scores"][counted], judged.verdict[counted] == 1
    order = np.argsort(-scores, kind="stable")
    return scores[order], true[order]


def average_precision(true: np.ndarray, objects: int, *, points: int | None = None) -> float:
    """Computes the average precision.

    It is the area under the monotonic precision-recall curve. With `points` 11, it is the mean
    precision at recalls 0, 0.1 ... 1. These are compared as integers, since 0.3 of the development
    kit is slightly above 3 / 10.

    Args:
        true: whether each detection is correct [D], in descending order of score.
        objects: number of objects.
        points: number of recalls; None for the area.

    Returns:
        The average precision; NaN without objects.

    Source: Pascal VOC's development kits of 2010 (area) and 2007 (11 points).

    >>> true = np.array([True, False, True])
    >>> round(average_precision(true, 4), 4), round(average_precision(true, 4, points=11), 4)
    (0.4167, 0.4545)
    """
    if not objects:
        return float("nan")
    hits = np.cumsum(true)
    precision = hits / np.arange(1, len(true) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    if points is None:
        return float(precision[true].sum() / objects)
    steps = np.arange(points) * objects
    first = np.searchsorted(hits * (points - 1), steps)
    return float(np.append(precision, 0.0)[first].sum() / points)


def voc_per_class(rows: DetectionRows, judged: MatchedDetections) -> dict[str, np.ndarray]:
    """Computes the average precision of each class; detections of crowds do not count.

    Args:
        rows: detections and objects.
        judged: their matches.

    Returns:
        `objects`, `detections` and `found` [K] int, `ap50` and `ap50_voc07` [K]; NaN without
        objects.
    """
    lists = [rank_by_score(rows, judged, label=label)[1] for label in range(len(judged.objects))]
    pairs = list(zip(lists, judged.objects.tolist(), strict=True))
    return {
        "objects": judged.objects,
        "detections": np.array([len(true) for true in lists]),
        "found": np.array([int(true.sum()) for true in lists]),
        "ap50": np.array([average_precision(*pair) for pair in pairs]),
        "ap50_voc07": np.array([average_precision(*pair, points=11) for pair in pairs]),
    }


def precision_recall_curve(
    rows: DetectionRows, judged: MatchedDetections, *, label: int
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the precision-recall curve of a class.

    Args:
        rows: detections and objects.
        judged: their matches.
        label: the class.

    Returns:
        Recall [D] and precision [D], in descending order of score.
    """
    _, true = rank_by_score(rows, judged, label=label)
    hits = np.cumsum(true)
    return hits / max(judged.objects[label], 1), hits / np.arange(1, len(true) + 1)


def best_f1_score(rows: DetectionRows, judged: MatchedDetections) -> float:
    """Returns the score threshold of the best F1 over all classes; infinite if none is detected."""
    scores, true = rank_by_score(rows, judged)
    if not len(scores):
        return float("inf")
    f1 = 2 * np.cumsum(true) / (np.arange(1, len(true) + 1) + judged.objects.sum())
    last = np.append(scores[1:] != scores[:-1], True)  # ties are accepted together
    return float(scores[np.argmax(np.where(last, f1, -1.0))])


def voc_metrics(rows: DetectionRows, *, classes: int) -> dict[str, float]:
    """Computes `ap50` and `ap50_voc07`: means over the classes with objects, NaN without any."""
    figures = voc_per_class(rows, match_detections(rows, classes=classes))
    seen = figures["objects"] > 0
    names = ("ap50", "ap50_voc07")
    return {name: float(figures[name][seen].mean()) if seen.any() else np.nan for name in names}


def coco_metrics(rows: DetectionRows, *, classes: int) -> dict[str, float]:
    """Computes the twelve metrics of COCO.

    "ap" is the mean over IoU 0.5, 0.55 ... 0.95. Boxes must be in pixels of the files, since the
    sizes small, medium and large are areas up to 32², up to 96² and above.

    Args:
        rows: detections and objects.
        classes: number of classes.

    Returns:
        Metrics named as in COCO_NAMES; NaN where no object counts.

    Source: pycocotools' COCOeval, computed by faster-coco-eval.
    """
    stats = run_coco_eval(rows, classes=classes).stats[: len(COCO_NAMES)]
    return {n: float(v) if v >= 0 else np.nan for n, v in zip(COCO_NAMES, stats, strict=True)}


def coco_per_class(rows: DetectionRows, *, classes: int) -> np.ndarray:
    """Computes the COCO AP of each class [K]; NaN without objects."""
    evaluation: Any = run_coco_eval(rows, classes=classes)
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # IoU, recall, class; any area
    lists = [precision[..., k] for k in range(classes)]
    return np.array([each.mean() if (each >= 0).all() else np.nan for each in lists])


def run_coco_eval(rows: DetectionRows, *, classes: int) -> Any:
    """Returns the finished evaluation of faster-coco-eval."""
    from faster_coco_eval import COCO, COCOeval_faster

    images = [{"id": number + 1} for number in range(len(rows["valid"]))]
    categories = [{"id": label + 1, "name": str(label)} for label in range(classes)]
    areas = rows.get("area", box_areas(rows["truth_boxes"]))
    objects = [
        {"id": number, "iscrowd": int(rows["crowd"][place]), "area": float(areas[place]), **entry}
        for number, (place, entry) in enumerate(to_coco_entries(rows, "truth_"), 1)
    ]
    found = [
        {**entry, "score": float(rows["scores"][at])} for at, entry in to_coco_entries(rows, "")
    ]
    truth = COCO({"images": images, "categories": categories, "annotations": objects, "info": {}})
    evaluation = COCOeval_faster(truth, truth.loadRes(found), iouType="bbox")
    evaluation.run()
    return evaluation


def to_coco_entries(
    rows: DetectionRows, prefix: str
) -> list[tuple[tuple[int, int], dict[str, Any]]]:
    """Converts valid detections, or objects with the prefix "truth_", to entries of COCO.

    Returns:
        Pairs of the position of each and its entry.
    """
    boxes, labels = rows[f"{prefix}boxes"].astype(np.float64), rows[f"{prefix}labels"]
    places = [(int(i), int(j)) for i, j in np.argwhere(rows[f"{prefix}valid"])]
    sides = np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], -1)
    return [
        (at, dict(image_id=at[0] + 1, category_id=int(labels[at]) + 1, bbox=sides[at].tolist()))
        for at in places
    ]


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Computes the areas [...] of boxes [..., 4]."""
    return np.prod(boxes[..., 2:].astype(np.float64) - boxes[..., :2], -1)
