"""Plots of detections on the hardest images, and of precision over recall."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from train import plots
from train.metrics import detection as metrics
from train.plots import Frame
from zoo.media.colormap import box_colormap

HARDEST, COMING = 6, 4  # examples in predictions.png
CROWD_COLOR = (170, 170, 170)  # objects that do not count


def plot_hardest(
    images: np.ndarray, rows: metrics.DetectionRows, *, classes: Sequence[str], score: float
) -> Figure:
    """Images [I, H, W, C] and their rows -> those of the lowest F1, then some as they come.

    Detections from `score` on are drawn, and judged by themselves.
    """
    rows = metrics.drop_non_finite(rows)
    rows["valid"] = rows["valid"] & (rows["scores"] >= score)
    judged = metrics.match_detections(rows, classes=len(classes))
    true = np.sum(judged.verdict == 1, 1)
    said = np.sum(judged.verdict >= 0, 1)
    there = np.sum(rows["truth_valid"] & ~rows["crowd"], 1)
    f1 = np.where(said + there > 0, 2 * true / np.maximum(said + there, 1), 1.0)
    order = np.argsort(f1, stable=True)[:HARDEST].tolist()
    coming = [number for number in range(len(f1)) if number not in order][:COMING]
    shown = [*order, *coming]
    titles = [
        f"{'hardest' if place < len(order) else 'as it comes'}: number {rows['index'][row]}, "
        f"{true[row]} of {there[row]} found, {said[row] - true[row]} wrong"
        for place, row in enumerate(shown)
    ]
    palette = box_colormap(len(classes)).tolist()
    return plots.plot_boxes(
        images[shown],
        [ground_truth_frames(rows, judged, row, classes, palette) for row in shown],
        [prediction_frames(rows, judged, row, classes, palette) for row in shown],
        titles,
        note=f"left what is there, dashed where it is missed; right what is found from a score of "
        f"{score:.2f} on, dashed where it is wrong; gray is not counted",
    )


def ground_truth_frames(
    rows: metrics.DetectionRows,
    judged: metrics.MatchedDetections,
    row: int,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
) -> list[Frame]:
    """The objects of an image, dashed where none of its detections is true."""
    found = set(judged.owner[row][judged.verdict[row] == 1].tolist())
    frames = []
    for place in np.flatnonzero(rows["truth_valid"][row]).tolist():
        label, crowd = int(rows["truth_labels"][row, place]), bool(rows["crowd"][row, place])
        box = rows["truth_boxes"][row, place].tolist()
        missed = not crowd and place not in found
        frames.append(Frame(box, classes[label], CROWD_COLOR if crowd else palette[label], missed))
    return frames


def prediction_frames(
    rows: metrics.DetectionRows,
    judged: metrics.MatchedDetections,
    row: int,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
) -> list[Frame]:
    """Returns the detections of an image, the highest score on top, dashed where they are wrong."""
    frames = []
    kept = np.flatnonzero(rows["valid"][row])
    for place in kept[np.argsort(rows["scores"][row, kept], stable=True)].tolist():
        label, verdict = int(rows["labels"][row, place]), int(judged.verdict[row, place])
        words = f"{classes[label]} {rows['scores'][row, place]:.2f}"
        color = CROWD_COLOR if verdict < 0 else palette[label]
        frames.append(Frame(rows["boxes"][row, place].tolist(), words, color, verdict == 0))
    return frames


def precision_recall(
    rows: metrics.DetectionRows,
    judged: metrics.MatchedDetections,
    each: Mapping[str, np.ndarray],
    *,
    classes: Sequence[str],
) -> Figure:
    """Plots precision over recall at IoU 0.5, with a line for each class with objects."""
    seen = np.flatnonzero(judged.objects > 0).tolist()
    curves = {
        classes[label]: metrics.precision_recall_curve(rows, judged, label=label) for label in seen
    }
    figures = each["ap50"][seen]
    mean = f", mean average precision {figures.mean():.3f}" if seen else ""
    return plots.plot_precision_recall(curves, figures.tolist(), title=f"IoU 0.5{mean}")
