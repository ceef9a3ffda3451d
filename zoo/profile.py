"""What a model has and costs, by tracing it: nothing is computed."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from zoo.layers.attention import DotProductAttention
from zoo.layers.conv_transpose import ConvTranspose


def count_macs(module: nn.Module, arguments: tuple, outputs: jax.Array) -> int:
    """Multiply-adds of one layer for one example: its kernel, once per place that it is laid on;
    attention's both products."""
    if isinstance(module, DotProductAttention):
        return module.macs(*arguments)
    if not module.has_variable("params", "kernel"):
        return 0
    if isinstance(module, nn.ConvLocal):  # a kernel for each place
        return module.get_variable("params", "kernel").size
    transposed = isinstance(module, nn.ConvTranspose | ConvTranspose)
    places = arguments[0] if transposed else outputs
    return module.get_variable("params", "kernel").size * math.prod(places.shape[1:-1])


def flatten_tree(tree: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    """{"c1": {"kernel": a}} to {("c1", "kernel"): a}."""
    return dict(traverse_util.flatten_dict(dict(tree)))


def trace_macs(model: nn.Module, shape: tuple[int, ...]) -> tuple[dict, dict, int]:
    """Shape of one image to (outputs, variables, multiply-adds), as shapes: nothing is computed."""
    outputs, variables, macs = trace_modules(model, shape)
    return outputs, variables, sum(macs.values())


def trace_modules(
    model: nn.Module, shape: tuple[int, ...]
) -> tuple[dict, dict, dict[tuple[str, ...], int]]:
    """measure, with the multiply-adds of each module by its path.

    A model that can be scanned is: its weights are as many, and a thousand layers trace as fast as
    ten. A scanned layer is traced more than once, and stands for as many as the leading axis of
    its kernel tells, which it does not see itself.
    """
    calls: dict[tuple[str, ...], list[int]] = {}
    kernels: dict[tuple[str, ...], int] = {}  # axes of each

    def count(call, arguments, keywords, context):
        outputs = call(*arguments, **keywords)
        module = context.module
        if context.method_name == "__call__":
            calls.setdefault(module.path, []).append(count_macs(module, arguments, outputs))
            if module.has_variable("params", "kernel"):
                kernels[module.path] = module.get_variable("params", "kernel").ndim
        return outputs

    model = model.clone(scan=True) if hasattr(model, "scan") else model
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    with nn.intercept_methods(count):
        outputs, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    whole: dict[tuple[str, ...], Any] = flatten_tree(variables.get("params", {}))
    macs = {}
    for path, counted in calls.items():
        sides = list(whole[(*path, "kernel")].shape) if path in kernels else []
        scanned = len(sides) > kernels.get(path, 0)
        macs[path] = counted[-1] * sides[0] if scanned else sum(counted)
    return outputs, variables, macs


def trace_features(
    model: nn.Module, shape: tuple[int, ...], small: dict[str, jax.Array]
) -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
    """Shape of one image, and the model's outputs for it, to {stage: (stride, channels)}, and of a
    clip {stage: stride along time}, else {}.

    The stride is by how much the image grows for the map to grow by one, which padding does not
    blur as it does the quotient of their sizes. It grows by a multiple of 32, as valid convolutions
    of a U-Net want.
    """
    stages = sorted(stage for stage in small if "stage" in stage)
    if not stages:
        return {}, {}
    more = [-(-side // 32) * 32 for side in shape[:-2]]  # frames, where there are some, and height
    *frames, height, width, channels = shape
    frames = [side + extra for side, extra in zip(frames, more, strict=False)]
    large, _, _ = trace_macs(model, (*frames, height + more[-1], width + more[-1], channels))

    def stride(stage: str, axis: int, extra: int) -> int:
        return round(extra / (large[stage].shape[axis] - small[stage].shape[axis]))

    features = {stage: (stride(stage, -3, more[-1]), small[stage].shape[-1]) for stage in stages}
    clips = [stage for stage in stages if len(shape) == 4]
    return features, {stage: stride(stage, -4, more[0]) for stage in clips}


def count_batchnorms(variables: Mapping[str, Any]) -> dict[str, int]:
    """Variables, of a scanned model too, to {"folded": ..., "affine": ...}; see zoo.fold."""
    params, stats = (flatten_tree(variables.get(name, {})) for name in ("params", "batch_stats"))
    counts = {"folded": 0, "affine": 0}
    for path, leaf in stats.items():
        if path[-1] == "mean":
            follows = path[-2] == "norm" and (*path[:-2], "conv", "kernel") in params
            counts["folded" if follows else "affine"] += math.prod(leaf.shape[:-1])
    return counts
