"""Object detection."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from train import augment as augmentation
from train.metrics import detection as metrics
from train.task import Task
from train.tasks import detection_plots as pictures
from zoo.canvas import normalize_canvas
from zoo.preprocess import Preprocessing

__all__ = ["Metric", "detection"]
Metric = Literal["voc", "coco"]
DETECTION_KEYS = ("boxes", "scores", "labels", "valid")  # outputs of detectors
PROPOSAL_KEYS = ("proposals", "proposal_valid")  # for models without a region proposal network
CSV_COLUMNS = ("objects", "detections", "found")  # counts of classes.csv; its figures follow


def detection(
    *,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    loss: Callable,
    augment: Callable = augmentation.identity,
    truth: bool = False,
    metric: Metric = "voc",
) -> Task:
    """Creates the task of object detection.

    Batches have "image" [B, H, W, C] uint8, "boxes" [B, N, 4], "labels" [B, N], "box_valid" [B, N],
    "crowd" [B, N], "size" [B, 2] and "scale" [B, 2]. Models return "boxes" [B, M, 4], "scores",
    "labels" and "valid" [B, M]. An image is in the top left corner of its canvas. It has the height
    and width "size", is "scale" (y, x) times as large as its file, and is surrounded by zeros.
    Crowd objects are neither trained on nor counted. Boxes are compared in pixels of the files.
    COCO measures objects by "area" [B, N] if batches have it. Metrics are the loss, its parts, and
    those of `metric`.

    Args:
        preprocessing: preprocessing of the model.
        classes: class names.
        loss: function of outputs and a batch without crowds that returns parts {name: [B]}, whose
            sum is the loss.
        augment: augmentation of keys [B] and a batch.
        truth: pass {"boxes", "labels", "box_valid", "size"} to the model in training and {"size"}
            in evaluation, where such a model has no loss. "proposals" [B, P, 4] and
            "proposal_valid" [B, P] are added if batches have them.
        metric: "voc" for ap50 (area) and ap50_voc07 (11 points), means over classes of the average
            precision at IoU 0.5; "coco" for train.metrics.detection.COCO_NAMES.

    Returns:
        The task.

    Raises:
        ValueError: if an option is invalid.
    """
    if not classes:
        raise ValueError("a detector tells apart one class or more; got none")
    if metric not in get_args(Metric):
        raise ValueError(f"metric is one of {', '.join(get_args(Metric))}; got {metric!r}")
    seen = partial(inputs, preprocessing=preprocessing, truth=truth)
    figures = dict(classes=tuple(classes), metric=metric)
    return Task(
        augment=augment,
        inputs=seen,
        loss=partial(total_loss, loss=loss),
        measure=partial(measure, inputs=seen, loss=None if truth else loss),
        summarize=partial(summarize, **figures),
        render=partial(render, **figures),
    )


def inputs(batch: Any, train: bool, *, preprocessing: Preprocessing, truth: bool) -> tuple:
    """Returns the normalized images, 0 outside of their size, and with `truth` the targets."""
    image = normalize_canvas(batch["image"], batch["size"], preprocessing)
    if not truth:
        return (image,)
    names = ("boxes", "labels", "box_valid", "size") if train else ("size",)
    names += PROPOSAL_KEYS if PROPOSAL_KEYS[0] in batch else ()
    return image, {name: without_crowd(batch)[name] for name in names}


def without_crowd(batch: Any) -> dict[str, Any]:
    """Returns a batch without its crowd objects."""
    return {**batch, "box_valid": batch["box_valid"] & ~batch["crowd"]}


def total_loss(
    outputs: Any, batch: Any, *, loss: Callable
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Returns sums over images: the loss, the number of images, and the parts of the loss."""
    parts = sum_losses(loss(outputs, without_crowd(batch)), batch["valid"])
    weight = jnp.sum(batch["valid"], dtype=jnp.float32)
    return sum(parts.values(), jnp.zeros(())), weight, parts


