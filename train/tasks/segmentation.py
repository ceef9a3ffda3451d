"""Semantic segmentation."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from train import augment as augmentation
from train import plots
from train.metrics import classification
from train.metrics.connected_components import connected_components
from train.task import Task
from train.tasks.pixel_losses import (
    LOSSES,
    LossName,
    align_logits,
    center_crop,
    lookup_losses,
    pixel_loss,
)
from train.tasks.table import class_table
from zoo import losses
from zoo.media.colormap import voc_colormap
from zoo.preprocess import Preprocessing, preprocess

__all__ = ["LOSSES", "LossName", "segmentation"]
HARDEST, COMING = 6, 4  # examples in predictions.png
EPSILON = 1e-6  # a sum of weights that is none: a batch of ignored pixels alone


def segmentation(
    *,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    augment: Callable = augmentation.identity,
    loss: LossName | Callable | Sequence[LossName | Callable] = "cross_entropy",
    class_weights: Sequence[float] | np.ndarray | None = None,
    auxiliary_weight: float = 0.5,
    margin: int = 0,
    predict: Callable | None = None,
    membrane: int | None = None,
    palette: np.ndarray | None = None,
) -> Task:
    """Creates the task of semantic segmentation.

    Batches have "image" [B, H, W, C] uint8 and "mask" [B, H, W] of classes, with 255 for ignored
    pixels, and models return "logits" [B, h, w, K]. Optional weights "weight" [B, H, W] apply to
    the pixels in training. The larger of logits and mask is cropped to the center of the other.
    Images keep their size; only mean and deviation of `preprocessing` are used. Metrics are loss,
    pixel_accuracy, mean_accuracy, mean_iou, frequency_weighted_iou and dice.

    Args:
        preprocessing: preprocessing of the model.
        classes: class names.
        augment: augmentation of keys [B] and a batch.
        loss: a name in LOSSES, a function of logits [B, h, w, K] and mask [B, h, w] that returns
            losses of pixels [B, h, w] or images [B], or several of them, which are added. The loss
            is the mean over pixels. The loss of an image counts as much as its pixels.
        class_weights: weights [K] of the true class, which multiply "weight" in the loss, in its
            divisor and in train/pixel_accuracy. Evaluation has no weights.
        auxiliary_weight: weight in training of the same loss of "auxiliary_logits", if a model
            returns them.
        margin: pixels by which images are mirrored on every side, for valid convolutions.
        predict: function of (function of images that returns probabilities [B, h, w, K]) and images
            that returns probabilities, in evaluation, such as `zoo.inference.tiling.average_flips`.
            Plots show the model alone.
        membrane: which of two classes is the border of cells. Then "rand" and "information" of the
            ISBI 2012 challenge are measured on the host.
        palette: colors [K, 3] uint8 of the plots; those of Pascal VOC if not given.

    Returns:
        The task.

    Raises:
        ValueError: if an option is invalid.

    Source: Long et al. 2015, section 5, for the metrics; Ronneberger et al. 2015 for weight maps.
    """
    laws = lookup_losses(loss)
    check_options(classes, class_weights, margin, membrane, palette)
    colors = voc_colormap(len(classes)) if palette is None else np.asarray(palette, np.uint8)

    seen = partial(inputs, preprocessing=preprocessing, margin=margin)
    training = dict(class_weights=class_weights, auxiliary_weight=auxiliary_weight)
    evaluation = dict(classes=len(classes), predict=predict, membrane=membrane)
    return Task(
        augment=augment,
        inputs=seen,
        loss=partial(total_loss, laws=laws, **training),
        measure=partial(measure, inputs=seen, laws=laws, **evaluation),
        summarize=partial(summarize, membrane=membrane),
        render=partial(render, classes=classes, palette=colors),
    )


def inputs(
    batch: Any, train: bool, *, preprocessing: Preprocessing, margin: int
) -> tuple[jax.Array]:
    """Normalizes images [B, H, W, C] and mirrors `margin` pixels on every side."""
    del train
    image = batch["image"]
    whole = preprocessing._replace(size=image.shape[1:3], crop=1.0)
    return (mirror_margin(preprocess(image, whole), margin),)


def total_loss(
    outputs: Any,
    batch: Any,
    *,
    laws: Sequence[Callable],
    class_weights: Sequence[float] | np.ndarray | None,
    auxiliary_weight: float,
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Returns sums over the weighted pixels: the losses, the weights, and the correct pixels."""
    weight = losses.pixel_weights(batch["mask"], batch.get("weight"), class_weights=class_weights)
    weight = weight * batch["valid"][:, None, None]
    logits, mask, own = align_logits(outputs["logits"], batch["mask"], weight)
    total = pixel_loss(laws, logits, mask, own)
    if "auxiliary_logits" in outputs:
        sides = align_logits(outputs["auxiliary_logits"], batch["mask"], weight)
        total = total + auxiliary_weight * pixel_loss(laws, *sides)
    hits = jnp.sum(own * (jnp.argmax(logits, -1) == mask))
    return total, jnp.maximum(jnp.sum(own), EPSILON), {"pixel_accuracy": hits}


def measure(
    apply: Callable,
    batch: Any,
    *,
    inputs: Callable,
    laws: Sequence[Callable],
    classes: int,
    predict: Callable | None,
    membrane: int | None,
) -> dict[str, jax.Array]:
    """Returns the sum of the losses and confusion counts, and masks and cells with `membrane`."""
    logits = predict_probabilities(apply, *inputs(batch, False), predict=predict)
    mask = jnp.where(batch["valid"][:, None, None], batch["mask"], losses.IGNORE_LABEL)
    logits, mask = align_logits(logits, mask)
    sums = {
        "loss": pixel_loss(laws, logits, mask, losses.pixel_weights(mask)),
        "confusion": classification.pixel_confusion_matrix(
            jnp.argmax(logits, -1), mask, classes=classes
        ),
    }
    if membrane is None:
        return sums
    return {**sums, "mask": mask, "cell": cell_probability(logits, membrane)}


