"""Precise batch normalization: statistics that are true means over many batches."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from train.step import freeze_norm_statistics
from train.task import Task

Path = tuple[str, ...]


def batch_statistics(
    variables: Mapping[str, Any],
    batch: Any,
    *,
    key: jax.Array,
    model: nn.Module,
    task: Task,
    frozen_norms: Sequence[str] = (),
) -> dict[str, Any]:
    """Computes the mean and variance of one batch for each normalization layer that is trained.

    The batch is augmented as in training, with keys derived from `key` and the index of each
    example. Variances are unbiased.

    Args:
        variables: variables of the model.
        batch: batch [B, ...].
        key: random key [].
        model: the model.
        task: the learning problem.
        frozen_norms: patterns of normalization layers that are not trained.

    Returns:
        Statistics with the structure of "batch_stats", without the layers that are not trained.
    """
    augment_key, dropout, sample = jax.random.split(key, 3)
    keys = jax.vmap(partial(jax.random.fold_in, augment_key))(batch["index"])
    inputs = task.inputs(task.augment(keys, batch), True)
    momenta: dict[Path, float] = {}

    def note(call: Callable, arguments: tuple, keywords: dict, context: Any) -> Any:
        if context.method_name == "moments":  # only a norm that is trained computes them
            momenta[context.module.path] = context.module.momentum
        return call(*arguments, **keywords)

    with freeze_norm_statistics(frozen_norms), nn.intercept_methods(note):
        _, new = model.apply(
            variables,
            *inputs,
            train=True,
            rngs={"dropout": dropout, "sample": sample},
            mutable=["batch_stats"],
        )
    old, new = (flatten_stats(tree["batch_stats"]) for tree in (variables, new))
    # A running value is keep * old + (1 - keep) * the batch's.
    return unflatten_dict(
        {
            path: (value - momenta[path[:-1]] * old[path]) / (1 - momenta[path[:-1]])
            for path, value in new.items()
            if momenta.get(path[:-1], 1.0) < 1
        }
    )


def precise_batchnorm(
    variables: Mapping[str, Any], statistics: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Replaces running statistics by the statistics of all batches together.

    The variance is the mean of the variances of the batches plus the variance of their means.

    Args:
        variables: variables of the model.
        statistics: results of `batch_statistics`, one per batch.

    Returns:
        The variables with the new statistics.

    Raises:
        ValueError: if there is no batch.

    Source: Wu and Johnson 2021, Rethinking "Batch" in BatchNorm, section 3; He et al.'s released
    models, and PySlowFast's 200 batches.

    >>> two = [{"norm": {"mean": jnp.array([m]), "var": jnp.array([1.0])}} for m in (0.0, 2.0)]
    >>> old = {"batch_stats": {"norm": {"mean": jnp.array([9.0]), "var": jnp.array([9.0])}}}
    >>> new = precise_batchnorm(old, two)["batch_stats"]["norm"]
    >>> float(new["mean"][0]), float(new["var"][0])
    (1.0, 2.0)
    """
    count, sums = 0, {}
    for one in statistics:
        count += 1
        own = {path: np.asarray(value, np.float64) for path, value in flatten_stats(one).items()}
        for path, value in own.items():
            square = own[*path[:-1], "mean"] ** 2 if path[-1] == "var" else 0.0
            sums[path] = sums.get(path, 0.0) + value + square
    if not count:
        raise ValueError("precise statistics are of one batch or more")
    means = {path: total / count for path, total in sums.items()}
    stats = flatten_stats(variables["batch_stats"])
    for path, mean in means.items():
        if path[-1] == "var":
            mean = np.maximum(mean - means[*path[:-1], "mean"] ** 2, 0.0)
        stats[path] = jnp.asarray(mean, stats[path].dtype)
    return {**variables, "batch_stats": unflatten_dict(stats)}


def flatten_stats(tree: Mapping[str, Any]) -> dict[Path, Any]:
    """Flattens a collection to values by path."""
    return dict(flatten_dict(dict(tree)))
