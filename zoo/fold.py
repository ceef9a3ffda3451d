"""Folding of BatchNorm into the preceding convolutions."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers.norm import EPSILON


def fold_fields(model: nn.Module) -> nn.Module:
    """Sets norm "folded" instead of "batch" on a module and its backbone."""
    changes = {}
    for field in dataclasses.fields(model):
        value = getattr(model, field.name)
        if isinstance(value, nn.Module) and field.name != "parent":
            changes[field.name] = fold_fields(value)
        elif field.name == "norm" and value in ("batch", "frozen"):
            changes[field.name] = "folded"
    return model.clone(**changes) if changes else model


def scale_and_shift(params: Mapping[str, Any], stats: Mapping[str, Any]) -> tuple[Any, Any]:
    """Returns a [C] and b [C] of a BatchNorm written as a x + b."""
    epsilon = 0.0 if "scale" in stats else EPSILON  # a frozen norm includes epsilon in its variance
    params = {**params, **stats}
    slope = params.get("scale", 1.0) / jnp.sqrt(stats["var"] + epsilon)
    return slope, params.get("bias", 0.0) - stats["mean"] * slope


def fold_weights(params: Mapping[str, Any], stats: Mapping[str, Any]) -> dict[str, Any]:
    """Folds the running statistics below a module into its weights.

    A `norm` next to a `conv` goes into the kernel [..., C] and bias of the convolution. A norm that
    precedes its convolution remains as a scale and a bias.
    """
    if "var" in stats:
        slope, shift = scale_and_shift(params, stats)
        return {"scale": slope, "bias": shift}
    folded = {name: fold_weights(params.get(name, {}), child) for name, child in stats.items()}
    if "conv" in params and "var" in stats.get("norm", {}):
        slope, shift = (folded["norm"][word] for word in ("scale", "bias"))
        del folded["norm"]
        kernel, bias = params["conv"]["kernel"], params["conv"].get("bias", 0.0)
        *blocks, width = slope.shape  # scanned stages have a leading axis
        broadcast = (*blocks, *(1,) * (kernel.ndim - slope.ndim), width)
        folded["conv"] = {"kernel": kernel * slope.reshape(broadcast), "bias": bias * slope + shift}
        params = {name: value for name, value in params.items() if name != "norm"}
    return {**params, **folded}


def fold_batchnorm(
    model: nn.Module, variables: Mapping[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """Returns an equivalent model without BatchNorm, for evaluation.

    Args:
        model: the module. The new one has norm "folded" instead of "batch".
        variables: its variables; they are not modified.

    Returns:
        The folded module and its variables, without `batch_stats`. A model without BatchNorm is
        returned unchanged.

    Raises:
        ValueError: if there are statistics but no field norm="batch".

    Source: Jacob et al. 2018, Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference, section 3.2, equation 14.

    >>> import jax
    >>> from zoo.registry import create_model
    >>> model = create_model("conv_autoencoder", widths=(2,))
    >>> variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
    >>> folded, variables = fold_batchnorm(model, variables)
    >>> folded.norm, list(variables), sorted(variables["params"]["encode_1"])
    ('folded', ['params'], ['conv'])
    """
    if not variables.get("batch_stats"):
        return model, dict(variables)
    folded = fold_fields(model)
    if folded == model:
        raise ValueError(
            f"expected the field norm='batch' beside batch_stats, got {type(model).__name__} "
            "without it"
        )
    other_stats = {name: value for name, value in variables.items() if name != "batch_stats"}
    return folded, {
        **other_stats,
        "params": fold_weights(variables["params"], variables["batch_stats"]),
    }
