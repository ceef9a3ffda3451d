"""Labels are worth the pixels that they stand for."""

import functools
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.augment import mix

SIZE, CLASSES = 16, 5
COUNT = 400


def flat(count: int = COUNT, dtype: type = np.uint8) -> dict[str, jax.Array]:
    """Images of one level each: 0, 51, ... 204 (of 255) for the classes 0 ... 4 in turn."""
    label = np.arange(count) % CLASSES
    image = np.broadcast_to((51 * label)[:, None, None, None], (count, SIZE, SIZE, 1))
    image = image.astype(np.uint8) if dtype is np.uint8 else (image / 255).astype(dtype)
    return {
        "image": jnp.asarray(image),
        "label": jnp.asarray(label, jnp.int32),
        "index": jnp.arange(count),
    }


def keys(count: int = COUNT) -> jax.Array:
    return jax.random.split(jax.random.key(0), count)


@functools.cache
def mixed(function: Callable, dtype: type, alpha: float) -> dict[str, np.ndarray]:
    function = partial(function, classes=CLASSES, alpha=alpha)
    return jax.tree.map(np.asarray, jax.jit(function)(keys(), flat(dtype=dtype)))


CASES = [(mix.mixup, np.uint8, 0.2), (mix.mixup, np.float32, 1.0), (mix.cutmix, np.uint8, 1.0)]


@pytest.mark.parametrize(("function", "dtype", "alpha"), CASES)
def test_the_target_is_the_share_of_the_pixels(function, dtype, alpha):
    """In images of one level per class, the mean level is the mean of the target's levels."""
    batch, result = flat(dtype=dtype), mixed(function, dtype, alpha)
    target, image = result["target"], result["image"]
    assert target.shape == (COUNT, CLASSES) and image.dtype == dtype
    np.testing.assert_allclose(target.sum(1), 1.0, atol=1e-6)
    expected = target @ (51 * np.arange(CLASSES)) / (255 if dtype is np.float32 else 1)
    # mixup rounds to a level, the same way all over an image.
    tolerance = 0.51 if (function, dtype) == (mix.mixup, np.uint8) else 1e-3
    np.testing.assert_allclose(image.mean((1, 2, 3)), expected, atol=tolerance)
    own, outside = np.asarray(batch["label"]), target.copy()
    outside[np.arange(COUNT), own] = outside[np.arange(COUNT), own - 1] = 0
    assert not outside.any(), "no class but its own and the neighbor's"
    for name in ("label", "index"):
        np.testing.assert_array_equal(result[name], batch[name])


@pytest.mark.parametrize(("function", "dtype", "alpha"), CASES[:2])
def test_mixup_draws_a_beta(function, dtype, alpha):
    """Its mean is 1/2 and its variance 1 / (8 alpha + 4)."""
    share = mixed(function, dtype, alpha)["target"][np.arange(COUNT), np.arange(COUNT) % CLASSES]
    variance = 1 / (8 * alpha + 4)
    assert abs(share.mean() - 0.5) < 5 * np.sqrt(variance / COUNT)
    assert abs(share.var() / variance - 1) < 0.25


def test_cutmix_pastes_a_rectangle_anywhere():
    pasted = (mixed(*CASES[2])["image"] != flat()["image"])[..., 0]
    rows, columns = pasted.any(2), pasted.any(1)
    np.testing.assert_array_equal(pasted, rows[:, :, None] & columns[:, None, :])
    for side in (rows, columns):
        runs = np.abs(np.diff(np.pad(side, ((0, 0), (1, 1))).astype(int), axis=1)).sum(1)
        assert set(runs) <= {0, 2}, "one piece, or nothing"
    assert pasted.any(0).all(), "each pixel is pasted in some image"
    # With r^2 uniform, a side of r in 1 keeps r - r^2 / 4 inside: 77 / 240 of the area on average;
    # halves of sides in whole pixels cost a 16th of a side more.
    assert abs(pasted.mean() - 0.27) < 0.05


def test_mixing_again_mixes_the_target():
    once = mix.mix_targets({"label": jnp.array([0, 1, 2])}, jnp.array([0.5, 1.0, 0.25]), classes=3)
    np.testing.assert_allclose(once, [[0.5, 0, 0.5], [0, 1, 0], [0, 0.75, 0.25]])
    twice = mix.mix_targets({"target": once}, jnp.array([0.5, 0.5, 0.0]), classes=3)
    np.testing.assert_allclose(twice, [[0.25, 0.375, 0.375], [0.25, 0.5, 0.25], [0, 1, 0]])


def test_erase(photograph):
    many = jax.random.split(jax.random.key(0), 500)
    function = jax.jit(jax.vmap(partial(mix.erase, value=0.5), in_axes=(0, None)))
    erased = np.asarray(function(many, jnp.asarray(photograph)))
    changed = (erased != photograph).any(-1)
    share = changed.mean((1, 2))
    assert abs(np.mean(share > 0) - 0.5) < 5 * np.sqrt(0.25 / 500)
    assert 0.01 < share[share > 0].min() < 0.05 and 0.28 < share.max() < 0.36
    assert np.unique(erased[changed]).tolist() == [128]
    y, x = (changed.any(axis) for axis in (2, 1))
    assert np.all(share * 480 >= y.sum(1) * x.sum(1) * 0.98), "a rectangle, gray pixels aside"


def test_erase_with_noise():
    image = jnp.full((24, 20, 3), 0.5)
    erased = np.asarray(mix.erase(jax.random.key(3), image, probability=1.0, area=(0.3, 0.3)))
    noise = erased[(erased != 0.5).all(-1)]
    assert abs(len(noise) - 144) < 12 and len(np.unique(noise)) > 0.99 * noise.size
    assert abs(noise.mean() - 0.5) < 0.08 and abs(noise.std() - np.sqrt(1 / 12)) < 0.05
