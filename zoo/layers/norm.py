"""Normalization layers: BatchNorm and the choice of a norm by name."""

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

EPSILON = 1e-5  # for every kind, as in the papers and torch; flax's default is 1e-6


@final
class BatchNorm(nn.Module):
    """Batch normalization with global batch statistics.

    In training the statistics cover the whole batch: over all shards where `axis_name` names a pmap
    or vmap axis (under jit over a mesh they are global anyway). Statistics and arithmetic are
    float32, or `dtype` where that is wider. Unlike in flax, the variance takes two passes, and the
    running variance stores n / (n - 1) times the batch variance, as in torch. In training there is
    no forward-mode derivative (`jax.jvp` raises TypeError).

    Attributes:
        momentum: decay of the running statistics.
        epsilon: added to the variance.
        axis_name: name of a pmap or vmap axis.

    Args:
        x: feature map [B, ..., C].
        train: use batch statistics and update the running ones.

    Returns:
        Feature map [B, ..., C].

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
            # x is read three times. Without the barrier its producer (a concatenation, a depthwise
            # convolution) is recomputed each time; with it, steps of DenseNet-121 and
            # MobileNet v2 take 0.75 of the time.
            x = fusion_barrier(x)
            mean, var, count = self.moments(x)
            if not self.is_initializing():
                unbiased = var * (count / max(count - 1, 1))
                momentum = self.momentum
                running_mean.value = momentum * running_mean.value + (1 - momentum) * mean
                running_var.value = momentum * running_var.value + (1 - momentum) * unbiased
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
        broadcast = (1,) * (x.ndim - 1) + width
        y = (x - mean.reshape(broadcast)) * slope.reshape(broadcast) + bias.reshape(broadcast)
        return y.astype(self.dtype)

    def moments(self, x: jax.Array) -> tuple[jax.Array, jax.Array, int]:
        """Returns the mean [C], the biased variance [C] and the number of values."""
        count = math.prod(x.shape[:-1])
        is_sharded = self.axis_name is not None and not self.is_initializing()
        average = (
            functools.partial(lax.pmean, axis_name=self.axis_name) if is_sharded else lambda v: v
        )
        shards = lax.psum(1, self.axis_name) if is_sharded else 1
        mean = average(channel_sum(x) / count)
        # the gradient is unaffected: the distances from the mean sum to 0
        center = lax.stop_gradient(mean).reshape((1,) * (x.ndim - 1) + x.shape[-1:])
        var = average(channel_sum(jnp.square(x - center)) / count)
        return mean, var, shards * count


@final
class FrozenBatchNorm(nn.Module):
    """Batch normalization with fixed statistics, scale and bias.

    All four are stored in `batch_stats`, not in `params`, and never change. There is no epsilon: to
    convert a trained BatchNorm, add its epsilon to the variance (see `freeze_norms`).

    Args:
        x: feature map [B, ..., C].

    Returns:
        Feature map [B, ..., C].

    Source: torchvision's FrozenBatchNorm2d as used by its published Faster R-CNN, with eps=0.

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
        broadcast = (1,) * (x.ndim - 1) + width
        x = x.astype(jnp.promote_types(jnp.float32, self.dtype))
        return (x * slope.reshape(broadcast) + shift.reshape(broadcast)).astype(self.dtype)


def freeze_norms(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the variables of a model with norm "batch" to the same model with norm "frozen".

    The converted model computes what the original computes in evaluation.

    Args:
        variables: `params` with `scale` and `bias`, `batch_stats` with `mean` and `var` of each
            norm.

    Returns:
        Variables with all four in `batch_stats`.

    Source: torchvision's FrozenBatchNorm2d, which reads the weights of a BatchNorm; `var` includes
    epsilon here.

    >>> x = jnp.ones((1, 2))
    >>> trained = jax.jit(BatchNorm(name="norm").init)(jax.random.key(0), x)
    >>> frozen = freeze_norms(trained)
    >>> frozen["params"], sorted(frozen["batch_stats"])
    ({}, ['bias', 'mean', 'scale', 'var'])
    """
    params = dict(traverse_util.flatten_dict(dict(variables["params"])))
    stats: dict[tuple[str, ...], Any] = dict(
        traverse_util.flatten_dict(dict(variables.get("batch_stats", {})))
    )
    for path in [path for path in stats if path[-1] == "var"]:
        prefix = path[:-1]
        stats[path] = stats[path] + EPSILON
        for leaf in ("scale", "bias"):
            if (*prefix, leaf) in params:
                stats[*prefix, leaf] = params.pop((*prefix, leaf))
    return {
        **variables,
        "params": traverse_util.unflatten_dict(params),
        "batch_stats": traverse_util.unflatten_dict(stats),
    }


@final
class Affine(nn.Module):
    """Scale and bias per channel: what `fold_batchnorm` leaves of a BatchNorm.

    Args:
        x: feature map [..., C].

    Returns:
        Feature map [..., C].

    Source: Ioffe & Szegedy 2015, Batch Normalization, algorithm 2, lines 10 and 11.

    >>> Affine().init_with_output(jax.random.key(0), jnp.ones((1, 2)))[0].tolist()
    [[1.0, 1.0]]
    """

    dtype: Dtype = jnp.float32
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        broadcast = (1,) * (x.ndim - 1) + x.shape[-1:]
        scale = self.param("scale", self.scale_init, x.shape[-1:], jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], jnp.float32)
        x = x.astype(jnp.promote_types(jnp.float32, self.dtype))
        return (x * scale.reshape(broadcast) + bias.reshape(broadcast)).astype(self.dtype)


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
    """Returns a function that normalizes, for use inside a module's compact method.

    The parameters go to a submodule called `name`. The kinds are:

    - "batch": BatchNorm.
    - "layer": LayerNorm over the channels alone, as tokens need.
    - "instance": InstanceNorm over the pixels of a channel.
    - "group": GroupNorm with 32 groups, or the largest number that divides 32 and C.
    - "folded": a scale and a bias, where `fold_batchnorm` has removed a BatchNorm.
    - "frozen": a BatchNorm that does not learn.
    - None: the identity.

    Args:
        kind: the kind of norm.
        axis_name: see `BatchNorm`.
        dtype: dtype of the output.
        scale_init: initializer of the scale.
        name: name of the submodule.

    Returns:
        A function (x [B, ..., C], train) -> [B, ..., C].

    Raises:
        ValueError: if the kind is unknown.

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
