"""Parameter counts, multiply-adds and feature strides of a model, by tracing."""

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
    """Returns the multiply-adds of one layer for one example.

    A kernel counts once per output position; attention counts both products.
    """
    if isinstance(module, DotProductAttention):
        return module.macs(*arguments)
    if not module.has_variable("params", "kernel"):
        return 0
    if isinstance(module, nn.ConvLocal):  # one kernel per position
        return module.get_variable("params", "kernel").size
    transposed = isinstance(module, nn.ConvTranspose | ConvTranspose)
    positions = arguments[0] if transposed else outputs
    return module.get_variable("params", "kernel").size * math.prod(positions.shape[1:-1])


def flatten_tree(tree: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    """Flattens {"c1": {"kernel": a}} to {("c1", "kernel"): a}."""
    return dict(traverse_util.flatten_dict(dict(tree)))


def trace_macs(model: nn.Module, shape: tuple[int, ...]) -> tuple[dict, dict, int]:
    """Traces a model for one image.

    Args:
        model: the module.
        shape: shape of one image or clip.

    Returns:
        Outputs and variables as shapes, and the multiply-adds.
    """
    outputs, variables, macs = trace_modules(model, shape)
    return outputs, variables, sum(macs.values())


def trace_modules(
    model: nn.Module, shape: tuple[int, ...]
) -> tuple[dict, dict, dict[tuple[str, ...], int]]:
    """Traces a model for one image, with the multiply-adds of each module by path.

    Models with a `scan` field are scanned, so a thousand layers trace as fast as ten. A scanned
    layer counts once for each entry of the leading axis of its kernel.

    Args:
        model: the module.
        shape: shape of one image or clip.

    Returns:
        Outputs and variables as shapes, and the multiply-adds by path.
    """
    calls: dict[tuple[str, ...], list[int]] = {}
    kernels: dict[tuple[str, ...], int] = {}  # rank of each kernel

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
    params: dict[tuple[str, ...], Any] = flatten_tree(variables.get("params", {}))
    macs = {}
    for path, counted in calls.items():
        sides = list(params[(*path, "kernel")].shape) if path in kernels else []
        scanned = len(sides) > kernels.get(path, 0)
        macs[path] = counted[-1] * sides[0] if scanned else sum(counted)
    return outputs, variables, macs


def trace_features(
    model: nn.Module, shape: tuple[int, ...], small: dict[str, jax.Array]
) -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
    """Returns stride and channels of each stage, and the stride along time for clips.

    The stride is the growth of the image that enlarges the map by one pixel. Unlike a ratio of
    sizes this is exact under padding. The image grows by a multiple of 32, as the valid
    convolutions of a U-Net require.

    Args:
        model: the module.
        shape: shape of one image or clip.
        small: outputs for that shape.

    Returns:
        {stage: (stride, channels)}, and {stage: stride along time} for clips, else {}.
    """
    stages = sorted(stage for stage in small if "stage" in stage)
    if not stages:
        return {}, {}
    growth = [-(-side // 32) * 32 for side in shape[:-2]]  # of the frames, if any, and the height
    *frames, height, width, channels = shape
    frames = [side + extra for side, extra in zip(frames, growth, strict=False)]
    larger, _, _ = trace_macs(model, (*frames, height + growth[-1], width + growth[-1], channels))

    def stride(stage: str, axis: int, extra: int) -> int:
        return round(extra / (larger[stage].shape[axis] - small[stage].shape[axis]))

    features = {stage: (stride(stage, -3, growth[-1]), small[stage].shape[-1]) for stage in stages}
    clips = [stage for stage in stages if len(shape) == 4]
    return features, {stage: stride(stage, -4, growth[0]) for stage in clips}


def count_batchnorms(variables: Mapping[str, Any]) -> dict[str, int]:
    """Counts the BatchNorms that `zoo.fold` folds and those that it leaves as scale and bias."""
    params, stats = (flatten_tree(variables.get(name, {})) for name in ("params", "batch_stats"))
    counts = {"folded": 0, "affine": 0}
    for path, leaf in stats.items():
        if path[-1] == "mean":
            follows = path[-2] == "norm" and (*path[:-2], "conv", "kernel") in params
            counts["folded" if follows else "affine"] += math.prod(leaf.shape[:-1])
    return counts
