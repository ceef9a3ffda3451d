"""Normalization: our own BatchNorm, and the choice among batch, layer, instance and group norm."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, final

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from flax.typing import Dtype, Initializer
from jax import lax

from zoo.lookup import lookup
from zoo.ops.channels import channel_sum, standardize
from zoo.ops.fusion import fusion_barrier

EPSILON = 1e-5  # of every kind; flax's own default is 1e-6, the papers' and torch's is this


@final
class BatchNorm(nn.Module):
    """`[B, ..., C] -> [B, ..., C]`, mean 0 and variance 1 per channel over the global batch.

    In training the statistics are those of the batch, over every shard where `axis_name` names a
    pmap or vmap axis (under jit over a mesh they are global as they stand), and the running ones
    move by 1 - `momentum` towards them; in evaluation the running ones are used. Statistics and
    arithmetic are float32, or `dtype` where that is wider. Unlike flax's, the variance takes two
    passes and the running variance stores n / (n - 1) times the batch's, as torch does. In training
    there is no forward-mode derivative (jax.jvp raises TypeError).

    Source: Ioffe & Szegedy 2015, Batch Normalization, algorithms 1 and 2.

    >>> x = jnp.arange(8.0).reshape(4, 2)
    >>> y, update = BatchNorm().init_with_output(jax.random.key(0), x, train=True)
    >>> y.mean(0).tolist(), update["batch_stats"]["var"].tolist()
    ([0.0, 0.0], [1.0, 1.0])
    """

    momentum: float = 0.9
    epsilon: float = EPSILON
    axis_name: str | None = None
    dtype: Dtype = jnp.float32
    scale_init: Initializer = nn.initializers.ones
    use_scale: bool = True
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        width = x.shape[-1:]
        x = x.astype(jnp.promote_types(jnp.float32, self.dtype))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, width, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, width, jnp.float32)
        if train:
            # read three times: without this a concatenation or a depthwise convolution is computed
            # for each; steps of DenseNet-121 and MobileNet v2 take 0.75 times as long with it
            x = fusion_barrier(x)
            mean, var, count = self.moments(x)
            if not self.is_initializing():
                unbiased = var * (count / max(count - 1, 1))
                keep = self.momentum
                running_mean.value = keep * running_mean.value + (1 - keep) * mean
                running_var.value = keep * running_var.value + (1 - keep) * unbiased
        else:
            mean, var = running_mean.value, running_var.value
        slope = lax.rsqrt(var + self.epsilon)
        if self.use_scale:
            slope = slope * self.param("scale", self.scale_init, width, jnp.float32)
        bias = jnp.zeros(width, x.dtype)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, width, jnp.float32)
        if train:
            return standardize(x, mean, slope, bias).astype(self.dtype)
        across = (1,) * (x.ndim - 1) + width
        y = (x - mean.reshape(across)) * slope.reshape(across) + bias.reshape(across)
        return y.astype(self.dtype)

    def moments(self, x: jax.Array) -> tuple[jax.Array, jax.Array, int]:
        """`[B, ..., C] -> [C], [C], n`: mean, biased variance, and how many values made them."""
        count = math.prod(x.shape[:-1])
        shared = self.axis_name is not None and not self.is_initializing()
        average = functools.partial(lax.pmean, axis_name=self.axis_name) if shared else lambda v: v
        shards = lax.psum(1, self.axis_name) if shared else 1
        mean = average(channel_sum(x) / count)
        # of no consequence to the gradient: the distances from the mean add up to 0
        center = lax.stop_gradient(mean).reshape((1,) * (x.ndim - 1) + x.shape[-1:])
        var = average(channel_sum(jnp.square(x - center)) / count)
        return mean, var, shards * count


@final
class FrozenBatchNorm(nn.Module):
    """`[B, ..., C] -> [B, ..., C]`: (x - mean) * scale / sqrt(var) + bias, of which nothing learns.

    All four stand in batch_stats and never change, so that they are no parameters. There is no
    epsilon: to take a trained BatchNorm over, add its own to the variance (see `freeze_norms`).

    Source: torchvision's FrozenBatchNorm2d as its published Faster R-CNN has it, with eps=0.

    >>> x = jnp.array([[3.0]])
    >>> y, variables = FrozenBatchNorm().init_with_output(jax.random.key(0), x)
    >>> y.tolist(), list(variables), sorted(variables["batch_stats"])
    ([[3.0]], ['batch_stats'], ['bias', 'mean', 'scale', 'var'])
    """

    dtype: Dtype = jnp.float32
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1:]
        mean, var, scale, bias = (
            self.variable("batch_stats", name, start, width, jnp.float32).value
            for name, start in (
                ("mean", jnp.zeros),
                ("var", jnp.ones),
                ("scale", jnp.ones),
                ("bias", jnp.zeros),
            )
        )
        slope = scale * lax.rsqrt(var)
        shift = bias - mean * slope
        across = (1,) * (x.ndim - 1) + width
        x = x.astype(jnp.promote_types(jnp.float32, self.dtype))
        return (x * slope.reshape(across) + shift.reshape(across)).astype(self.dtype)


def freeze_norms(variables: Mapping[str, Any]) -> dict[str, Any]:
    """`{params: {.. norm: {scale [C], bias [C]}}, batch_stats: {.. norm: {mean [C], var [C]}}} -> the same, frozen`.

    Variables of a model with norm "batch" as those of the model with norm "frozen", which computes
    the same as the first does in evaluation.

    Source: torchvision's FrozenBatchNorm2d, which reads a BatchNorm's weights; eps is of `var` here.

    >>> x = jnp.ones((1, 2))
    >>> trained = jax.jit(BatchNorm(name="norm").init)(jax.random.key(0), x)
    >>> still = freeze_norms(trained)
    >>> still["params"], sorted(still["batch_stats"])
    ({}, ['bias', 'mean', 'scale', 'var'])
    """
    params = dict(traverse_util.flatten_dict(dict(variables["params"])))
    stats: dict[tuple[str, ...], Any] = dict(
        traverse_util.flatten_dict(dict(variables.get("batch_stats", {})))
    )
    for path in [path for path in stats if path[-1] == "var"]:
        where = path[:-1]
        stats[path] = stats[path] + EPSILON
        for leaf in ("scale", "bias"):
            if (*where, leaf) in params:
                stats[*where, leaf] = params.pop((*where, leaf))
    return {
        **variables,
        "params": traverse_util.unflatten_dict(params),
        "batch_stats": traverse_util.unflatten_dict(stats),
    }


@final
class Affine(nn.Module):
    """`[..., C] -> [..., C]`: scale and bias per channel, what folding leaves of a BatchNorm.

    Source: Ioffe & Szegedy 2015, Batch Normalization, algorithm 2, lines 10 and 11.

    >>> Affine().init_with_output(jax.random.key(0), jnp.ones((1, 2)))[0].tolist()
    [[1.0, 1.0]]
    """

    dtype: Dtype = jnp.float32
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        across = (1,) * (x.ndim - 1) + x.shape[-1:]
        scale = self.param("scale", self.scale_init, x.shape[-1:], jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], jnp.float32)
        x = x.astype(jnp.promote_types(jnp.float32, self.dtype))
        return (x * scale.reshape(across) + bias.reshape(across)).astype(self.dtype)


NORMS: dict[str, Callable[..., nn.Module]] = {  # width, axis_name, fields -> module
    "batch": lambda width, axis_name, **fields: BatchNorm(axis_name=axis_name, **fields),
    "folded": lambda width, axis_name, **fields: Affine(**fields),
    "frozen": lambda width, axis_name, **fields: FrozenBatchNorm(**fields),
    "group": lambda width, axis_name, **fields: nn.GroupNorm(
        math.gcd(32, width), epsilon=EPSILON, use_fast_variance=False, **fields
    ),
    "instance": lambda width, axis_name, **fields: nn.InstanceNorm(
        epsilon=EPSILON, use_fast_variance=False, **fields
    ),
    "layer": lambda width, axis_name, **fields: nn.LayerNorm(
        epsilon=EPSILON, use_fast_variance=False, **fields
    ),
}


def create_norm(
    kind: str | None,
    *,
    axis_name: str | None = None,
    dtype: Dtype = jnp.float32,
    scale_init: Initializer = nn.initializers.ones,
    name: str = "norm",
) -> Callable[..., jax.Array]:
    """Kind of normalization to a function `x [B, ..., C], train -> [B, ..., C]`.

    To be called inside a module's compact method, where the weights go to `name`. Kinds: "batch";
    "layer" (over C alone, as tokens need); "instance" (over the pixels of a channel); "group" (32
    groups, or the largest number that divides 32 and C); "folded" (a scale and a bias, the place
    that fold_batchnorm leaves); "frozen" (a BatchNorm that does not learn, weights and all); None (x itself). Other kinds raise ValueError.

    Source: Ioffe & Szegedy 2015; Ba et al. 2016; Ulyanov et al. 2016; Wu & He 2018.

    >>> create_norm(None)(jnp.ones((1, 2)), train=True).tolist()
    [[1.0, 1.0]]
    """
    if kind is None:
        return lambda x, *, train=False: x
    build = lookup(NORMS, kind, kind="norm")
    fields = dict(dtype=dtype, scale_init=scale_init, name=name)

    def normalize(x: jax.Array, *, train: bool = False) -> jax.Array:
        module = build(x.shape[-1], axis_name, **fields)
        return module(x, train=train) if kind == "batch" else module(x)

    return normalize
