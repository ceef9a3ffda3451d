"""Precise BatchNorm against plain numpy over all the values that the batches hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tests.train import fake_classification
from tests.train.test_loop import rows_of
from train import loop
from train.precise_batchnorm import batch_statistics, precise_batchnorm
from train.tasks.classification import classification
from zoo.layers.norm import BatchNorm
from zoo.preprocess import Preprocessing

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (6, 8, 4, 4, 3), dtype=np.uint8)
PRE = Preprocessing((0.7,) * 3, (1.0,) * 3, size=(4, 4))  # means less than 0
TASK = classification(preprocessing=PRE, classes=("a", "b"))


class Two(nn.Module):
    """Two norms, one behind the other, and logits."""

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        x = BatchNorm(momentum=0.7, name="first")(image, train=train)
        x = BatchNorm(name="second")(x**2, train=train)
        return {"logits": nn.Dense(2, name="head")(x.mean((1, 2)))}


def batches():
    for n, images in enumerate(IMAGES):
        index = np.arange(8) + 8 * n
        yield {"image": images, "label": index % 2, "index": index, "valid": index >= 0}


def precise(variables, **how):
    one = jax.jit(
        lambda v, b: batch_statistics(v, b, key=jax.random.key(0), model=Two(), task=TASK, **how)
    )
    return precise_batchnorm(variables, (one(variables, batch) for batch in batches()))


@pytest.fixture(scope="module")
def variables():
    drawn = jax.jit(Two().init)(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
    shift = lambda x: x + jnp.asarray(RANDOM.uniform(0.5, 1, x.shape), x.dtype)
    return {**drawn, "batch_stats": jax.tree.map(shift, drawn["batch_stats"])}


def test_statistics_are_of_all_values_together(variables):
    found = precise(variables)["batch_stats"]
    x = IMAGES.reshape(6, -1, 3) / 255 - 0.7
    np.testing.assert_allclose(found["first"]["mean"], x.mean((0, 1)), rtol=1e-4)
    # Each batch's unbiased variance, and the variance of the batches' means.
    expected = x.var(1, ddof=1).mean(0) + x.mean(1).var(0)
    np.testing.assert_allclose(found["first"]["var"], expected, rtol=1e-4)
    y = (x - x.mean(1, keepdims=True)) ** 2 / (x.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(found["second"]["mean"], y.mean((0, 1)), rtol=1e-4)
    assert precise(variables)["params"] is variables["params"]


def test_held_norms_stay_as_they_are(variables):
    found = precise(variables, frozen_norms=("first/scale",))["batch_stats"]
    for name in ("mean", "var"):
        old = variables["batch_stats"]["first"][name]
        np.testing.assert_array_equal(found["first"][name], old)
        assert (found["second"][name] != variables["batch_stats"]["second"][name]).all()


def test_no_batch_is_one_line(variables):
    with pytest.raises(ValueError, match="one batch or more"):
        precise_batchnorm(variables, [])


def test_a_run_may_ask_for_it(tmp_path):
    """What the weights hold in the end are the statistics of 3 batches, and the row is of them."""

    class Normed(nn.Module):
        @nn.compact
        def __call__(self, image: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
            x = BatchNorm(momentum=0.999, name="norm")(image, train=train)
            return {"logits": nn.Dense(2, name="head")(x.reshape(len(x), -1))}

    run = fake_classification.run(model=Normed(), epochs=1, name=None, precise_bn_batches=3)
    kept = loop.fit(run, tmp_path / "run")
    (row,) = rows_of(tmp_path / "run")
    assert kept["step"] == row["step"] and kept["train/loss"] == row["train/loss"]
    assert kept["val/loss"] < row["val/loss"]  # the running ones have hardly begun to move
