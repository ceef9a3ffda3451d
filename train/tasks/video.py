"""Video classification, with scores averaged over several views of a video."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from train import augment as augmentation
from train import plots
from train.metrics import classification as metrics
from train.task import Task
from train.tasks.classification import classification
from train.tasks.label_losses import Loss, LossName
from train.tasks.table import class_table
from zoo.preprocess import Preprocessing, preprocess, with_channels

__all__ = ["Inputs", "average_views", "clip_scores", "video"]
Inputs = Literal["video", "frame", "flow", "maps", "both"]
PLOT_EXAMPLES = 8
MIN_PLOT_SIDE = 1e-12  # a probability, so that its logarithm is a number


def video(
    *,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    augment: Callable = augmentation.identity,
    loss: LossName | Loss | Callable = optax.softmax_cross_entropy_with_integer_labels,
    label_smoothing: float = 0.0,
    inputs: Inputs = "video",
    flow: Preprocessing | None = None,
) -> Task:
    """Creates the task of video classification.

    Batches have "video" [B, T, H, W, C] uint8 and "label" [B], and models return "logits" [B, K].
    Examples with the same "group" are views of one video. Their scores (those of the model, or the
    softmax of its logits) are averaged before the metrics and the loss are computed. In training,
    frames are what `augment` returns. In evaluation, `preprocess` crops their center. Metrics are
    the loss, the accuracy and, above twenty classes, the top-5 accuracy.

    Args:
        preprocessing: preprocessing of the model.
        classes: class names.
        augment: augmentation of keys [B] and a batch.
        loss: loss as for `classification`.
        label_smoothing: label smoothing as for `classification`.
        inputs: arguments of the model. "video" is the clip [B, T, h, w, C]. "frame" is one frame
            [B, h, w, C], a random one in training and the middle one in evaluation. "flow" is
            batch["flow"] [B, L, H, W, 2] as [B, h, w, 2 L], with x and y alternating and the mean
            of each field subtracted. "maps" is batch["maps"] [B, H, W, M] as images of M channels.
            "both" is frame and flow.
        flow: preprocessing of the flow for "both".

    Returns:
        The task.

    Raises:
        ValueError: if an option is invalid.

    Source: mean subtraction of Simonyan and Zisserman 2014, section 3.1; scores averaged over views
    as there and in Feichtenhofer et al. 2019, section 4.
    """
    if inputs not in get_args(Inputs):
        raise ValueError(f"inputs is one of {', '.join(get_args(Inputs))}; got {inputs!r}")
    alike = classification(
        preprocessing=preprocessing,
        classes=classes,
        augment=augment,
        loss=loss,
        label_smoothing=label_smoothing,
    )
    seen = partial(
        model_inputs, kind=inputs, preprocessing=preprocessing, flow=flow or preprocessing
    )
    return alike._replace(
        inputs=seen,
        measure=partial(measure, inputs=seen),
        summarize=partial(summarize, top5=len(classes) > 20),
        render=partial(render, classes=classes),
    )


def model_inputs(
    batch: Any, train: bool, *, kind: Inputs, preprocessing: Preprocessing, flow: Preprocessing
) -> tuple[jax.Array, ...]:
    """Returns the arguments of the model."""
    match kind:
        case "video":
            return (normalize_clip(batch["video"], preprocessing, train=train),)
        case "frame":
            return (single_frame_inputs(batch, preprocessing, train=train),)
        case "flow":
            return (stack_flow(batch["flow"], flow, train=train),)
        case "maps":
            maps = batch["maps"]
            return (crop_frames(maps, with_channels(preprocessing, maps.shape[-1]), train=train),)
        case _:
            still = single_frame_inputs(batch, preprocessing, train=train)
            return still, stack_flow(batch["flow"], flow, train=train)


def crop_frames(image: jax.Array, preprocessing: Preprocessing, *, train: bool) -> jax.Array:
    """Normalizes images [B, H, W, C] and crops their center in evaluation."""
    return preprocess(image, preprocessing._replace(crop=1.0) if train else preprocessing)


def normalize_clip(clip: jax.Array, preprocessing: Preprocessing, *, train: bool) -> jax.Array:
    """Normalizes clips [B, T, H, W, C] and crops the center of their frames in evaluation."""
    if clip.ndim != 5:
        raise ValueError(f"expected videos [B, T, H, W, C], got shape {clip.shape}")
    flat = crop_frames(clip.reshape(-1, *clip.shape[2:]), preprocessing, train=train)
    return flat.reshape(*clip.shape[:2], *flat.shape[1:])


def single_frame_inputs(batch: Any, preprocessing: Preprocessing, *, train: bool) -> jax.Array:
    """Returns a frame [B, h, w, C] of each clip: a random one, in evaluation the middle one."""
    clip, index = batch["video"], batch["index"]
    length = clip.shape[1]
    if train:
        draw = jax.vmap(partial(jax.random.fold_in, jax.random.key(0)))(index)
        time = jax.vmap(lambda key: jax.random.randint(key, (), 0, length))(draw)
    else:
        time = jnp.full(len(clip), length // 2)
    return crop_frames(clip[jnp.arange(len(clip)), time], preprocessing, train=train)


def stack_flow(flow: jax.Array, preprocessing: Preprocessing, *, train: bool) -> jax.Array:
    """Converts flow [B, L, H, W, 2] uint8 to [B, h, w, 2 L] and subtracts the mean of fields."""
    count, length, height, width, _ = flow.shape
    together = jnp.moveaxis(flow, 1, 3).reshape(count, height, width, 2 * length)
    fields = crop_frames(together, with_channels(preprocessing, 2 * length), train=train)
    return fields - jnp.mean(fields, (1, 2), keepdims=True)


def clip_scores(outputs: Any) -> jax.Array:
    """Returns scores [B, K] that sum to 1."""
    return outputs["scores"] if "scores" in outputs else jax.nn.softmax(outputs["logits"], -1)


def measure(apply: Callable, batch: Any, *, inputs: Callable) -> dict[str, jax.Array]:
    """Returns rows of scores [B, K], labels and groups [B], with the label -1 for padding."""
    group = batch["group"] if "group" in batch else batch["index"]
    return {
        "scores": clip_scores(apply(*inputs(batch, False))),
        "label": jnp.where(batch["valid"], batch["label"], -1),
        "group": group,
    }


def average_views(measured: Sequence[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Averages the scores of the views of each video.

    Args:
        measured: rows of batches.

    Returns:
        Mean scores [N, K], labels [N] and groups [N] of N videos, in ascending order of groups.

    >>> rows = {"scores": np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [1, 0]])}
    >>> rows |= {"label": np.array([1, 0, 1, -1]), "group": np.array([4, 2, 4, 5])}
    >>> scores, labels, groups = average_views([rows])
    >>> scores.round(3).tolist(), labels.tolist(), groups.tolist()
    ([[0.2, 0.8], [0.6, 0.4]], [0, 1], [2, 4])
    """
    rows = {name: np.concatenate([part[name] for part in measured]) for name in measured[0]}
    real = rows["label"] >= 0
    groups, first, place, counts = np.unique(
        rows["group"][real], return_index=True, return_inverse=True, return_counts=True
    )
    total = np.zeros((len(groups), rows["scores"].shape[1]))
    np.add.at(total, place, rows["scores"][real])
    return total / counts[:, None], rows["label"][real][first], groups


