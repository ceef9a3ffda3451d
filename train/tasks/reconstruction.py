"""Reconstruction of an image, or of an image without noise."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from train import augment as augmentation
from train import plots
from train.task import Task
from zoo import losses

PLOT_EXAMPLES = 10
LOSSES = {
    "squared": losses.squared_error,
    "absolute": losses.absolute_error,
    "smooth_l1": losses.smooth_l1,
    "huber": losses.huber,
}
Loss = Literal["cross_entropy", "squared", "absolute", "smooth_l1", "huber"]


def reconstruction(
    *,
    noise: float = 0.0,
    loss: Loss = "cross_entropy",
    augment: Callable = augmentation.identity,
) -> Task:
    """Creates the task of reconstruction.

    Batches have "image" [B, H, W, C] uint8, or floats in [0, 1], and models return "reconstruction"
    [B, H, W, C]. Metrics are the loss and squared_error, which is summed over the pixels of an
    image as in Hinton and Salakhutdinov 2006.

    Args:
        noise: standard deviation of Gaussian noise on the input, which is clipped to [0, 1]. It is
            random in training, and depends on the index of the example in evaluation.
        loss: name of the loss, a mean over pixels. The cross-entropy uses "reconstruction_logits".
        augment: augmentation of keys [B] and a batch.

    Returns:
        The task.
    """

    def augmented(keys: jax.Array, batch: Any) -> Any:
        batch = augment(keys, batch)
        if not noise:
            return batch
        own = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, 1_000)
        return {**batch, "noisy": add_noise(own, to_unit_range(batch["image"]), noise=noise)}

    def inputs(batch: Any, train: bool) -> tuple[jax.Array]:
        del train
        if "noisy" in batch:
            return (batch["noisy"],)
        image = to_unit_range(batch["image"])
        if not noise:
            return (image,)
        keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(0)))(batch["index"])
        return (add_noise(keys, image, noise=noise),)

    def total(outputs: Any, batch: Any) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        valid = batch["valid"].astype(jnp.float32)
        each, squared = reconstruction_errors(outputs, batch, loss=loss)
        return jnp.sum(each * valid), jnp.sum(valid), {"squared_error": jnp.sum(squared * valid)}

    def measure(apply: Callable, batch: Any) -> dict[str, jax.Array]:
        each, squared = reconstruction_errors(apply(*inputs(batch, False)), batch, loss=loss)
        valid = batch["valid"]
        return {
            "loss": jnp.sum(jnp.where(valid, each, 0.0)),
            "squared_error": jnp.sum(jnp.where(valid, squared, 0.0)),
            "count": jnp.sum(valid),
        }

    def render(batch: Any, outputs: Any, measured: Sequence[Any]) -> dict[str, Figure]:
        del measured
        rows = {"image": to_unit_range(batch["image"])}
        if noise:
            rows["noisy input"] = inputs(batch, False)[0]
        rows["reconstruction"] = outputs["reconstruction"]
        shown = {name: to_image(np.asarray(x)[:PLOT_EXAMPLES]) for name, x in rows.items()}
        return {"predictions.png": plots.plot_strips(shown)}

    return Task(augmented, inputs, total, measure, summarize, render)


def add_noise(keys: jax.Array, image: jax.Array, *, noise: float) -> jax.Array:
    """Adds Gaussian noise to images [B, H, W, C] with keys [B], clipped to [0, 1]."""

    def corrupt(key: jax.Array, image: jax.Array) -> jax.Array:
        return jnp.clip(image + noise * jax.random.normal(key, image.shape), 0.0, 1.0)

    return jax.vmap(corrupt)(keys, image)


def reconstruction_errors(outputs: Any, batch: Any, *, loss: Loss) -> tuple[jax.Array, jax.Array]:
    """Returns the loss per pixel [B] and the squared error per image [B]."""
    target = to_unit_range(batch["image"])
    pixels = math.prod(target.shape[1:])
    squared = pixels * losses.squared_error(outputs["reconstruction"], target)
    if loss in LOSSES:
        return LOSSES[loss](outputs["reconstruction"], target), squared
    entropy = optax.sigmoid_binary_cross_entropy(outputs["reconstruction_logits"], target)
    return losses.mean_per_example(entropy), squared


def to_unit_range(image: jax.Array) -> jax.Array:
    """Converts images [B, H, W, C] of uint8 or floats in [0, 1] to float32 in [0, 1]."""
    image = jnp.asarray(image)
    scale = 1 / 255 if image.dtype == jnp.uint8 else 1.0
    return image.astype(jnp.float32) * scale


def to_image(image: np.ndarray) -> np.ndarray:
    """Returns gray and RGB images unchanged, and codes [B, 1, 1, D] as bars [B, 8, D, 1]."""
    if image.shape[-1] in (1, 3):
        return image
    return np.broadcast_to(image.reshape(len(image), 1, -1, 1), (len(image), 8, image[0].size, 1))


def summarize(measured: Sequence[Any]) -> dict[str, float]:
    """Computes "loss" and "squared_error" from the sums of batches."""
    sums = jax.tree.map(lambda *parts: np.sum(np.stack(parts), dtype=np.float64), *measured)
    return {name: sums[name] / sums["count"] for name in ("loss", "squared_error")}