def check_options(
    classes: Sequence[str],
    class_weights: Sequence[float] | np.ndarray | None,
    margin: int,
    membrane: int | None,
    palette: np.ndarray | None,
) -> None:
    """Raises ValueError if an option is invalid."""
    if not 2 <= len(classes) <= losses.IGNORE_LABEL:
        raise ValueError(f"a mask tells apart 2 to 255 classes; got {len(classes)}")
    if class_weights is not None:
        given = np.asarray(class_weights, np.float64)
        if given.shape != (len(classes),) or not (np.isfinite(given) & (given >= 0)).all():
            raise ValueError(
                f"class_weights are {len(classes)} numbers, 0 or more, one for each class; "
                f"got {given.tolist()!s:.80}"
            )
    if margin < 0:
        raise ValueError(f"margin is 0 or more pixels; got {margin}")
    if membrane is not None and (len(classes) != 2 or membrane not in (0, 1)):
        raise ValueError(
            f"membrane is 0 or 1, of two classes; got {membrane} of {len(classes)} classes"
        )
    if palette is not None and np.shape(palette) != (len(classes), 3):
        raise ValueError(
            f"palette is [{len(classes)}, 3], a color for each class; got {np.shape(palette)}"
        )


def mirror_margin(image: jax.Array, margin: int) -> jax.Array:
    """Mirrors images [B, H, W, C] at their border to [B, H + 2 m, W + 2 m, C]."""
    if margin >= min(image.shape[1:3]):
        raise ValueError(
            f"images of {image.shape[1]} x {image.shape[2]} can be mirrored by less than their "
            f"smaller side; got margin {margin}"
        )
    sides = ((0, 0), (margin, margin), (margin, margin), (0, 0))
    return jnp.pad(image, sides, mode="reflect") if margin else image


def predict_probabilities(
    apply: Callable, image: jax.Array, *, predict: Callable | None
) -> jax.Array:
    """Returns logits [B, h, w, K] of images, or the log-probabilities of `predict`."""
    if predict is None:
        return apply(image)["logits"]
    shares = predict(lambda image: jax.nn.softmax(apply(image)["logits"]), image)
    return jnp.log(jnp.maximum(shares, jnp.finfo(shares.dtype).tiny))


def cell_probability(logits: jax.Array, membrane: int) -> jax.Array:
    """Returns the probability [B, h, w] float32 of a cell from logits [B, h, w, 2]."""
    return jax.nn.softmax(logits.astype(jnp.float32))[..., 1 - membrane]


def summarize(measured: Sequence[Any], *, membrane: int | None) -> dict[str, float]:
    """Computes the metrics from the sums of batches; with `membrane` also the ISBI scores."""
    counts = sum_confusion(measured)
    pixels = counts.sum()
    total = np.sum([part["loss"] for part in measured], dtype=np.float64)
    loss = float(total / pixels) if pixels else float("nan")
    figures = {"loss": loss, **classification.overlap_counts(counts)}
    if membrane is None:
        return figures
    cells = [image for part in measured for image in part["cell"]]
    truth = [
        connected_components(mask == 1 - membrane) for part in measured for mask in part["mask"]
    ]
    return figures | classification.isbi_scores(cells, truth)


def sum_confusion(measured: Sequence[Any]) -> np.ndarray:
    """Adds the confusion matrices of batches to [K, K] int64."""
    return np.stack([part["confusion"] for part in measured]).sum(0, dtype=np.int64)


def render(
    batch: Any,
    outputs: Any,
    measured: Sequence[Any],
    *,
    classes: Sequence[str],
    palette: np.ndarray,
) -> dict[str, Figure | str]:
    """Plots predictions and the confusion matrix, and writes the metrics of each class."""
    counts = sum_confusion(measured)
    return {
        "predictions.png": plot_hardest(batch, outputs, classes=classes, palette=palette),
        "confusion.png": plots.plot_confusion(counts, classes),
        "classes.csv": class_table(counts, classes, classification.region_metrics(counts)),
    }


def plot_hardest(
    batch: Any, outputs: Any, *, classes: Sequence[str], palette: np.ndarray
) -> Figure:
    """Plots the examples with the lowest mean IoU, and some others."""
    predicted = np.asarray(outputs["logits"]).argmax(-1)
    predicted, mask = (np.asarray(x) for x in align_logits(predicted, np.asarray(batch["mask"])))
    figures = [
        classification.overlap_counts(classification.confusion_matrix(p, m, classes=len(classes)))
        for p, m in zip(predicted, format_labels(mask, classes), strict=True)
    ]
    order = np.argsort([each["mean_iou"] for each in figures], stable=True)[:HARDEST]
    coming = [number for number in range(len(mask)) if number not in order][:COMING]
    rows = [*order.tolist(), *coming]
    titles = [
        f"{'hardest' if place < len(order) else 'as it comes'}: number {batch['index'][row]}, "
        f"mean IoU {figures[row]['mean_iou']:.3f}, "
        f"{100 * figures[row]['pixel_accuracy']:.1f} % of the pixels right"
        for place, row in enumerate(rows)
    ]
    image = center_crop(np.asarray(batch["image"])[rows], mask.shape[1:3])
    return plots.plot_masks(
        image, mask[rows], predicted[rows], titles, classes=classes, palette=palette
    )


def format_labels(mask: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Converts masks [B, H, W] to int64 with -1 where they contain no class."""
    return np.where(mask < len(classes), mask.astype(np.int64), -1)
