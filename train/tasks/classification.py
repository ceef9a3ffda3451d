"""Image classification."""

import csv
import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from train import augment as augmentation
from train import plots
from train.metrics import classification as metrics
from train.task import Task
from train.tasks.crops import ten_crops
from train.tasks.label_losses import LOSSES, Loss, LossName, lookup_loss, weighted_loss
from train.tasks.table import class_table
from zoo import losses
from zoo.preprocess import Preprocessing, preprocess

__all__ = ["LOSSES", "Loss", "LossName", "classification", "mistakes_csv"]
PLOT_EXAMPLES = 20
MISTAKE_ROWS = ("index", "label", "predicted", "label_share", "predicted_share")


def classification(
    *,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    augment: Callable = augmentation.identity,
    loss: LossName | Loss | Callable = optax.softmax_cross_entropy_with_integer_labels,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | np.ndarray | None = None,
    teacher: Callable | None = None,
    temperature: float = 4.0,
    teacher_weight: float = 0.5,
    crops: int = 1,
    training_size: tuple[int, int] | None = None,
) -> Task:
    """Creates the task of image classification.

    Batches have "image" [B, H, W, C] uint8 and "label" [B], and models return "logits" [B, K]. In
    training, the image is what `augment` returns. In evaluation, `preprocess` resizes it and crops
    its center. Metrics are the loss, the accuracy and, above twenty classes, the top-5 accuracy.

    Args:
        preprocessing: preprocessing of the model.
        classes: class names.
        augment: augmentation of keys [B] and a batch.
        loss: a name in LOSSES, a function of logits [B, K] and label [B] that returns [B], or a
            `Loss` that also has a function of soft labels. Soft labels are smoothed labels, and the
            "target" of mixup and cutmix.
        label_smoothing: share of the label that is distributed over all classes.
        class_weights: weights [K] of the true class, in the loss, in its divisor and in
            train/accuracy. Evaluation has no weights.
        teacher: function of preprocessed images [B, h, w, C] that returns logits [B, K]. The loss
            is (1 - teacher_weight) * loss + teacher_weight * distillation.
        temperature: temperature of the distillation.
        teacher_weight: weight of the distillation.
        crops: 1, or 10 to average the probabilities of `ten_crops` in evaluation.
        training_size: height and width of training images, if they differ from evaluation.

    Returns:
        The task.

    Raises:
        ValueError: if an option is invalid, or the loss has no form for soft labels.

    Source: class weights as in torch's cross_entropy: the sum of weights divides hard labels,
    smoothed or not, but the number of examples divides those of a "target".
    """
    law = lookup_loss(loss)
    check_loss_options(classes, class_weights, law, label_smoothing, temperature, teacher_weight)
    check_crops(preprocessing, crops)
    whole = preprocessing._replace(crop=1.0, size=training_size or preprocessing.size)
    cost = partial(weighted_loss, law, smoothing=label_smoothing, weights=class_weights)

    def inputs(batch: Any, train: bool) -> tuple[jax.Array]:
        return (preprocess(batch["image"], whole if train else preprocessing),)

    def total_loss(outputs: Any, batch: Any) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        logits, label = outputs["logits"], batch["label"]
        each, weight = cost(logits, label, batch.get("target"))
        if teacher is not None:
            taught = jax.lax.stop_gradient(teacher(*inputs(batch, True)))
            lesson = losses.distillation_loss(logits, taught, temperature=temperature)
            each = (1 - teacher_weight) * each + teacher_weight * weight * lesson
        hits = weight * (jnp.argmax(logits, -1) == label)
        total, weight, hits = (jnp.sum(x * batch["valid"]) for x in (each, weight, hits))
        return total, weight, {"accuracy": hits}

    return Task(
        augment=augment,
        inputs=inputs,
        loss=total_loss,
        measure=partial(measure, hard=law.hard, preprocessing=preprocessing, crops=crops),
        summarize=partial(summarize, top5=len(classes) > 20),
        render=partial(render, classes=classes),
    )


def check_loss_options(
    classes: Sequence[str],
    class_weights: Sequence[float] | np.ndarray | None,
    law: Loss,
    label_smoothing: float,
    temperature: float,
    teacher_weight: float,
) -> None:
    """Raises ValueError if an option of the loss is invalid."""
    if class_weights is not None:
        given = np.asarray(class_weights, np.float64)
        if given.shape != (len(classes),) or not (np.isfinite(given) & (given >= 0)).all():
            raise ValueError(
                f"class_weights are {len(classes)} numbers, 0 or more, one for each class; "
                f"got {given.tolist()!s:.80}"
            )
    if not 0 <= label_smoothing < 1 or (label_smoothing and law.soft is None):
        raise ValueError(
            "label_smoothing is from 0 up to 1, and 0 for a loss without shares of classes (svm, "
            f"hinge, your own); got {label_smoothing}"
        )
    if not 0 <= teacher_weight <= 1 or temperature <= 0:
        raise ValueError(
            "teacher_weight is from 0 to 1 and temperature above 0; "
            f"got {teacher_weight} and {temperature}"
        )


def check_crops(preprocessing: Preprocessing, crops: int) -> None:
    """Raises ValueError if the number of crops is invalid, or all ten crops would be equal."""
    if crops not in (1, 10):
        raise ValueError(f"crops is 1 (the center) or 10; got {crops}")
    if crops == 10 and preprocessing.crop >= 1:
        raise ValueError(
            "ten crops need images larger than the crop: give a preprocessing whose crop is below "
            f"1, 0.875 say; got {preprocessing.crop}"
        )


