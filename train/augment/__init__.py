"""Device-side augmentation: keys [B], batch -> batch, inside the jitted step.

Most functions are of one key and one image, `function(key, image [H, W, C], *, knobs) -> image`;
a recipe binds their knobs and lists them: `images(flip, partial(rotate, degrees=15.0))`. Images are
uint8, or floats in [0, 1], and come back so (train.augment.pixels). Those of train.augment.scene
move an image together with its mask and boxes: `scenes(scene.flip, partial(scene.rotate,
degrees=15.0))`, and so do those of train.augment.zoom. Those of train.augment.clip draw once for all
frames of a clip: `clips(clip.flip, clip.still(partial(brightness, amount=0.4)))`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from train.augment import clip, scene, zoom
from train.augment.color import blur, brightness, contrast, hsv, hue, noise, pca_color, saturation
from train.augment.crops import crop, pad_crop, resized_crop
from train.augment.geometry import affine, flip, rotate, scale, shift, translate
from train.augment.mix import cutmix, erase, mixup
from train.augment.mosaic import mosaic
from train.augment.policies import (
    CIFAR10,
    IMAGENET,
    auto_augment,
    rand_augment,
    trivial_augment,
)
from zoo.ops.fusion import fusion_barrier

__all__ = [
    "CIFAR10",
    "IMAGENET",
    "affine",
    "auto_augment",
    "blur",
    "brightness",
    "chain",
    "clip",
    "clips",
    "contrast",
    "crop",
    "cutmix",
    "erase",
    "flip",
    "hsv",
    "hue",
    "images",
    "mixup",
    "mosaic",
    "noise",
    "identity",
    "one_of",
    "pad_crop",
    "pca_color",
    "rand_augment",
    "resized_crop",
    "rotate",
    "saturation",
    "scale",
    "scene",
    "scenes",
    "shift",
    "translate",
    "trivial_augment",
    "zoom",
]


def identity(keys: jax.Array, batch: Any) -> Any:
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


def scenes(*functions: Callable) -> Callable:
    """function(key, scene) -> scene, ... -> augment(keys [B], batch) on every entry of the batch.

    The functions are those of train.augment.scene, and colors as `scene.image_alone(function)`.
    Each draws from a key of its own, as in `images`.
    Errors: ValueError where a mask, weight or instances are not of the image's size, or boxes do
    not say which are valid.
    """

    def augment(keys: jax.Array, batch: Any) -> Any:
        size = batch["image"].shape[:3]
        for name, value in scene.scene_maps(batch).items():
            if value.shape[:3] != size or value.ndim != (4 if name == "image" else 3):
                raise ValueError(f"expected {name} of {size}, as the image, got {value.shape}")
        if "boxes" in batch and batch.get("box_valid") is None:
            raise ValueError("expected box_valid [B, N] beside boxes, got none")
        for number, function in enumerate(functions):
            own = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)
            batch = jax.vmap(function)(own, batch)
            # Else a sampling of a sampled image computes each of its pixels four times: two
            # samplings of 4 x 512 x 512 with mask and weight take 160 milliseconds in place of 90.
            moved = scene.scene_maps(batch)
            batch = {**batch, **{name: fusion_barrier(value) for name, value in moved.items()}}
        return batch

    return augment


def clips(*functions: Callable) -> Callable:
    """function(key, clip) -> clip, ... -> augment(keys [B], batch) on every entry of the batch.

    The functions are those of train.augment.clip, and colors as `clip.still(function)`. Each draws
    from a key of its own, as in `images`.
    """

    def augment(keys: jax.Array, batch: Any) -> Any:
        for number, function in enumerate(functions):
            own = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)
            batch = jax.vmap(function)(own, batch)
        return batch

    return augment


def chain(*augments: Callable) -> Callable:
    """augment(keys [B], batch) -> batch, ... -> all of them in order, as one.

    Each draws from keys of its own: `chain(images(flip), partial(mixup, classes=10))`.
    """

    def augment(keys: jax.Array, batch: Any) -> Any:
        for number, one in enumerate(augments):
            batch = one(jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number), batch)
        return batch

    return augment


def one_of(*augments: Callable) -> Callable:
    """augment(keys [B], batch) -> batch, ... -> one of them for each example, equally likely.

    Errors: ValueError where they do not all put the same entries into the batch.
    """

    def augment(keys: jax.Array, batch: Any) -> Any:
        own = jax.vmap(jax.random.split)(keys)
        results = [one(own[:, 0], batch) for one in augments]
        entries = [sorted(result) for result in results]
        if any(names != entries[0] for names in entries):
            raise ValueError(f"one_of needs augmentations with the same entries, got {entries}")
        which = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(augments)))(own[:, 1])
        rows = jnp.arange(len(which))
        return jax.tree.map(lambda *options: jnp.stack(options)[which, rows], *results)

    return augment
