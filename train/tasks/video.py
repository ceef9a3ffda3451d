"""One clip, one label; of several views of a video the mean of their scores."""

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
    """Batches {"video" [B, T, H, W, C] uint8, "label" [B]} and models with "logits" [B, K].

    inputs: what the model is called with.
        "video": the clip [B, T, h, w, C];
        "frame": one of its frames [B, h, w, C], in training a random one, else the middle one;
        "flow": batch["flow"] [B, L, H, W, 2] as [B, h, w, 2 L], x and y in turn, each field less its
            mean; "maps": batch["maps"] [B, H, W, M] as images of M channels;
        "both": frame and flow, two arguments, the flow by the preprocessing `flow`.
    Examples with one "group" are views of one video: their scores (the model's, or softmax of its
    logits) are averaged before anything is counted, and the loss is that of the average.

    loss, label_smoothing: as for `classification`. In training the frames are all that `augment`
    leaves, in evaluation what `preprocess` cuts from their center. Metrics: loss, accuracy and,
    above twenty classes, top5_accuracy.
    Errors: ValueError in one line for knobs that cannot be.

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
    """What a model is called with."""
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
    """[B, H, W, C] -> [B, h, w, C], normalized: in training the whole, else the center."""
    return preprocess(image, preprocessing._replace(crop=1.0) if train else preprocessing)


def normalize_clip(clip: jax.Array, preprocessing: Preprocessing, *, train: bool) -> jax.Array:
    """[B, T, H, W, C] -> [B, T, h, w, C], every frame as an image is."""
    if clip.ndim != 5:
        raise ValueError(f"expected videos [B, T, H, W, C], got shape {clip.shape}")
    flat = crop_frames(clip.reshape(-1, *clip.shape[2:]), preprocessing, train=train)
    return flat.reshape(*clip.shape[:2], *flat.shape[1:])


def single_frame_inputs(batch: Any, preprocessing: Preprocessing, *, train: bool) -> jax.Array:
    """Batch -> [B, h, w, C]: a frame that the example's number draws, in evaluation the middle one."""
    clip, index = batch["video"], batch["index"]
    length = clip.shape[1]
    if train:
        draw = jax.vmap(partial(jax.random.fold_in, jax.random.key(0)))(index)
        time = jax.vmap(lambda key: jax.random.randint(key, (), 0, length))(draw)
    else:
        time = jnp.full(len(clip), length // 2)
    return crop_frames(clip[jnp.arange(len(clip)), time], preprocessing, train=train)


def stack_flow(flow: jax.Array, preprocessing: Preprocessing, *, train: bool) -> jax.Array:
    """[B, L, H, W, 2] uint8 -> [B, h, w, 2 L], x and y in turn, each field less its mean."""
    count, length, height, width, _ = flow.shape
    together = jnp.moveaxis(flow, 1, 3).reshape(count, height, width, 2 * length)
    fields = crop_frames(together, with_channels(preprocessing, 2 * length), train=train)
    return fields - jnp.mean(fields, (1, 2), keepdims=True)


def clip_scores(outputs: Any) -> jax.Array:
    """A model's outputs -> [B, K], scores that sum to 1."""
    return outputs["scores"] if "scores" in outputs else jax.nn.softmax(outputs["logits"], -1)


def measure(apply: Callable, batch: Any, *, inputs: Callable) -> dict[str, jax.Array]:
    """Rows of scores [B, K], label and group [B], label -1 on the padding."""
    group = batch["group"] if "group" in batch else batch["index"]
    return {
        "scores": clip_scores(apply(*inputs(batch, False))),
        "label": jnp.where(batch["valid"], batch["label"], -1),
        "group": group,
    }


def average_views(measured: Sequence[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of batches -> of N videos: mean scores [N, K], labels [N], groups [N], ascending.

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
    """Rows of batches -> {"loss", "accuracy", "top5_accuracy"} over videos."""
    scores, label, _ = average_views(measured)
    own = scores[np.arange(len(label)), label]
    # How many classes have a higher score, or as high a one and come before: argmax's order.
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
    """What the model says of single clips, what it confuses, and how it does on each class."""
    scores, label, _ = average_views(measured)
    counts = metrics.confusion_matrix(scores.argmax(1), label, classes=len(classes))
    return {
        "predictions.png": plot_hardest(batch, outputs, classes=classes),
        "confusion.png": plots.plot_confusion(counts, classes),
        "classes.csv": class_table(counts, classes, metrics.precision_recall_f1(counts)),
    }


def plot_hardest(batch: Any, outputs: Any, *, classes: Sequence[str]) -> Figure:
    """The hardest clips, then some as they come, as strips of frames with truth and guess."""
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
        f"the {len(order)} hardest of {len(label)} ({wrong} wrong), then {PLOT_EXAMPLES} as they come",
        fontsize=9,
    )
    return figure


def clip_images(batch: Any) -> np.ndarray:
    """A batch's clips as pictures [B, T, H, W, C]: the video, else the flow along x, else the maps."""
    if "video" in batch:
        return batch["video"]
    if "flow" in batch:
        return batch["flow"][..., :1]
    return np.moveaxis(batch["maps"], -1, 1)[..., None]