def measure(
    apply: Callable, batch: Any, *, hard: Callable, preprocessing: Preprocessing, crops: int
) -> dict[str, jax.Array]:
    """Returns sums of the loss and of top-5 hits, and rows for each example.

    Rows are label and prediction, -1 for padding, the index of the example, and the probabilities
    of both.

    Args:
        apply: function of the inputs that evaluates the model.
        batch: batch [B, ...].
        hard: loss of logits and labels, which returns [B].
        preprocessing: preprocessing of the model.
        crops: 1 or 10.

    Returns:
        Sums and rows by name.
    """
    label, valid = batch["label"], batch["valid"]
    if crops == 1:
        logits = apply(preprocess(batch["image"], preprocessing))["logits"]
    else:
        images = ten_crops(batch["image"], preprocessing)
        each = jnp.stack([jax.nn.log_softmax(apply(image)["logits"]) for image in images])
        logits = jax.nn.logsumexp(each, 0) - jnp.log(crops)
    predicted, shares = jnp.argmax(logits, -1), jax.nn.softmax(logits, -1)
    share_of = lambda chosen: jnp.take_along_axis(shares, chosen[:, None], axis=1)[:, 0]
    return {
        "loss": jnp.sum(jnp.where(valid, hard(logits, label), 0.0)),
        "top5": jnp.sum(metrics.top_k_correct(logits, label, k=5) & valid),
        "index": batch["index"],
        "label": jnp.where(valid, label, -1),
        "predicted": jnp.where(valid, predicted, -1),
        "label_share": share_of(label),
        "predicted_share": share_of(predicted),
    }


def summarize(measured: Sequence[Any], *, top5: bool) -> dict[str, float]:
    """Computes "loss", "accuracy" and "top5_accuracy" from the sums and rows of batches."""
    label, predicted = (
        np.concatenate([part[name] for part in measured]) for name in ("label", "predicted")
    )
    count = np.sum(label >= 0)
    sums = {n: np.sum([part[n] for part in measured], dtype=np.float64) for n in ("loss", "top5")}
    correct = np.sum((label == predicted) & (label >= 0))
    figures = {"loss": float(sums["loss"] / count), "accuracy": float(correct / count)}
    return figures | ({"top5_accuracy": float(sums["top5"] / count)} if top5 else {})


def render(
    batch: Any, outputs: Any, measured: Sequence[Any], *, classes: Sequence[str]
) -> dict[str, Figure | str]:
    """Plots predictions and the confusion matrix, and writes the metrics of each class."""
    label, predicted = (
        np.concatenate([part[name] for part in measured]) for name in ("label", "predicted")
    )
    counts = metrics.confusion_matrix(predicted, label, classes=len(classes))
    return {
        "predictions.png": plot_hardest(batch, outputs, classes=classes),
        "confusion.png": plots.plot_confusion(counts, classes),
        "classes.csv": class_table(counts, classes, metrics.precision_recall_f1(counts)),
    }


def mistakes_csv(
    measured: Sequence[Any], classes: Sequence[str], files: Sequence[str] | None = None
) -> str:
    r"""Formats wrong predictions as CSV, with the least likely label first.

    On training data, the first lines are the most likely label errors.

    Args:
        measured: rows of batches.
        classes: class names.
        files: file of each example; its index if not given.

    Returns:
        The CSV text.

    >>> row = dict(index=[4, 5], label=[0, 1], predicted=[0, 0])
    >>> row |= dict(label_share=[0.9, 0.25], predicted_share=[0.9, 0.75])
    >>> mistakes_csv([row], ("no", "yes"))
    'example,label,predicted,p_label,p_predicted\n5,yes,no,0.2500,0.7500\n'
    """
    rows = {name: np.concatenate([part[name] for part in measured]) for name in MISTAKE_ROWS}
    order = np.argsort(rows["label_share"], kind="stable")
    order = order[(rows["label"] != rows["predicted"])[order]]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["example", "label", "predicted", "p_label", "p_predicted"])
    for index, label, predicted, *shares in zip(
        *(rows[name][order] for name in MISTAKE_ROWS), strict=True
    ):
        words = (classes[int(label)], classes[int(predicted)])
        example = files[int(index)] if files else int(index)
        writer.writerow([example, *words, *(f"{share:.4f}" for share in shares)])
    return text.getvalue()


def plot_hardest(batch: Any, outputs: Any, *, classes: Sequence[str]) -> Figure:
    """Plots the hardest examples and some others with the predicted class and its probability.

    Wrong predictions are red, with the true class.
    """
    probabilities, label = np.asarray(jax.nn.softmax(outputs["logits"], -1)), batch["label"]
    predicted = probabilities.argmax(-1)
    order = np.argsort(probabilities[np.arange(len(label)), label], stable=True)[:PLOT_EXAMPLES]
    shown = np.concatenate([order, np.arange(min(PLOT_EXAMPLES, len(label)))])
    titles = [
        f"{classes[p]} {100 * row[p]:.0f}%" + (f"\nis {classes[t]}" if p != t else "")
        for row, p, t in zip(probabilities[shown], predicted[shown], label[shown], strict=True)
    ]
    figure = plots.plot_images(batch["image"][shown], titles, wrong=(predicted != label)[shown])
    wrong = np.sum(predicted != label)
    figure.suptitle(
        f"the {len(order)} hardest of {len(label)} ({wrong} wrong), then {PLOT_EXAMPLES} others",
        fontsize=9,
    )
    return figure
