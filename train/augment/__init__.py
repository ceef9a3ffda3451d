"""Device-side augmentation: keys [B], batch -> batch, inside the jitted step."""

from collections.abc import Callable
from typing import Any

import jax

from train.augment.geometry import shift

__all__ = ["images", "nothing", "shift"]


def nothing(keys: jax.Array, batch: Any) -> Any:
    """Keys [B], batch -> the batch as it is."""
    del keys
    return batch


def images(*functions: Callable) -> Callable:
    """function(key, image [H, W, C]) -> image, ... -> augment(keys [B], batch) on batch["image"].

    Each function draws from a key of its own, so that adding one at the end changes no draw before.
    """

    def augment(keys: jax.Array, batch: Any) -> Any:
        image = batch["image"]
        for number, function in enumerate(functions):
            own = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)
            image = jax.vmap(function)(own, image)
        return {**batch, "image": image}

    return augment
