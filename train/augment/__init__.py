"""Augmentation on the device: functions of keys [B] and a batch, inside the compiled step.

Most functions transform one image: `function(key, image [H, W, C], *, options)`. A recipe sets
their options and combines them: `images(flip, partial(rotate, degrees=15.0))`. Images are uint8, or
floats in [0, 1], and keep their dtype (train.augment.pixels).

The functions of train.augment.scene and train.augment.zoom transform an image together with its
mask and boxes: `scenes(scene.flip, partial(scene.rotate, degrees=15.0))`. Those of
train.augment.clip apply the same transformation to all frames of a clip: `clips(clip.flip,
clip.same_for_all_frames(partial(brightness, amount=0.4)))`.
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
    """Returns the batch unchanged."""
    del keys
    return batch


def images(*functions: Callable) -> Callable:
    """Combines functions of one image to an augmentation of batch["image"].

    Each function uses its own key, so that another function at the end does not change the random
    numbers of the others.

    Args:
        functions: functions of a key and an image [H, W, C].

    Returns:
        A function of keys [B] and a batch.
    """

    def augment(keys: jax.Array, batch: Any) -> Any:
        image = batch["image"]
        for number, function in enumerate(functions):
            own = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)
            image = jax.vmap(function)(own, image)
        return {**batch, "image": image}

    return augment


def scenes(*functions: Callable) -> Callable:
    """Combines functions of one scene to an augmentation of all entries of a batch.

    The functions are those of train.augment.scene, and of colors as `scene.image_only(function)`.
    Each uses its own key, as in `images`.

    Args:
        functions: functions of a key and a scene.

    Returns:
        A function of keys [B] and a batch. It raises ValueError if a mask, weights or instances do
        not have the size of the image, or boxes have no "box_valid".
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
            # Otherwise sampling a sampled image computes each of its pixels four times: two
            # samplings of 4 x 512 x 512 with mask and weight take 160 milliseconds in place of 90.
            moved = scene.scene_maps(batch)
            batch = {**batch, **{name: fusion_barrier(value) for name, value in moved.items()}}
        return batch

    return augment


def clips(*functions: Callable) -> Callable:
    """Combines functions of one clip to an augmentation of all entries of a batch.

    The functions are those of train.augment.clip, and of colors as
    `clip.same_for_all_frames(function)`. Each uses its own key, as in `images`.

    Args:
        functions: functions of a key and a clip.

    Returns:
        A function of keys [B] and a batch.
    """

    def augment(keys: jax.Array, batch: Any) -> Any:
        for number, function in enumerate(functions):
            own = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)
            batch = jax.vmap(function)(own, batch)
        return batch

    return augment


def chain(*augments: Callable) -> Callable:
    """Applies several augmentations of batches in order.

    Each uses its own keys: `chain(images(flip), partial(mixup, classes=10))`.

    Args:
        augments: functions of keys [B] and a batch.

    Returns:
        A function of keys [B] and a batch.
    """

    def augment(keys: jax.Array, batch: Any) -> Any:
        for number, one in enumerate(augments):
            batch = one(jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number), batch)
        return batch

    return augment


def one_of(*augments: Callable) -> Callable:
    """Applies one of several augmentations to each example, with equal probability.

    Args:
        augments: functions of keys [B] and a batch.

    Returns:
        A function of keys [B] and a batch. It raises ValueError if the augmentations return
        different entries.
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
