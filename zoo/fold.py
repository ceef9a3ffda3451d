"""BatchNorm folded into the convolutions before it: fewer operations, the same outputs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers.norm import EPSILON


def fold_fields(model: nn.Module) -> nn.Module:
    """The module with norm "folded" for "batch", in its own field and in those of a backbone."""
    changes = {}
    for field in dataclasses.fields(model):
        value = getattr(model, field.name)
        if isinstance(value, nn.Module) and field.name != "parent":
            changes[field.name] = fold_fields(value)
        elif field.name == "norm" and value in ("batch", "frozen"):
            changes[field.name] = "folded"
    return model.clone(**changes) if changes else model


def scale_and_shift(params: Mapping[str, Any], stats: Mapping[str, Any]) -> tuple[Any, Any]:
    """A BatchNorm's weights and running statistics `[C]` to the a and b of a x + b, `[C]` each."""
    epsilon = 0.0 if "scale" in stats else EPSILON  # a frozen one has all in its statistics
    params = {**params, **stats}
    slope = params.get("scale", 1.0) / jnp.sqrt(stats["var"] + epsilon)
    return slope, params.get("bias", 0.0) - stats["mean"] * slope


def fold_weights(params: Mapping[str, Any], stats: Mapping[str, Any]) -> dict[str, Any]:
    """Weights of a module, and the running statistics below it, to weights without the latter.

    A `norm` beside a `conv` goes into the convolution's kernel `[..., C]` and bias; one that
    stands alone, before its convolution, stays as a scale and a bias.
    """
    if "var" in stats:
        slope, shift = scale_and_shift(params, stats)
        return {"scale": slope, "bias": shift}
    folded = {name: fold_weights(params.get(name, {}), below) for name, below in stats.items()}
    if "conv" in params and "var" in stats.get("norm", {}):
        slope, shift = (folded["norm"][word] for word in ("scale", "bias"))
        del folded["norm"]
        kernel, bias = params["conv"]["kernel"], params["conv"].get("bias", 0.0)
        *blocks, width = slope.shape  # of a scanned stage, which has a leading axis
        across = (*blocks, *(1,) * (kernel.ndim - slope.ndim), width)
        folded["conv"] = {"kernel": kernel * slope.reshape(across), "bias": bias * slope + shift}
        params = {name: value for name, value in params.items() if name != "norm"}
    return {**params, **folded}


def fold_batchnorm(
    model: nn.Module, variables: Mapping[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """A model and its variables to the same without BatchNorm: equal outputs in evaluation.

    The model is of the same class, its field norm "folded" instead of "batch"; the variables have
    no batch_stats. A model without BatchNorm comes back as it is. Pure: nothing is changed in
    place. ValueError where there are statistics but no field norm="batch" that could be folded.

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
        raise ValueError(f"{type(model).__name__} has batch_stats, but no field norm='batch'")
    kept = {name: value for name, value in variables.items() if name != "batch_stats"}
    return folded, {**kept, "params": fold_weights(variables["params"], variables["batch_stats"])}
