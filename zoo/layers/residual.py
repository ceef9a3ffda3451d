"""What residual networks share: their stages unrolled or scanned, and paths dropped at random."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util


@final
class StochasticDepth(nn.Module):
    """`[B, ...], rate -> [B, ...]`: in training, each example is 0 with probability `rate`.

    The others are divided by 1 - rate, so that the mean stays and evaluation is the identity. The
    draw is from the stream "dropout". A rate that is the number 0 draws nothing.

    Source: Huang et al. 2016, Deep Networks with Stochastic Depth, equation 2; the division, as
    in dropout, instead of a factor in evaluation (equation 5).

    >>> x = jnp.ones((4, 2))
    >>> StochasticDepth().apply({}, x, 0.5, train=False).sum().item()
    8.0
    """

    @nn.compact
    def __call__(self, x: jax.Array, rate: float | jax.Array, *, train: bool = False) -> jax.Array:
        if not train or (isinstance(rate, int | float) and rate == 0):
            return x
        shape = x.shape[:1] + (1,) * (x.ndim - 1)
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - rate, shape)
        return jnp.where(kept, x / jnp.asarray(1 - rate, x.dtype), 0)


def drop_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Rate of the last block to the rate of each block `-> [[...] per stage]`, growing linearly.

    ValueError where it is no probability, or 1, with which the last block would never be learnt.

    Source: Huang et al. 2016, Deep Networks with Stochastic Depth, equation 4.

    >>> drop_rates(0.5, (2, 3))
    [[0.1, 0.2], [0.3, 0.4, 0.5]]
    """
    if not 0 <= rate < 1:
        raise ValueError(f"stochastic_depth is a rate from 0 to below 1, got {rate}")
    every = iter([rate * (k + 1) / sum(depths) for k in range(sum(depths))])
    return [[next(every) for _ in range(depth)] for depth in depths]


def pad_skip(x: jax.Array, target: jax.Array) -> jax.Array:
    """`[B, H, W, C], [B, h, w, D] -> [B, h, w, D]`: every so many pixels, and channels of zeros.

    Source: He et al. 2016, Deep Residual Learning, section 3.3, option A. The zeros stand half
    before and half behind the channels, as in the reference whose weights are public (akamaster's
    pytorch_resnet_cifar10).

    >>> pad_skip(jnp.ones((1, 4, 4, 2)), jnp.ones((1, 2, 2, 4)))[0, 0, 0].tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    stride = -(-x.shape[1] // target.shape[1])
    more = target.shape[3] - x.shape[3]
    x = x[:, ::stride, ::stride]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2)))


def apply_stage(
    first: Callable[..., nn.Module],
    rest: Callable[..., nn.Module],
    x: jax.Array,
    *,
    name: str,
    rates: Sequence[float],
    train: bool,
    remat: bool = False,
    scan: bool = False,
) -> jax.Array:
    """`[B, H, W, C] -> [B, h, w, D]` through one block for each of `rates`; the first may differ.

    To be called inside a module's compact method: the blocks are `first(name=NAME_0)` and
    `rest(name=NAME_1)` and on, called as `block(x, rate, train=train)`. With `scan` the rest is
    one compiled block run over weights with a leading axis, NAME_rest (see `stack_blocks`); with `remat`
    only the blocks' inputs are kept for the gradient.

    Source: the memory for time of Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost.

    >>> class Tower(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x):
    ...         return apply_stage(Step, Step, x, name="stage1", rates=[0.0] * 3, train=False)
    >>> class Step(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x, rate, *, train):
    ...         return nn.Dense(x.shape[-1], name="dense")(x)
    >>> sorted(Tower().init(jax.random.key(0), jnp.ones((1, 2)))["params"])
    ['stage1_0', 'stage1_1', 'stage1_2']
    """

    def run(block: nn.Module, x: jax.Array, rate: float | jax.Array) -> jax.Array:
        def call(block: nn.Module, x: jax.Array) -> jax.Array:
            return block(x, rate, train=train)

        return (nn.remat(call) if remat else call)(block, x)

    x = run(first(name=f"{name}_0"), x, rates[0])
    if not scan:
        for k, rate in enumerate(rates[1:], 1):
            x = run(rest(name=f"{name}_{k}"), x, rate)
    elif len(rates) > 1:
        drawn = jnp.asarray(rates[1:]) if any(rates) else None
        x, _ = nn.scan(
            lambda block, x, rate: (run(block, x, 0.0 if rate is None else rate), None),
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True, "dropout": True},
            length=len(rates) - 1,
        )(rest(name=f"{name}_rest"), x, drawn)
    return x


def stack_blocks(variables: Mapping[str, Any]) -> dict[str, Any]:
    """`stageN_1/... [...]` and on `-> stageN_rest/... [depth - 1, ...]`: weights as scan has them.

    `stageN_0` stays as it is, and so does everything that belongs to no stage.

    Source: the names that `apply_stage` gives; `unstack_blocks` is the inverse.

    >>> blocks = {f"stage1_{k}": {"kernel": jnp.full((2,), k)} for k in range(3)}
    >>> stack_blocks({"params": blocks})["params"]["stage1_rest"]["kernel"].tolist()
    [[1, 1], [2, 2]]
    """
    stacked: dict[tuple[str, ...], Any] = {}
    piles: dict[tuple[str, ...], dict[int, Any]] = {}
    for path, leaf in traverse_util.flatten_dict(dict(variables)).items():
        for place, name in enumerate(path):
            numbered = re.fullmatch(r"(stage\d+)_([1-9]\d*)", name)
            if numbered:
                together = (*path[:place], f"{numbered[1]}_rest", *path[place + 1 :])
                piles.setdefault(together, {})[int(numbered[2])] = leaf
                break
        else:
            stacked[path] = leaf
    for path, pile in piles.items():
        stacked[path] = jnp.stack([pile[k] for k in sorted(pile)])
    return traverse_util.unflatten_dict(stacked)


def unstack_blocks(variables: Mapping[str, Any]) -> dict[str, Any]:
    """`stageN_rest/... [depth - 1, ...] -> stageN_1/... [...]` and on: the inverse of `stack_blocks`.

    Source: the names that `apply_stage` gives.

    >>> variables = {"params": {"stage1_rest": {"kernel": jnp.ones((2, 5))}}}
    >>> sorted(unstack_blocks(variables)["params"])
    ['stage1_1', 'stage1_2']
    """
    unstacked: dict[tuple[str, ...], Any] = {}
    leaves: dict[tuple[str, ...], Any] = dict(traverse_util.flatten_dict(dict(variables)))
    for path, leaf in leaves.items():
        for place, name in enumerate(path):
            if re.fullmatch(r"stage\d+_rest", name):
                for k in range(leaf.shape[0]):
                    numbered = name.replace("rest", str(k + 1))
                    unstacked[(*path[:place], numbered, *path[place + 1 :])] = leaf[k]
                break
        else:
            unstacked[path] = leaf
    return traverse_util.unflatten_dict(unstacked)
