"""Convolution with a lowering per platform: XLA's own on GPU and TPU, ours on CPU.

XLA:CPU reaches a twentieth of the machine's speed in depthwise and grouped convolutions, and less
than a hundredth in their gradients. Figures are milliseconds on two cores with AVX-512, float32,
jax 0.10.1: XLA first, then ours.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from zoo.ops import volume
from zoo.ops.conv_dense import conv_dense
from zoo.ops.conv_spec import NHWC, ConvSpec
from zoo.ops.depthwise import conv_depthwise
from zoo.ops.grouped import conv_grouped
from zoo.ops.pointwise import conv_pointwise


def choose_lowering(x: Any, w: Any, shape: ConvSpec) -> Callable:
    """Chooses the CPU lowering of a convolution; timings stand at each lowering.

    Args:
        x: image [B, H, W, C], or its shape.
        w: kernel [h, w, C / groups, D], or its shape.
        shape: strides, padding, dilation and groups.

    Returns:
        A function (x, w, shape) -> feature map [B, H', W', D].

    >>> image, kernel = jnp.zeros((1, 4, 4, 8)), jnp.zeros((3, 3, 1, 8))
    >>> spec = ConvSpec((1, 1), ((1, 1), (1, 1)), (1, 1), groups=8)
    >>> choose_lowering(image, kernel, spec).__name__
    'conv_depthwise'
    """
    if shape.groups == w.shape[3] == x.shape[3] > 1:
        return conv_depthwise
    if shape.groups > 1:
        return conv_grouped
    if w.shape[:2] == (1, 1) and not any(map(any, shape.padding)):
        return conv_pointwise
    return conv_dense


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
    out_sharding: Any = None,
) -> jax.Array:
    """Computes a convolution like `jax.lax.conv_general_dilated`, with fast lowerings on a CPU.

    On a CPU, NHWC images are computed by the function that `choose_lowering` returns, and NDHWC
    volumes by `zoo.ops.volume`. Everything else is XLA's own. The CPU lowerings of depthwise and
    grouped convolutions have no forward-mode derivative (`jax.jvp` raises TypeError); reverse mode
    has every order.

    Args:
        lhs: image [B, H, W, C] or volume [B, T, H, W, C].
        rhs: kernel [h, w, C / groups, D] or [t, h, w, C / groups, D].
        window_strides: as in jax.
        padding: as in jax.
        lhs_dilation: as in jax.
        rhs_dilation: as in jax.
        dimension_numbers: as in jax.
        feature_group_count: as in jax.
        batch_group_count: as in jax.
        precision: as in jax.
        preferred_element_type: as in jax.
        out_sharding: as in jax.

    Returns:
        Feature map [B, H', W', D] or [B, T', H', W', D].

    Source: jax.lax.conv_general_dilated.

    >>> x, w = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 2))
    >>> y = conv_general_dilated(
    ...     x, w, (1, 1), "VALID", dimension_numbers=NHWC, feature_group_count=2
    ... )
    >>> y.shape, float(y[0, 0, 0, 0])
    ((1, 2, 2, 2), 9.0)
    """
    rest: dict[str, Any] = dict(
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        batch_group_count=batch_group_count,
        precision=precision,
        preferred_element_type=preferred_element_type,
        out_sharding=out_sharding,
    )

    def default(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **rest)

    if not _is_plain_convolution(lhs, rhs, rest):
        return default(lhs, rhs)
    dilation = tuple(rhs_dilation or (1,) * (lhs.ndim - 2))
    pads = _explicit_padding(lhs, rhs, window_strides, padding, dilation)
    shape = ConvSpec(tuple(window_strides), pads, dilation, feature_group_count)
    lowering = (choose_lowering if lhs.ndim == 4 else _convolve_3d)(lhs, rhs, shape)
    if lowering is None:
        return default(lhs, rhs)
    # A jitted function would be traced only once for equal layers, but XLA:CPU then computes the
    # kernel gradient twenty to sixty times slower.
    return lax.platform_dependent(lhs, rhs, cpu=lambda x, w: lowering(x, w, shape), default=default)


def _convolve_3d(x: Any, w: Any, shape: ConvSpec) -> Callable | None:
    fast = volume.choose_lowering_3d(x, w, shape)
    return fast and functools.partial(fast, convolve=conv_general_dilated)


def _explicit_padding(x, w, strides, padding, dilation) -> tuple[tuple[int, int], ...]:
    """Converts padding given by name to numbers."""
    if isinstance(padding, str):
        reach = [d * (k - 1) + 1 for d, k in zip(dilation, w.shape[:-2], strict=True)]
        padding = lax.padtype_to_pads(x.shape[1:-1], reach, strides, padding)
    return tuple((int(low), int(high)) for low, high in padding)


def _is_plain_convolution(x: Any, w: Any, rest: dict[str, Any]) -> bool:
    """Returns whether layout, dtype and options are those that the CPU lowerings support."""
    layout = {4: NHWC, 5: volume.NDHWC}.get(x.ndim)
    if layout is None or not jnp.issubdtype(x.dtype, jnp.floating):
        return False
    numbers = lax.conv_dimension_numbers(x.shape, w.shape, rest["dimension_numbers"])
    return (
        numbers == lax.conv_dimension_numbers(x.shape, w.shape, layout)
        and rest["batch_group_count"] == 1
        and all(d == 1 for d in rest["lhs_dilation"] or ())
        and rest["preferred_element_type"] in (None, x.dtype)
        and rest["out_sharding"] is None
    )
