"""Shared parts of residual networks: stages, scanned or unrolled, and stochastic depth."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util


@final
class StochasticDepth(nn.Module):
    """Stochastic depth: sets whole examples to 0 with a given probability in training.

    The others are divided by 1 - rate, so evaluation is the identity. The random stream is
    "dropout". A rate that is the Python number 0 draws nothing.

    Args:
        x: residual branch [B, ...].
        rate: probability of dropping an example.
        train: drop examples.

    Returns:
        Residual branch [B, ...].

    Source: Huang et al. 2016, Deep Networks with Stochastic Depth, equation 2; the division, as in
    dropout, replaces the factor in evaluation (equation 5).

    >>> x = jnp.ones((4, 2))
    >>> StochasticDepth().apply({}, x, 0.5, train=False).sum().item()
    8.0
    """

    @nn.compact
    def __call__(self, x: jax.Array, rate: float | jax.Array, *, train: bool = False) -> jax.Array:
        if not train or (isinstance(rate, int | float) and rate == 0):
            return x
        shape = x.shape[:1] + (1,) * (x.ndim - 1)
        is_kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - rate, shape)
        return jnp.where(is_kept, x / jnp.asarray(1 - rate, x.dtype), 0)


def drop_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Returns the drop rate of each block, growing linearly with depth.

    Args:
        rate: rate of the last block.
        depths: number of blocks per stage.

    Returns:
        Rates [[...] per stage].

    Raises:
        ValueError: if the rate is not in [0, 1).

    Source: Huang et al. 2016, Deep Networks with Stochastic Depth, equation 4.

    >>> drop_rates(0.5, (2, 3))
    [[0.1, 0.2], [0.3, 0.4, 0.5]]
    """
    if not 0 <= rate < 1:
        raise ValueError(f"expected a stochastic_depth from 0 to below 1, got {rate}")
    rates = iter([rate * (k + 1) / sum(depths) for k in range(sum(depths))])
    return [[next(rates) for _ in range(depth)] for depth in depths]


def pad_skip(x: jax.Array, target: jax.Array) -> jax.Array:
    """Subsamples the pixels of a skip connection and pads its channels with zeros.

    Args:
        x: input [B, H, W, C].
        target: output of the residual branch [B, h, w, D].

    Returns:
        Skip connection [B, h, w, D].

    Source: He et al. 2016, Deep Residual Learning, section 3.3, option A. Half of the zeros precede
    the channels and half follow, as in the reference with public weights (akamaster's
    pytorch_resnet_cifar10).

    >>> pad_skip(jnp.ones((1, 4, 4, 2)), jnp.ones((1, 2, 2, 4)))[0, 0, 0].tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    stride = -(-x.shape[1] // target.shape[1])
    extra_channels = target.shape[3] - x.shape[3]
    x = x[:, ::stride, ::stride]
    return jnp.pad(
        x, ((0, 0), (0, 0), (0, 0), (extra_channels // 2, extra_channels - extra_channels // 2))
    )


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
    """Applies one block per rate, inside a module's compact method.

    The blocks are `first(name=NAME_0)` and `rest(name=NAME_1)`, ..., called as `block(x, rate,
    train=train)`.

    Args:
        first: constructor of the first block.
        rest: constructor of the other blocks.
        x: feature map [B, H, W, C].
        name: prefix of the block names.
        rates: stochastic depth rate of each block.
        train: passed to the blocks.
        remat: keep only the inputs of the blocks for the gradient.
        scan: compile the other blocks once and run them over stacked parameters, NAME_rest (see
            `stack_blocks`).

    Returns:
        Feature map [B, h, w, D].

    Source: Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost, for `remat`.

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
        rest_rates = jnp.asarray(rates[1:]) if any(rates) else None
        x, _ = nn.scan(
            lambda block, x, rate: (run(block, x, 0.0 if rate is None else rate), None),
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True, "dropout": True},
            length=len(rates) - 1,
        )(rest(name=f"{name}_rest"), x, rest_rates)
    return x


def stack_blocks(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Stacks the parameters of blocks 1, 2, ... of each stage, as scanned models store them.

    `stageN_0`, and everything outside of stages, stays unchanged.

    Args:
        variables: variables with `stageN_1/...`, `stageN_2/...`.

    Returns:
        Variables with `stageN_rest/...` and a leading axis [depth - 1, ...].

    >>> blocks = {f"stage1_{k}": {"kernel": jnp.full((2,), k)} for k in range(3)}
    >>> stack_blocks({"params": blocks})["params"]["stage1_rest"]["kernel"].tolist()
    [[1, 1], [2, 2]]
    """
    stacked: dict[tuple[str, ...], Any] = {}
    groups: dict[tuple[str, ...], dict[int, Any]] = {}
    for path, leaf in traverse_util.flatten_dict(dict(variables)).items():
        for position, name in enumerate(path):
            match = re.fullmatch(r"(stage\d+)_([1-9]\d*)", name)
            if match:
                stacked_path = (*path[:position], f"{match[1]}_rest", *path[position + 1 :])
                groups.setdefault(stacked_path, {})[int(match[2])] = leaf
                break
        else:
            stacked[path] = leaf
    for path, leaves in groups.items():
        stacked[path] = jnp.stack([leaves[k] for k in sorted(leaves)])
    return traverse_util.unflatten_dict(stacked)


def unstack_blocks(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Unstacks the parameters of scanned stages: the inverse of `stack_blocks`.

    Args:
        variables: variables with `stageN_rest/...` [depth - 1, ...].

    Returns:
        Variables with `stageN_1/...`, `stageN_2/...`.

    >>> variables = {"params": {"stage1_rest": {"kernel": jnp.ones((2, 5))}}}
    >>> sorted(unstack_blocks(variables)["params"])
    ['stage1_1', 'stage1_2']
    """
    unstacked: dict[tuple[str, ...], Any] = {}
    leaves: dict[tuple[str, ...], Any] = dict(traverse_util.flatten_dict(dict(variables)))
    for path, leaf in leaves.items():
        for position, name in enumerate(path):
            if re.fullmatch(r"stage\d+_rest", name):
                for k in range(leaf.shape[0]):
                    block_name = name.replace("rest", str(k + 1))
                    unstacked[(*path[:position], block_name, *path[position + 1 :])] = leaf[k]
                break
        else:
            unstacked[path] = leaf
    return traverse_util.unflatten_dict(unstacked)