def sum_losses(parts: Mapping[str, jax.Array], valid: jax.Array) -> dict[str, jax.Array]:
    """Adds losses [B] by name over the valid examples."""
    return {name: jnp.sum(jnp.where(valid, each, 0.0)) for name, each in parts.items()}


def measure(
    apply: Callable, batch: Any, *, inputs: Callable, loss: Callable | None
) -> dict[str, Any]:
    """Returns detections and objects as rows of train.metrics.detection, and sums of the losses."""
    outputs = apply(*inputs(batch, False))
    scale = batch["scale"][:, None, jnp.array([1, 0, 1, 0])]
    rows = {**prediction_rows(batch, outputs), "seen": batch["valid"]}
    rows |= {name: rows[name] / scale for name in ("boxes", "truth_boxes")}
    rows |= {"area": batch["area"]} if "area" in batch else {}
    parts = {} if loss is None else sum_losses(loss(outputs, without_crowd(batch)), batch["valid"])
    return {"rows": rows, "parts": parts}


def prediction_rows(batch: Any, outputs: Any) -> dict[str, Any]:
    """Converts a batch and its outputs to rows of train.metrics.detection, on the canvas."""
    return {
        **{name: outputs[name] for name in DETECTION_KEYS},
        "index": batch["index"],
        "boxes": outputs["boxes"].astype("float32"),
        "scores": outputs["scores"].astype("float32"),
        "truth_boxes": batch["boxes"],
        "truth_labels": batch["labels"],
        "truth_valid": batch["box_valid"],
        "crowd": batch["crowd"],
    }


def collect_rows(measured: Sequence[Any]) -> dict[str, np.ndarray]:
    """Joins the rows of batches."""
    return metrics.collect_rows([part["rows"] for part in measured])


def summarize(
    measured: Sequence[Any], *, classes: Sequence[str], metric: Metric
) -> dict[str, float]:
    """Computes "loss", its parts and the metrics from the sums and rows of batches."""
    rows = collect_rows(measured)
    count = len(rows["index"])
    parts = {
        name: float(np.sum([part["parts"][name] for part in measured], dtype=np.float64) / count)
        for name in measured[0]["parts"]
    }
    losses = {"loss": sum(parts.values()), **parts} if parts else {}
    figures = metrics.voc_metrics if metric == "voc" else metrics.coco_metrics
    return losses | figures(rows, classes=len(classes))


def render(
    batch: Any, outputs: Any, measured: Sequence[Any], *, classes: Sequence[str], metric: Metric
) -> dict[str, Figure | str]:
    """Plots the hardest images and the precision-recall curves, and writes metrics by class."""
    rows = collect_rows(measured)
    judged = metrics.match_detections(rows, classes=len(classes))
    each = metrics.voc_per_class(rows, judged)
    curves = pictures.precision_recall(rows, judged, each, classes=classes)
    if metric == "coco":
        each |= {"ap": metrics.coco_per_class(rows, classes=len(classes))}
    score = metrics.best_f1_score(rows, judged)
    here = {name: np.asarray(value) for name, value in prediction_rows(batch, outputs).items()}
    images = np.asarray(batch["image"])
    return {
        "predictions.png": pictures.plot_hardest(images, here, classes=classes, score=score),
        "precision_recall.png": curves,
        "classes.csv": class_table(each, classes),
    }


def class_table(each: Mapping[str, np.ndarray], classes: Sequence[str]) -> str:
    """Formats counts and metrics [K] as CSV with a line per class; NaN is empty."""
    figures = [name for name in each if name not in CSV_COLUMNS]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", *CSV_COLUMNS, *figures])
    for number, name in enumerate(classes):
        shares = [each[figure][number] for figure in figures]
        cells = ["" if np.isnan(share) else f"{share:.4f}" for share in shares]
        writer.writerow([name, *(each[count][number] for count in CSV_COLUMNS), *cells])
    return text.getvalue()
