"""Conversion of image weights to video and flow weights, as pure functions of variables."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import traverse_util

from zoo.lookup import lookup

MODES: dict[str, Any] = dict.fromkeys(("mean", "center"))


def flatten(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Flattens {"params": {"c1": {"kernel": a}}} to {"params/c1/kernel": a}."""
    return dict(traverse_util.flatten_dict(dict(variables), sep="/"))


def match_shapes(
    variables: Mapping[str, Any], like: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Pairs the arrays of two models by path; raises ValueError if their layers differ."""
    source, target = flatten(variables), flatten(like)
    odd = sorted(source.keys() ^ target.keys())
    if odd:
        raise ValueError(
            f"expected models with equal layers, got different ones: "
            f"{', '.join(odd[:5])} ({len(odd)} in all)"
        )
    return {path: (source[path], target[path]) for path in source}


def inflate(
    variables: Mapping[str, Any], like: Mapping[str, Any], *, mode: str = "mean"
) -> dict[str, Any]:
    """Converts the variables of a 2-D network to those of a 3-D network.

    Arrays of equal shape are copied. Heads of different sizes must be left out.

    Args:
        variables: variables of the 2-D network, with kernels [h, w, C, D].
        like: variables of the 3-D network, or their shapes, under the same paths, with kernels [t,
            h, w, C, D]. `slow_r50` has the paths of `resnet50`.
        mode: "mean" repeats a kernel over t frames and divides by t, so a still clip gives the
            image's outputs away from its ends. "center" puts the kernel on the middle frame and
            zeros elsewhere, so every frame of any clip does.

    Returns:
        Variables of the 3-D network.

    Raises:
        ValueError: if layers or shapes do not match.

    Source: Carreira & Zisserman 2017, Quo Vadis, Action Recognition?, section 2.4.1; "center" is
    Girdhar et al. 2018, Detect-and-Track, which compares both.

    >>> wide = {"params": {"conv": {"kernel": jnp.zeros((3, 1, 1, 2, 4))}}}
    >>> flat = {"params": {"conv": {"kernel": jnp.ones((1, 1, 2, 4))}}}
    >>> inflate(flat, wide)["params"]["conv"]["kernel"].sum(0).ravel()[:2].tolist()
    [1.0, 1.0]
    """
    lookup(MODES, mode, kind="way to inflate")
    inflated = {}
    for path, (kernel, target) in match_shapes(variables, like).items():
        if kernel.shape != target.shape:
            if target.ndim != 5 or kernel.shape != target.shape[1:]:
                raise ValueError(f"{path} of {kernel.shape} is not inflated to {target.shape}")
            frames = target.shape[0]
            middle = jnp.arange(frames) == frames // 2
            share = (
                middle.astype(kernel.dtype) if mode == "center" else jnp.full(frames, 1 / frames)
            )
            kernel = share.reshape(-1, 1, 1, 1, 1).astype(kernel.dtype) * kernel[None]
        inflated[path] = kernel
    return traverse_util.unflatten_dict(inflated, sep="/")


def adapt_to_flow(variables: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the variables of a color network to those of an optical flow network.

    The first kernel [h, w, 3, D] becomes [h, w, 2 L, D]: its mean over the colors, for each
    channel.

    Args:
        variables: variables of the color network.
        like: variables of the same model for flow, or their shapes.

    Returns:
        Variables of the flow network.

    Raises:
        ValueError: if more than the first kernel differs.

    Source: Wang et al. 2015, Towards Good Practices for Very Deep Two-Stream ConvNets, section 2.2;
    Feichtenhofer et al. 2016, twostreamfusion.

    >>> color = {"params": {"conv1": {"kernel": jnp.arange(3.0).reshape(1, 1, 3, 1)}}}
    >>> flow = {"params": {"conv1": {"kernel": jnp.zeros((1, 1, 4, 1))}}}
    >>> adapt_to_flow(color, flow)["params"]["conv1"]["kernel"].ravel().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    adapted, changed = {}, []
    for path, (kernel, target) in match_shapes(variables, like).items():
        if kernel.shape != target.shape:
            changed.append(path)
            same_rest = (
                kernel.shape[:-2] + kernel.shape[-1:] == target.shape[:-2] + target.shape[-1:]
            )
            if kernel.ndim != 4 or not same_rest or len(changed) > 1:
                raise ValueError(
                    f"{', '.join(changed)}: expected the first kernel alone to have other "
                    "channels; "
                    f"got {kernel.shape} for {target.shape}"
                )
            kernel = jnp.broadcast_to(kernel.mean(-2, keepdims=True), target.shape)
        adapted[path] = kernel
    return traverse_util.unflatten_dict(adapted, sep="/")
