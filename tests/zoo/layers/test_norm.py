"""The norms against plain numpy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.layers.norm import NORMS, Affine, BatchNorm, create_norm

X = np.random.default_rng(0).normal(3.0, 2.0, (4, 5, 6, 8)).astype(np.float32)
SCALE = np.linspace(0.5, 2.0, 8, dtype=np.float32)
BIAS = np.linspace(-1.0, 1.0, 8, dtype=np.float32)


def standardised(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    x = x.astype(np.float64)
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5)


def grouped(x: np.ndarray, groups: int) -> np.ndarray:
    split = x.reshape(*x.shape[:3], groups, -1)
    return standardised(split, (1, 2, 4)).reshape(x.shape)


ORACLES = {
    "batch": standardised(X, (0, 1, 2)),
    "layer": standardised(X, (3,)),
    "instance": standardised(X, (1, 2)),
    "group": grouped(X, 8),  # 8 divides 32 and 8
    "folded": X,
    "frozen": X,  # by a mean of 0 and a variance of 1
    None: X,
}


class Normed(nn.Module):
    kind: str | None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, *, train):
        return create_norm(self.kind, dtype=self.dtype)(x, train=train)


def with_weights(variables):
    """Scale and bias where the norm keeps them: among its parameters, or frozen, its statistics."""
    weights = {"scale": jnp.asarray(SCALE), "bias": jnp.asarray(BIAS)}
    homes = [home for home, tree in variables.items() if "scale" in tree.get("norm", {})]
    return {**variables, **{home: {"norm": variables[home]["norm"] | weights} for home in homes}}


@pytest.mark.parametrize("kind", ORACLES)
def test_norms(kind):
    model = Normed(kind)
    variables = with_weights(model.init(jax.random.key(0), X, train=True))
    y, _ = model.apply(variables, X, train=True, mutable=["batch_stats"])
    expected = ORACLES[kind] if kind is None else ORACLES[kind] * SCALE + BIAS
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_every_kind_has_its_oracle():
    assert set(ORACLES) == {*NORMS, None}


def test_group_norm_of_few_and_many_channels():
    for width, groups in ((8, 8), (24, 8), (64, 32), (7, 1)):
        x = np.random.default_rng(1).normal(size=(2, 3, 3, width)).astype(np.float32)
        y, _ = Normed("group").init_with_output(jax.random.key(0), x, train=False)
        np.testing.assert_allclose(y, grouped(x, groups), rtol=1e-4, atol=1e-5)


def test_unknown_norm():
    with pytest.raises(ValueError, match="unknown norm 'bacth': did you mean batch"):
        create_norm("bacth")


def test_batch_norm_in_evaluation():
    """Running values, not the batch's."""
    mean, var = np.linspace(-1, 1, 8, dtype=np.float32), np.linspace(0.5, 4, 8, dtype=np.float32)
    variables = {
        "params": {"scale": SCALE, "bias": BIAS},
        "batch_stats": {"mean": mean, "var": var},
    }
    expected = (X - mean) / np.sqrt(var + 1e-5) * SCALE + BIAS
    np.testing.assert_allclose(BatchNorm().apply(variables, X), expected, rtol=1e-5, atol=1e-5)


def test_batch_norm_running_statistics():
    """Two steps of momentum 0.9; the variance kept is n / (n - 1) times the batch's."""
    model = BatchNorm(momentum=0.9)
    variables = model.init(jax.random.key(0), X, train=True)
    assert np.abs(variables["batch_stats"]["mean"]).max() == 0, "initializing is no step"
    mean, var = np.zeros(8), np.ones(8)
    for x in (X, 2 * X):
        _, update = model.apply(variables, x, train=True, mutable=["batch_stats"])
        variables = {**variables, **update}
        mean = 0.9 * mean + 0.1 * x.mean((0, 1, 2))
        var = 0.9 * var + 0.1 * x.astype(np.float64).var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(variables["batch_stats"]["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(variables["batch_stats"]["var"], var, rtol=1e-5)


def test_batch_norm_over_an_axis_is_that_of_the_global_batch():
    """Four shards that know each other: outputs, gradients and statistics of the whole batch."""
    whole, parted = BatchNorm(), BatchNorm(axis_name="batch")
    variables = whole.init(jax.random.key(0), X)

    def loss(model, variables, x):
        y, update = model.apply(variables, x, train=True, mutable=["batch_stats"])
        return jnp.sin(y).sum(), (y, update)

    one = jax.grad(lambda x: loss(whole, variables, x), has_aux=True)
    gradient, (y, update) = jax.jit(one)(X)
    shards = X.reshape(4, 1, *X.shape[1:])
    four = jax.grad(
        lambda x: tuple(
            out.sum() if i == 0 else out
            for i, out in enumerate(
                jax.vmap(lambda shard: loss(parted, variables, shard), axis_name="batch")(x)
            )
        ),
        has_aux=True,
    )
    gradients, (ys, updates) = jax.jit(four)(shards)
    np.testing.assert_allclose(ys.reshape(X.shape), y, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradients.reshape(X.shape), gradient, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(updates), jax.tree.leaves(update), strict=True):
        np.testing.assert_allclose(ours, np.stack([theirs] * 4), rtol=1e-5, atol=1e-6)


def test_batch_norm_of_a_far_mean():
    """The one-pass variance of float32 would lose all its digits here."""
    x = np.random.default_rng(2).normal(1e4, 1.0, (64, 4)).astype(np.float32)
    y, _ = BatchNorm().init_with_output(jax.random.key(0), x, train=True)
    np.testing.assert_allclose(np.std(y, 0), 1.0, rtol=1e-3)


def test_batch_norm_of_one_value():
    model = BatchNorm()
    variables = model.init(jax.random.key(0), X[:1, 0, 0])
    y, update = model.apply(variables, X[:1, 0, 0], train=True, mutable=["batch_stats"])
    assert np.isfinite(y).all() and np.isfinite(update["batch_stats"]["var"]).all()


@pytest.mark.parametrize("kind", NORMS)
def test_bfloat16(kind):
    y, variables = Normed(kind, jnp.bfloat16).init_with_output(jax.random.key(0), X, train=False)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_batch_norm_without_scale_and_bias():
    y, variables = BatchNorm(use_scale=False, use_bias=False).init_with_output(
        jax.random.key(0), X, train=True
    )
    assert set(variables) == {"batch_stats"}
    np.testing.assert_allclose(y, ORACLES["batch"], rtol=1e-5, atol=1e-5)


def test_affine():
    y = Affine().apply({"params": {"scale": SCALE, "bias": BIAS}}, X)
    np.testing.assert_allclose(y, X * SCALE + BIAS, rtol=1e-6)
