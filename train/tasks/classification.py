"""One image, one label."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from train import augment as augmentation
from train import metrics, plots
from train.task import Task
from zoo.preprocess import Preprocessing, preprocess

SHOWN = 20


def classification(
    *,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    augment: Callable = augmentation.nothing,
    loss: Callable = optax.softmax_cross_entropy_with_integer_labels,
    label_smoothing: float = 0.0,
) -> Task:
    """Batches {"image" [B, H, W, C] uint8, "label" [B]} and models with "logits" [B, K].

    loss: logits [B, K], label [B] -> [B]; smoothed labels, and the soft ones that mixup and cutmix
    leave in "target" [B, K], take softmax cross-entropy in its place. Metrics: loss, accuracy and, above twenty classes,
    top5_accuracy.
    """

    def inputs(batch: Any, train: bool) -> tuple[jax.Array]:
        del train
        return (preprocess(batch["image"], preprocessing),)

    def per_example(logits: jax.Array, batch: Any) -> jax.Array:
        if "target" not in batch and not label_smoothing:
            return loss(logits, batch["label"])
        soft = batch.get("target", jax.nn.one_hot(batch["label"], len(classes)))
        return optax.softmax_cross_entropy(logits, optax.smooth_labels(soft, label_smoothing))

    def total_loss(outputs: Any, batch: Any) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        valid = batch["valid"].astype(jnp.float32)
        correct = jnp.argmax(outputs["logits"], -1) == batch["label"]
        losses = per_example(outputs["logits"], batch)
        return jnp.sum(losses * valid), jnp.sum(valid), {"accuracy": jnp.sum(correct * valid)}

    def measure(apply: Callable, batch: Any) -> dict[str, jax.Array]:
        logits, label, valid = (
            apply(*inputs(batch, False))["logits"],
            batch["label"],
            batch["valid"],
        )
        return {
            "loss": jnp.sum(jnp.where(valid, loss(logits, label), 0.0)),
            "count": jnp.sum(valid),
            "top5": jnp.sum(metrics.top_k(logits, label, k=5) & valid),
            "confusion": metrics.confusion(
                jnp.argmax(logits, -1), label, valid, classes=len(classes)
            ),
        }

    return Task(
        augment=augment,
        inputs=inputs,
        loss=total_loss,
        measure=measure,
        summarize=partial(summarize, top5=len(classes) > 20),
        render=partial(render, classes=classes),
    )


def summarize(measured: Sequence[Any], *, top5: bool) -> dict[str, float]:
    """Sums of batches -> {"loss", "accuracy", "top5_accuracy"}."""
    sums = jax.tree.map(lambda *parts: np.sum(np.stack(parts), 0, dtype=np.float64), *measured)
    figures = {
        "loss": sums["loss"] / sums["count"],
        "accuracy": np.trace(sums["confusion"]) / sums["count"],
    }
    return figures | ({"top5_accuracy": sums["top5"] / sums["count"]} if top5 else {})


def render(batch: Any, outputs: Any, *, classes: Sequence[str]) -> Figure:
    """The hardest examples, then some as they come: what the model says and how sure it is.

    In red, with the truth, where it is wrong.
    """
    probabilities, label = np.asarray(jax.nn.softmax(outputs["logits"], -1)), batch["label"]
    predicted = probabilities.argmax(-1)
    hardest = np.argsort(probabilities[np.arange(len(label)), label], stable=True)[:SHOWN]
    shown = np.concatenate([hardest, np.arange(min(SHOWN, len(label)))])
    titles = [
        f"{classes[p]} {100 * row[p]:.0f}%" + (f"\nis {classes[t]}" if p != t else "")
        for row, p, t in zip(probabilities[shown], predicted[shown], label[shown], strict=True)
    ]
    figure = plots.pictures(batch["image"][shown], titles, wrong=(predicted != label)[shown])
    wrong = np.sum(predicted != label)
    figure.suptitle(
        f"the {len(hardest)} hardest of {len(label)} ({wrong} wrong), then {SHOWN} as they come",
        fontsize=9,
    )
    return figure
