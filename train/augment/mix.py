"""Augmentation that erases parts of images, or mixes examples and their labels.

mixup and cutmix transform a batch with keys [B]. They mix each example with the previous one of the
batch, whose order is random. They add soft labels "target" [B, K] that sum to 1, which a task uses
in place of "label".
"""

from typing import Any

import jax
import jax.numpy as jnp

from train.augment.crops import sample_crop_box
from train.augment.pixels import from_unit, to_unit


def erase(
    key: jax.Array,
    image: jax.Array,
    *,
    probability: float = 0.5,
    area: tuple[float, float] = (0.02, 1 / 3),
    ratio: tuple[float, float] = (0.3, 3.3),
    value: float | None = None,
) -> jax.Array:
    """Replaces a random rectangle by a value or noise.

    Args:
        key: random key [].
        image: image [H, W, C].
        probability: probability of erasing.
        area: smallest and largest share of the area.
        ratio: smallest and largest ratio of width to height, uniform in its logarithm.
        value: value in [0, 1], or None for noise.

    Returns:
        The image.

    Source: Zhong et al. 2020, Random Erasing, algorithm 1; noise is their RE-R.

    >>> erase(jax.random.key(0), jnp.ones((8, 8, 3)), probability=1.0).shape
    (8, 8, 3)
    """
    height, width, _ = image.shape
    happens_key, box_key, noise_key = jax.random.split(key, 3)
    box = sample_crop_box(box_key, height, width, area=area, ratio=ratio)
    happens = box.accepted & jax.random.bernoulli(happens_key, probability)
    inside = rectangle_mask(height, width, box.y, box.x, box.y + box.height, box.x + box.width)
    if value is None:
        unit = jax.random.uniform(noise_key, image.shape)
    else:
        unit = jnp.full((1, 1, 1), value, jnp.float32)
    return jnp.where(inside & happens, from_unit(unit, image.dtype), image)


def mixup(keys: jax.Array, batch: Any, *, classes: int, alpha: float = 0.2) -> Any:
    """Mixes each example with the previous one: s * example + (1 - s) * previous.

    Args:
        keys: random keys [B].
        batch: batch [B, ...].
        classes: number of classes K.
        alpha: parameter of the Beta distribution.

    Returns:
        The batch with "target" [B, K].

    Source: ~ Beta(alpha, alpha) is drawn for each example. The authors draw one for each batch.

    Source: Zhang et al. 2018, mixup, equation 1.

    >>> batch = {"image": jnp.ones((2, 8, 8, 3)), "label": jnp.array([0, 1])}
    >>> keys = jax.random.split(jax.random.key(0), 2)
    >>> jax.eval_shape(lambda *x: mixup(*x, classes=10), keys, batch)["target"].shape
    (2, 10)
    """
    image = batch["image"]
    share = jax.vmap(lambda key: jax.random.beta(key, alpha, alpha))(keys)
    own = share[:, None, None, None]
    unit = own * to_unit(image) + (1 - own) * to_unit(roll_batch(image))
    target = mix_targets(batch, share, classes=classes)
    return {**batch, "image": from_unit(unit, image.dtype), "target": target}


def cutmix(keys: jax.Array, batch: Any, *, classes: int, alpha: float = 1.0) -> Any:
    """Replaces a random rectangle by that of the previous example, and mixes the labels by area.

    The area of the rectangle is 1 - s with s ~ Beta(alpha, alpha), before it is clipped at the
    border. Labels have the weights of the remaining areas.

    Args:
        keys: random keys [B].
        batch: batch [B, ...].
        classes: number of classes K.
        alpha: parameter of the Beta distribution.

    Returns:
        The batch with "target" [B, K].

    Source: Yun et al. 2019, CutMix, equations 1 and 2.

    >>> batch = {"image": jnp.ones((2, 8, 8, 3)), "label": jnp.array([0, 1])}
    >>> keys = jax.random.split(jax.random.key(0), 2)
    >>> jax.eval_shape(lambda *x: cutmix(*x, classes=10), keys, batch)["target"].shape
    (2, 10)
    """
    image = batch["image"]
    _, height, width, _ = image.shape

    def pasted(key: jax.Array) -> jax.Array:
        share_key, place_key = jax.random.split(key)
        side = jnp.sqrt(1 - jax.random.beta(share_key, alpha, alpha))
        half_height = (side * height / 2).astype(jnp.int32)
        half_width = (side * width / 2).astype(jnp.int32)
        y, x = jax.random.randint(place_key, (2,), 0, jnp.array([height, width]))
        return rectangle_mask(
            height, width, y - half_height, x - half_width, y + half_height, x + half_width
        )

    inside = jax.vmap(pasted)(keys)
    share = 1 - jnp.mean(inside.astype(jnp.float32), (1, 2, 3))
    return {
        **batch,
        "image": jnp.where(inside, roll_batch(image), image),
        "target": mix_targets(batch, share, classes=classes),
    }


def rectangle_mask(
    height: int, width: int, top: jax.Array, left: jax.Array, bottom: jax.Array, right: jax.Array
) -> jax.Array:
    """Returns a mask [height, width, 1] of a rectangle; bottom and right are exclusive."""
    row, column = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    return (row >= top) & (row < bottom) & (column >= left) & (column < right)


def roll_batch(x: jax.Array) -> jax.Array:
    """Rolls a batch [B, ...] so that each row becomes the previous one, and the first the last."""
    return jnp.roll(x, 1, 0)


def mix_targets(batch: Any, share: jax.Array, *, classes: int) -> jax.Array:
    """Mixes the labels of a batch, or its "target" if it is mixed already, with shares [B]."""
    if "target" in batch:
        target = batch["target"]
    else:
        target = jax.nn.one_hot(batch["label"], classes, dtype=jnp.float32)
    return share[:, None] * target + (1 - share[:, None]) * roll_batch(target)
