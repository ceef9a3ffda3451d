"""ConvNorm against a convolution written as plain loops."""

import itertools

import flax.linen as nn
import jax
import numpy as np
import pytest

from zoo.layers.conv_norm import ConvNorm


def convolve(x, kernel, *, stride=1, groups=1, dilation=1, padding=0):
    """`[B, H, W, C], [k, k, C / groups, O] -> [B, H', W', O]`, one output value at a time."""
    x = np.pad(x.astype(np.float64), ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0)))
    k, _, inputs, outputs = kernel.shape
    reach = dilation * (k - 1) + 1
    height, width = ((side - reach) // stride + 1 for side in x.shape[1:3])
    y = np.zeros((x.shape[0], height, width, outputs))
    for i, j, o in itertools.product(range(height), range(width), range(outputs)):
        first = o // (outputs // groups) * inputs
        top, left = i * stride, j * stride
        patch = x[:, top : top + reach : dilation, left : left + reach : dilation]
        y[:, i, j, o] = (patch[..., first : first + inputs] * kernel[..., o]).sum((1, 2, 3))
    return y


CASES = {  # fields of ConvNorm; the oracle's words for the same
    "plain": ({}, dict(padding=1)),
    "stride": (dict(stride=2), dict(padding=1, stride=2)),
    "even": (dict(kernel=2), dict(padding=1)),
    "dilated": (dict(dilation=2), dict(padding=2, dilation=2)),
    "grouped": (dict(groups=2), dict(padding=1, groups=2)),
    "depthwise": (dict(groups=4, stride=2, kernel=5), dict(padding=2, groups=4, stride=2)),
    "valid": (dict(padding="VALID"), {}),
    "padded by hand": (dict(padding=3), dict(padding=3)),
}


@pytest.mark.parametrize("case", CASES)
def test_convolution(case):
    fields, words = CASES[case]
    x = np.random.default_rng(0).normal(size=(2, 7, 9, 4)).astype(np.float32)
    model = ConvNorm(8, norm=None, act=None, **fields)
    y, variables = model.init_with_output(jax.random.key(0), x)
    kernel = np.asarray(variables["params"]["conv"]["kernel"])
    np.testing.assert_allclose(y, convolve(x, kernel, **words), rtol=1e-4, atol=1e-4)


def test_order_and_activation():
    """Convolution, then norm, then activation."""
    x = np.random.default_rng(1).normal(size=(2, 6, 6, 3)).astype(np.float32)
    whole = ConvNorm(4, act=nn.silu)
    y, variables = whole.init_with_output(jax.random.key(0), x, train=True)
    linear = ConvNorm(4, norm=None, act=None, use_bias=False)
    z = linear.apply({"params": {"conv": variables["params"]["conv"]}}, x)
    z = (z - z.mean((0, 1, 2), keepdims=True)) / np.sqrt(z.var((0, 1, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, nn.silu(z), rtol=1e-4, atol=1e-4)


def test_bias_where_there_is_no_norm():
    x = np.zeros((1, 4, 4, 3), np.float32)

    def weights(**fields):
        return set(ConvNorm(4, **fields).init(jax.random.key(0), x)["params"]["conv"])

    assert weights() == {"kernel"}
    assert weights(use_bias=True) == weights(norm=None) == {"kernel", "bias"}
    assert weights(norm="folded", use_bias=False) == {"kernel", "bias"}
    assert weights(norm=None, use_bias=False) == {"kernel"}


def test_volumes():
    x = np.zeros((1, 8, 16, 16, 3), np.float32)
    y, _ = ConvNorm(4, (1, 3, 3), (1, 2, 2)).init_with_output(jax.random.key(0), x)
    assert y.shape == (1, 8, 8, 8, 4)
