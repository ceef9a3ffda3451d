"""Parts of residual networks against plain numpy, and stages done two ways."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.layers.residual import (
    StochasticDepth,
    apply_stage,
    drop_rates,
    pad_skip,
    stack_blocks,
    unstack_blocks,
)

KEY = jax.random.key(0)


def test_stochastic_depth():
    x = jnp.ones((4000, 2, 3))
    y = StochasticDepth().apply({}, x, 0.2, train=True, rngs={"dropout": KEY})
    assert set(np.unique(y)) == {np.float32(0), np.float32(1.25)}
    assert (np.ptp(y, axis=(1, 2)) == 0).all(), "an example goes or stays as a whole"
    assert np.mean(y) == pytest.approx(1, abs=0.03)


def test_stochastic_depth_that_draws_nothing():
    x = jnp.ones((2, 3))
    assert StochasticDepth().apply({}, x, 0.9, train=False) is x
    assert StochasticDepth().apply({}, x, 0.0, train=True) is x


def test_drop_rates():
    """Equation 4 of Huang et al. 2016: block l of L is dropped with l / L (1 - p_L)."""
    rates = drop_rates(0.5, (3, 4, 6))
    assert [len(stage) for stage in rates] == [3, 4, 6]
    flat = [rate for stage in rates for rate in stage]
    np.testing.assert_allclose(flat, [n / 13 * 0.5 for n in range(1, 14)])
    with pytest.raises(ValueError, match="expected a stochastic_depth from 0 to below 1, got 1.5"):
        drop_rates(1.5, (1,))


@pytest.mark.parametrize(("size", "stride"), [(8, 2), (7, 2), (5, 1), (9, 3)])
def test_pad_skip(size, stride):
    x = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    side = -(-size // stride)
    y = pad_skip(x, jnp.zeros((2, side, side, 6)))
    expected = np.zeros((2, side, side, 6), np.float32)
    for i in range(side):
        for j in range(side):
            expected[:, i, j, 1:4] = x[:, i * stride, j * stride]
    np.testing.assert_array_equal(y, expected)


class Block(nn.Module):
    """Adds its rate, which makes the rate of each block visible."""

    width: int = 3

    @nn.compact
    def __call__(self, x, rate, *, train):
        return nn.tanh(nn.Dense(self.width, name="dense")(x)) + rate


class Tower(nn.Module):
    depth: int = 4
    rate: float = 0.0
    remat: bool = False
    scan: bool = False

    @nn.compact
    def __call__(self, x):
        rates = [self.rate * (k + 1) for k in range(self.depth)]
        how = dict(train=False, remat=self.remat, scan=self.scan)
        return apply_stage(Block, Block, x, name="stage1", rates=rates, **how)


@pytest.mark.parametrize(("depth", "rate"), [(1, 0.0), (2, 0.1), (4, 0.0)])
def test_scanned_and_rematerialised_stages_are_the_same(depth, rate):
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    plain = Tower(depth, rate)
    variables = plain.init(KEY, x)

    def loss(variables, model):
        return model.apply(variables, x).sum()

    y, grads = plain.apply(variables, x), jax.grad(loss)(variables, plain)
    expected = x
    for k in range(depth):
        layer = jax.tree.map(np.asarray, variables["params"][f"stage1_{k}"]["dense"])
        expected = np.tanh(expected @ layer["kernel"] + layer["bias"]) + rate * (k + 1)
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    for scan in (False, True):
        for remat in (False, True):
            model = Tower(depth, rate, remat=remat, scan=scan)
            own = stack_blocks(variables) if scan else variables
            shapes = jax.eval_shape(model.init, KEY, x)
            assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, own)
            np.testing.assert_allclose(model.apply(own, x), y, rtol=1e-6)
            theirs = jax.grad(loss)(own, model)
            theirs = unstack_blocks(theirs) if scan else theirs
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), grads, theirs
            )


def test_scanned_blocks_begin_differently():
    kernel = Tower(scan=True).init(KEY, jnp.ones((1, 3)))["params"]["stage1_rest"]["dense"][
        "kernel"
    ]
    assert kernel.shape == (3, 3, 3)
    assert np.abs(kernel[0] - kernel[1]).min() > 0


def test_stack_and_unstack():
    """Order by number, not by letter; what is in no stage stays; at any level."""
    blocks = {f"stage2_{k}": {"conv": {"kernel": np.full((2,), k)}} for k in range(12)}
    head = {"head": {"kernel": np.ones(3)}}
    variables = {"params": {"backbone": blocks, **head}, "batch_stats": blocks}
    stacked = stack_blocks(variables)
    assert set(stacked["batch_stats"]) == {"stage2_0", "stage2_rest"}
    kernel = stacked["params"]["backbone"]["stage2_rest"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel, np.arange(1, 12)[:, None].repeat(2, 1))
    assert stacked["params"]["head"] == head["head"]
    jax.tree.map(np.testing.assert_array_equal, unstack_blocks(stacked), variables)
    assert (
        stack_blocks(stacked).keys() == stacked.keys()
        and unstack_blocks(variables).keys() == variables.keys()
    )
