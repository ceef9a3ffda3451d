"""Augmentation that covers a part of an image, or mixes examples and their labels.

mixup and cutmix take whole batches (keys [B], batch -> batch) and pair each example with the one
before it in the batch, which the epoch's permutation has drawn. They add "target" [B, K], soft
labels that sum to 1; a task that finds a "target" in the batch is to learn from it. "label" stays.
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
    """Key [], [H, W, C] -> [H, W, C] with a rectangle of `value` in [0, 1], or of noise for None.

    area: between which shares of the image. ratio: of width to height, uniform in its logarithm.

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
    """Keys [B], batch -> batch: images and labels are s * own + (1 - s) * the neighbor's.

    s ~ Beta(alpha, alpha), drawn for each example (the authors draw one for a batch).

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
    """Keys [B], batch -> batch: a rectangle comes from the neighbor, and its share of the label.

    The rectangle's area is 1 - s, s ~ Beta(alpha, alpha), before it is clipped at the border; the
    label follows the pixels that are left of it.

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
    """Corners [] in pixels -> [height, width, 1] bool; bottom and right are outside."""
    row, column = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    return (row >= top) & (row < bottom) & (column >= left) & (column < right)


def roll_batch(x: jax.Array) -> jax.Array:
    """[B, ...] -> [B, ...], each row the one before it, the first the last."""
    return jnp.roll(x, 1, 0)


def mix_targets(batch: Any, share: jax.Array, *, classes: int) -> jax.Array:
    """Batch, share [B] of the own label -> soft labels [B, K]; mixes again where mixed before."""
    if "target" in batch:
        target = batch["target"]
    else:
        target = jax.nn.one_hot(batch["label"], classes, dtype=jnp.float32)
    return share[:, None] * target + (1 - share[:, None]) * roll_batch(target)
