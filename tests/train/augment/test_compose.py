"""images, chain and one_of: who draws from which key, and what comes out."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import augment

COUNT = 300


def stamp(key: jax.Array, image: jax.Array, *, place: int) -> jax.Array:
    """Writes a draw of the key at a place."""
    return image.at[0, place].set(jax.random.uniform(key, (1,)))


def batch() -> dict[str, jax.Array]:
    return {"image": jnp.zeros((COUNT, 1, 3, 1)), "label": jnp.arange(COUNT)}


def keys() -> jax.Array:
    return jax.random.split(jax.random.key(0), COUNT)


STAMPS = [partial(stamp, place=place) for place in range(3)]


def test_each_function_and_example_draws_its_own():
    two = augment.images(*STAMPS[:2])(keys(), batch())
    three = augment.images(*STAMPS)(keys(), batch())
    np.testing.assert_array_equal(two["label"], np.arange(COUNT))
    drawn = np.asarray(three["image"])[:, 0, :, 0]
    assert len(np.unique(drawn)) > 3 * COUNT - 5, "of 2^23 numbers"
    np.testing.assert_array_equal(drawn[:, :2], np.asarray(two["image"])[:, 0, :2, 0])


def test_a_part_of_the_batch_draws_as_the_whole():
    whole = augment.images(*STAMPS)(keys(), batch())["image"]
    part = augment.images(*STAMPS)(keys()[7:9], jax.tree.map(lambda x: x[7:9], batch()))["image"]
    np.testing.assert_array_equal(part, whole[7:9])


def test_chain_is_one_after_the_other():
    def double(keys, batch):
        return {**batch, "image": 2 * batch["image"]}

    stamped = augment.images(STAMPS[0])
    image = augment.chain(stamped, double, augment.identity)(keys(), batch())["image"]
    assert image.max() > 1.5
    twice = augment.chain(augment.images(STAMPS[0]), augment.images(STAMPS[1]))(keys(), batch())
    first, second = np.asarray(twice["image"])[:, 0, :2, 0].T
    assert np.all(first != second), "each link has keys of its own"


def test_one_of_gives_each_its_share():
    third = augment.one_of(*(augment.images(one) for one in STAMPS))
    image = np.asarray(third(keys(), batch())["image"])[:, 0, :, 0]
    assert np.all((image > 0).sum(1) == 1)
    counts = (image > 0).sum(0)
    assert np.all(np.abs(counts - COUNT / 3) < 5 * np.sqrt(COUNT * 2 / 9)), counts


def test_one_of_needs_equal_entries():
    def label_only(keys, batch):
        return {"label": batch["label"]}

    with pytest.raises(ValueError, match="one_of needs augmentations with the same entries"):
        augment.one_of(augment.identity, label_only)(keys(), batch())