def summarize(measured: Sequence[Any], *, top5: bool) -> dict[str, float]:
    """Computes "loss", "accuracy" and "top5_accuracy" over videos."""
    scores, label, _ = average_views(measured)
    own = scores[np.arange(len(label)), label]
    # The number of classes with a higher score, or an equal score and a lower index, as in argmax.
    earlier = np.arange(scores.shape[1]) < label[:, None]
    above = (scores > own[:, None]) | ((scores == own[:, None]) & earlier)
    rank = above.sum(1)
    figures = {
        "loss": float(-np.log(np.maximum(own, MIN_PLOT_SIDE)).mean()),
        "accuracy": float(np.mean(rank == 0)),
    }
    return figures | ({"top5_accuracy": float(np.mean(rank < 5))} if top5 else {})


def render(
    batch: Any, outputs: Any, measured: Sequence[Any], *, classes: Sequence[str]
) -> dict[str, Figure | str]:
    """Plots predictions and the confusion matrix, and writes the metrics of each class."""
    scores, label, _ = average_views(measured)
    counts = metrics.confusion_matrix(scores.argmax(1), label, classes=len(classes))
    return {
        "predictions.png": plot_hardest(batch, outputs, classes=classes),
        "confusion.png": plots.plot_confusion(counts, classes),
        "classes.csv": class_table(counts, classes, metrics.precision_recall_f1(counts)),
    }


def plot_hardest(batch: Any, outputs: Any, *, classes: Sequence[str]) -> Figure:
    """Plots the hardest clips and some others as strips of frames with true and predicted class."""
    scores, label = np.asarray(clip_scores(outputs)), batch["label"]
    predicted = scores.argmax(-1)
    order = np.argsort(scores[np.arange(len(label)), label], stable=True)[:PLOT_EXAMPLES]
    shown = np.concatenate([order, np.arange(min(PLOT_EXAMPLES, len(label)))])
    titles = [
        f"{classes[p]} {100 * row[p]:.0f}%" + (f", is {classes[t]}" if p != t else "")
        for row, p, t in zip(scores[shown], predicted[shown], label[shown], strict=True)
    ]
    figure = plots.plot_clips(clip_images(batch)[shown], titles, wrong=(predicted != label)[shown])
    wrong = np.sum(predicted != label)
    figure.suptitle(
        f"the {len(order)} hardest of {len(label)} ({wrong} wrong), then {PLOT_EXAMPLES} others",
        fontsize=9,
    )
    return figure


def clip_images(batch: Any) -> np.ndarray:
    """Returns the clips of a batch [B, T, H, W, C]: the video, the flow along x, or the maps."""
    if "video" in batch:
        return batch["video"]
    if "flow" in batch:
        return batch["flow"][..., :1]
    return np.moveaxis(batch["maps"], -1, 1)[..., None]
