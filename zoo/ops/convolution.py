"""Convolution that chooses how it is computed: XLA's own on GPU and TPU, on a CPU what is fast there.

XLA:CPU computes depthwise and grouped convolutions at a twentieth, and their gradients at less than
a hundredth, of what the machine can do. Figures here are milliseconds on two cores with AVX-512,
float32, jax 0.10.1: XLA's own, then ours.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

NHWC = ("NHWC", "HWIO", "NHWC")
JOINED = 32  # channels of the dense convolutions that narrow groups are joined to


class Shape(NamedTuple):
    """What makes `[B, H, W, C] -> [B, H', W', D]` besides the kernel: per axis, and the groups.

    Source: the arguments of jax.lax.conv_general_dilated.

    >>> Shape((1, 1), ((1, 1), (1, 1)), (1, 1), groups=8).groups
    8
    """

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int


def depthwise(x: jax.Array, w: jax.Array, shape: Shape) -> jax.Array:
    """`[B, H, W, C], [h, w, 1, C] -> [B, H', W', C]`: for each tap a multiply-add of the whole map.

    8 x 56² x 96 by 3x3: 31 to 1.0; of stride 2 from 112²: 39 to 14. In the backward pass the
    kernel's gradient sums all taps at once: 44 to 5, 63 to 21. There is no forward-mode derivative.

    Source: Howard et al. 2017, MobileNets, equation 3.

    >>> pad = Shape((1, 1), ((1, 1), (1, 1)), (1, 1), groups=2)
    >>> depthwise(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 2)), pad)[0, :, :, 0].tolist()[0]
    [4.0, 6.0, 6.0, 4.0]
    """
    return _depthwise(x, w, shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise(x, w, shape):
    return _sum_of_taps(x, w, shape)


def _sum_of_taps(x: jax.Array, w: jax.Array, shape: Shape) -> jax.Array:
    wide = _wide(x.dtype)
    terms = [
        tap * w[*place, 0].astype(wide)[None, None, None]
        for place, tap in _taps(x.astype(wide), w.shape[:2], shape)
    ]
    return functools.reduce(jnp.add, terms).astype(x.dtype)


def _wide(dtype: Any) -> Any:
    """What sums are made in: float32, or float64 for itself."""
    return jnp.float64 if jnp.finfo(dtype).bits == 64 else jnp.float32


def _taps(x: jax.Array, kernel: Sequence[int], shape: Shape) -> Iterator[tuple[Any, jax.Array]]:
    """Each place (i, j) of the kernel, and the pixels [B, H', W', C] that it meets."""
    edges = [(0, 0, 0), *((low, high, 0) for low, high in shape.padding), (0, 0, 0)]
    padded = lax.pad(x, jnp.zeros((), x.dtype), edges)
    if (
        max(shape.strides) > 1
    ):  # the gradient of strided taps, 11 ms, is 4 without the fused padding
        padded = lax.optimization_barrier(padded)
    sides = zip(padded.shape[1:3], kernel, shape.dilation, shape.strides, strict=True)
    sizes = [(side - d * (k - 1) - 1) // s + 1 for side, k, d, s in sides]
    for place in itertools.product(*map(range, kernel)):
        first = [k * d for k, d in zip(place, shape.dilation, strict=True)]
        last = [f + (n - 1) * s + 1 for f, n, s in zip(first, sizes, shape.strides, strict=True)]
        start, limit = (0, *first, 0), (x.shape[0], *last, x.shape[3])
        yield place, lax.slice(padded, start, limit, (1, *shape.strides, 1))


def _depthwise_forward(x, w, shape):
    return _sum_of_taps(x, w, shape), (x, w)


def _depthwise_backward(shape, residuals, g):
    x, w = residuals
    return _input_gradient(g, x, w, shape), _kernel_gradient(x, g, w.shape[:2], shape)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _input_gradient(g: jax.Array, x: jax.Array, w: jax.Array, shape: Shape) -> jax.Array:
    return jax.vjp(lambda x: _sum_of_taps(x, w, shape), x)[1](g)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _kernel_gradient(x, g, kernel, shape):
    """`[B, H, W, C], [B, H', W', C] -> [h, w, 1, C]`: one pass over g for all taps."""
    wide = _wide(x.dtype)
    products = tuple(tap * g.astype(wide) for _, tap in _taps(x.astype(wide), kernel, shape))
    zeros = tuple(jnp.zeros((), wide) for _ in products)
    sums = lax.reduce(products, zeros, lambda a, b: tuple(map(jnp.add, a, b)), (0, 1, 2))
    return jnp.stack(sums).reshape(*kernel, 1, -1).astype(x.dtype)


def _kernel_gradient_forward(x, g, kernel, shape):
    return _kernel_gradient(x, g, kernel, shape), (x, g)


def _kernel_gradient_backward(kernel, shape, residuals, slope):
    x, g = residuals  # the sum of x's taps times g is linear in both
    return _input_gradient(g, x, slope, shape), _sum_of_taps(x, slope, shape)


_kernel_gradient.defvjp(_kernel_gradient_forward, _kernel_gradient_backward)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def pointwise(x: jax.Array, w: jax.Array, shape: Shape) -> jax.Array:
    """`[B, H, W, C], [1, 1, C, D] -> [B, H', W', D]`: XLA's own, with products of matrices as gradients.

    ResNet-50, 8 x 224², of which half are these: its forward pass is 1.1 times slower with products
    of matrices throughout, a training step 1.15 times faster with these as gradients.

    Source: Lin et al. 2014, Network In Network, section 3.1.

    >>> plain = Shape((2, 2), ((0, 0), (0, 0)), (1, 1), groups=1)
    >>> pointwise(jnp.ones((1, 4, 4, 3)), jnp.ones((1, 1, 3, 2)), plain).shape
    (1, 2, 2, 2)
    """
    return lax.conv_general_dilated(x, w, shape.strides, "VALID", dimension_numbers=NHWC)


@pointwise.defjvp
def _pointwise_slope(shape, values, slopes):
    (x, w), (dx, dw) = values, slopes
    seen, change = (
        lax.slice(each, (0,) * 4, each.shape, (1, *shape.strides, 1)) for each in (x, dx)
    )
    slope = jnp.tensordot(change, w[0, 0], 1) + jnp.tensordot(seen, dw[0, 0], 1)
    return pointwise(x, w, shape), slope


def grouped(x: jax.Array, w: jax.Array, shape: Shape) -> jax.Array:
    """`[B, H, W, C], [h, w, C / groups, D] -> [B, H', W', D]`: dense convolutions of some groups each.

    Groups are joined until they have JOINED channels, with zeros between them: more arithmetic, in
    convolutions that XLA computes well.

    Source: Krizhevsky et al. 2012, section 3.2; Xie et al. 2017, figure 3.

    >>> plain = Shape((1, 1), ((0, 0), (0, 0)), (1, 1), groups=2)
    >>> grouped(jnp.ones((1, 3, 3, 4)), jnp.ones((3, 3, 2, 2)), plain).tolist()
    [[[[18.0, 18.0]]]]
    """
    groups, (height, width, inner, outer) = shape.groups, w.shape
    divisors = [n for n in range(1, groups + 1) if groups % n == 0]
    join = max(n for n in divisors if n == 1 or n * inner <= JOINED)
    kernels = w.reshape(height, width, inner, groups // join, join, outer // groups)
    parts = []
    for k in range(groups // join):
        block = jnp.einsum("hwijo,jg->hwgijo", kernels[:, :, :, k], jnp.eye(join, dtype=w.dtype))
        block = block.reshape(height, width, join * inner, -1)
        own = x[..., k * join * inner : (k + 1) * join * inner]
        parts.append(
            lax.conv_general_dilated(
                own,
                block,
                shape.strides,
                shape.padding,
                rhs_dilation=shape.dilation,
                dimension_numbers=NHWC,
            )
        )
    return jnp.concatenate(parts, -1)


def lowering(x: Any, w: Any, shape: Shape) -> Callable | None:
    """`[B, H, W, C], [h, w, C / groups, D] ->` what computes this on a CPU; None: XLA's own.

    Source: the figures at each of them.

    >>> image, kernel = jnp.zeros((1, 4, 4, 8)), jnp.zeros((3, 3, 1, 8))
    >>> lowering(image, kernel, Shape((1, 1), ((1, 1), (1, 1)), (1, 1), groups=8)).__name__
    'depthwise'
    """
    if shape.groups == w.shape[3] == x.shape[3] > 1:
        return depthwise
    if shape.groups > 1:
        return grouped
    if w.shape[:2] == (1, 1) and not any(map(any, shape.padding)):
        return pointwise
    return None


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
    """`[B, H, W, C], [h, w, C / groups, D] -> [B, H', W', D]`: jax's function, faster on a CPU.

    Where the program runs on a CPU, images and kernels of this layout are computed as `lowering`
    says; all else is XLA's own. Depthwise ones, then, have no forward-mode derivative (jax.jvp
    raises TypeError); reverse mode has every order.

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

    def usual(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **rest)

    if not _is_ordinary(lhs, rhs, rest):
        return usual(lhs, rhs)
    dilation = tuple(rhs_dilation or (1, 1))
    pads = _pads(lhs, rhs, window_strides, padding, dilation)
    shape = Shape(tuple(window_strides), pads, dilation, feature_group_count)
    fast = lowering(lhs, rhs, shape)
    if fast is None:
        return usual(lhs, rhs)
    return lax.platform_dependent(lhs, rhs, cpu=lambda x, w: fast(x, w, shape), default=usual)


def _pads(x, w, strides, padding, dilation) -> tuple[tuple[int, int], ...]:
    """Padding by name or in numbers, in numbers."""
    if isinstance(padding, str):
        reach = [d * (k - 1) + 1 for d, k in zip(dilation, w.shape[:2], strict=True)]
        padding = lax.padtype_to_pads(x.shape[1:3], reach, strides, padding)
    return tuple((int(low), int(high)) for low, high in padding)


def _is_ordinary(x: Any, w: Any, rest: dict[str, Any]) -> bool:
    """Whether images and kernels are laid out as here, and nothing besides is asked for."""
    if x.ndim != 4 or not jnp.issubdtype(x.dtype, jnp.floating):
        return False
    numbers = lax.conv_dimension_numbers(x.shape, w.shape, rest["dimension_numbers"])
    return (
        numbers == lax.conv_dimension_numbers(x.shape, w.shape, NHWC)
        and rest["batch_group_count"] == 1
        and all(d == 1 for d in rest["lhs_dilation"] or ())
        and rest["preferred_element_type"] in (None, x.dtype)
        and rest["out_sharding"] is None
    )
