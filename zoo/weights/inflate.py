"""Weights of images to weights of clips and of flow: pure functions of variables."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import traverse_util

from zoo.lookup import lookup

MODES: dict[str, Any] = dict.fromkeys(("mean", "center"))


def flatten(variables: Mapping[str, Any]) -> dict[str, Any]:
    """{"params": {"c1": {"kernel": a}}} to {"params/c1/kernel": a}."""
    return dict(traverse_util.flatten_dict(dict(variables), sep="/"))


def match_shapes(
    variables: Mapping[str, Any], like: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Both by path, in pairs; ValueError in one line where a path is not of both."""
    ours, wanted = flatten(variables), flatten(like)
    odd = sorted(ours.keys() ^ wanted.keys())
    if odd:
        raise ValueError(f"the models have other layers: {', '.join(odd[:5])} ({len(odd)} in all)")
    return {path: (ours[path], wanted[path]) for path in ours}


def inflate(
    variables: Mapping[str, Any], like: Mapping[str, Any], *, mode: str = "mean"
) -> dict[str, Any]:
    """Kernels `[h, w, C, D] -> [t, h, w, C, D]`: variables of a 2-D network to those of a 3-D one.

    `like` are the 3-D network's variables, or their shapes, under the same paths: slow_r50 is called
    as resnet50 is. "mean" repeats a kernel over the frames, over how many they are, so that a still
    clip, away from its ends, gives what the image does; "center" puts it on the middle one with zeros
    beside, so that every frame of any clip does. What has the same shape is kept. ValueError for other
    layers or shapes: of another number of classes, say, for which the heads are to be left out.

    Source: Carreira & Zisserman 2017, Quo Vadis, Action Recognition?, section 2.4.1; "center" is
    Girdhar et al. 2018, Detect-and-Track, which compares both.

    >>> wide = {"params": {"conv": {"kernel": jnp.zeros((3, 1, 1, 2, 4))}}}
    >>> flat = {"params": {"conv": {"kernel": jnp.ones((1, 1, 2, 4))}}}
    >>> inflate(flat, wide)["params"]["conv"]["kernel"].sum(0).ravel()[:2].tolist()
    [1.0, 1.0]
    """
    lookup(MODES, mode, kind="way to inflate")
    made = {}
    for path, (kernel, wanted) in match_shapes(variables, like).items():
        if kernel.shape != wanted.shape:
            if wanted.ndim != 5 or kernel.shape != wanted.shape[1:]:
                raise ValueError(f"{path} of {kernel.shape} is not inflated to {wanted.shape}")
            frames = wanted.shape[0]
            middle = jnp.arange(frames) == frames // 2
            share = (
                middle.astype(kernel.dtype) if mode == "center" else jnp.full(frames, 1 / frames)
            )
            kernel = share.reshape(-1, 1, 1, 1, 1).astype(kernel.dtype) * kernel[None]
        made[path] = kernel
    return traverse_util.unflatten_dict(made, sep="/")


def adapt_to_flow(variables: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """First kernel `[h, w, 3, D] -> [h, w, 2 L, D]`: variables for colors to those for flow.

    The mean over the colors, for each of the channels. `like` are the variables of the same model for
    flow, or their shapes. ValueError where more than one kernel differs, or one in more.

    Source: Wang et al. 2015, Towards Good Practices for Very Deep Two-Stream ConvNets, section 2.2;
    Feichtenhofer et al. 2016, twostreamfusion.

    >>> color = {"params": {"conv1": {"kernel": jnp.arange(3.0).reshape(1, 1, 3, 1)}}}
    >>> flow = {"params": {"conv1": {"kernel": jnp.zeros((1, 1, 4, 1))}}}
    >>> adapt_to_flow(color, flow)["params"]["conv1"]["kernel"].ravel().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    made, changed = {}, []
    for path, (kernel, wanted) in match_shapes(variables, like).items():
        if kernel.shape != wanted.shape:
            changed.append(path)
            alike = kernel.shape[:-2] + kernel.shape[-1:] == wanted.shape[:-2] + wanted.shape[-1:]
            if kernel.ndim != 4 or not alike or len(changed) > 1:
                raise ValueError(
                    f"{', '.join(changed)}: expected the first kernel alone to have other channels; "
                    f"got {kernel.shape} for {wanted.shape}"
                )
            kernel = jnp.broadcast_to(kernel.mean(-2, keepdims=True), wanted.shape)
        made[path] = kernel
    return traverse_util.unflatten_dict(made, sep="/")
