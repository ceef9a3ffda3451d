"""An image, itself as the target; with noise on the input it is denoising."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from train import plots
from train.task import Task

SHOWN = 10


def reconstruction(
    *, noise: float = 0.0, binary: bool = True, augment: Callable | None = None
) -> Task:
    """Batches {"image" [B, H, W, C] uint8} and models with "reconstruction" [B, H, W, C].

    noise: standard deviation of the Gaussian noise on the input, clipped to [0, 1]; drawn afresh
    in training, from a fixed key and `index` in evaluation. binary: sigmoid cross-entropy of
    "reconstruction_logits", else squared error. Both summed over pixels, as in Hinton and
    Salakhutdinov 2006; metrics: loss, squared_error (per image), mse (per pixel).
    """

    def corrupt(key: jax.Array, image: jax.Array) -> jax.Array:
        return jnp.clip(image + noise * jax.random.normal(key, image.shape), 0.0, 1.0)

    def augmented(keys: jax.Array, batch: Any) -> Any:
        if augment is not None:
            batch = augment(keys, batch)
        if not noise:
            return batch
        own = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, 1_000)
        return {**batch, "noisy": jax.vmap(corrupt)(own, unit(batch["image"]))}

    def inputs(batch: Any, train: bool) -> tuple[jax.Array]:
        del train
        if "noisy" in batch:
            return (batch["noisy"],)
        image = unit(batch["image"])
        if not noise:
            return (image,)
        keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(0)))(batch["index"])
        return (jax.vmap(corrupt)(keys, image),)

    def per_example(outputs: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        target = unit(batch["image"])
        axes = tuple(range(1, target.ndim))
        squared = jnp.sum(jnp.square(outputs["reconstruction"] - target), axes)
        if not binary:
            return squared, squared
        logits = outputs["reconstruction_logits"]
        return jnp.sum(optax.sigmoid_binary_cross_entropy(logits, target), axes), squared

    def loss(outputs: Any, batch: Any) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        valid = batch["valid"].astype(jnp.float32)
        losses, squared = per_example(outputs, batch)
        return jnp.sum(losses * valid), jnp.sum(valid), {"squared_error": jnp.sum(squared * valid)}

    def measure(apply: Callable, batch: Any) -> dict[str, jax.Array]:
        losses, squared = per_example(apply(*inputs(batch, False)), batch)
        valid = batch["valid"]
        return {
            "loss": jnp.sum(jnp.where(valid, losses, 0.0)),
            "squared_error": jnp.sum(jnp.where(valid, squared, 0.0)),
            "count": jnp.sum(valid),
            "pixels": jnp.sum(valid) * np.prod(batch["image"].shape[1:], dtype=np.float32),
        }

    def render(batch: Any, outputs: Any) -> Figure:
        rows = {"image": unit(batch["image"])}
        if noise:
            rows["noisy input"] = inputs(batch, False)[0]
        rows["reconstruction"] = outputs["reconstruction"]
        return plots.strips({name: np.asarray(x)[:SHOWN] for name, x in rows.items()})

    return Task(augmented, inputs, loss, measure, summarize, render)


def unit(image: jax.Array) -> jax.Array:
    """[B, H, W, C] uint8 -> float32 in [0, 1]."""
    return jnp.asarray(image, jnp.float32) / 255


def summarize(measured: Sequence[Any]) -> dict[str, float]:
    """Sums of batches -> {"loss", "squared_error", "mse"}."""
    sums = jax.tree.map(lambda *parts: np.sum(np.stack(parts), dtype=np.float64), *measured)
    return {
        "loss": sums["loss"] / sums["count"],
        "squared_error": sums["squared_error"] / sums["count"],
        "mse": sums["squared_error"] / sums["pixels"],
    }
