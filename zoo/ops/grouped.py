"""Grouped convolution for CPUs.

Figures are milliseconds on two cores with AVX-512, float32, jax 0.10.1, batch 8, 32 groups, 3x3.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
from jax import lax

from zoo.ops.conv_spec import NHWC, ConvSpec

# Limits on the groups and channels that are merged into a dense convolution. 56² x 128, groups of
# 4 channels, 4 merged: 15, 8 merged: 24; 14² x 512, groups of 16, alone: 6.4, 2 merged: 5.0.
MAX_MERGED_GROUPS, MAX_MERGED_CHANNELS = 4, 32
# For the kernel gradient: 56² x 128 with 16 channels 21, 32: 29; 14² x 512: 8.7 and 10.
MAX_KERNEL_CHANNELS = 16


def conv_grouped(x: jax.Array, w: jax.Array, shape: ConvSpec) -> jax.Array:
    """Computes a grouped convolution as dense convolutions of a few groups each.

    Narrow groups are merged with zeros between them: more arithmetic, in convolutions that XLA
    computes well. The convolution and its two gradients are each other's gradients, so reverse mode
    of every order is computed this way. There is no forward-mode derivative.

    Args:
        x: image [B, H, W, C].
        w: kernel [h, w, C / groups, D].
        shape: strides, padding, dilation and groups.

    Returns:
        Feature map [B, H', W', D].

    Source: Krizhevsky et al. 2012, section 3.2; Xie et al. 2017, figure 3.

    >>> plain = ConvSpec((1, 1), ((0, 0), (0, 0)), (1, 1), groups=2)
    >>> conv_grouped(jnp.ones((1, 3, 3, 4)), jnp.ones((3, 3, 2, 2)), plain).tolist()
    [[[[18.0, 18.0]]]]
    """
    return _output(x, w, shape)


def _merge_groups(x: jax.Array, w: jax.Array, shape: ConvSpec, channels: int) -> jax.Array:
    """Computes the convolution by dense convolutions of merged groups."""
    groups, (height, width, inner, outer) = shape.groups, w.shape
    divisors = [n for n in range(1, min(groups, MAX_MERGED_GROUPS) + 1) if groups % n == 0]
    merged = max(n for n in divisors if n == 1 or n * inner <= channels)
    kernels = w.reshape(height, width, inner, groups // merged, merged, outer // groups)
    outputs = []
    for k in range(groups // merged):
        block = jnp.einsum("hwijo,jg->hwgijo", kernels[:, :, :, k], jnp.eye(merged, dtype=w.dtype))
        block = block.reshape(height, width, merged * inner, -1)
        group_channels = x[..., k * merged * inner : (k + 1) * merged * inner]
        outputs.append(
            lax.conv_general_dilated(
                group_channels,
                block,
                shape.strides,
                shape.padding,
                rhs_dilation=shape.dilation,
                dimension_numbers=NHWC,
            )
        )
    return jnp.concatenate(outputs, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _output(x, w, shape):
    return _merge_groups(x, w, shape, MAX_MERGED_CHANNELS)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _input_gradient(g, w, image, shape):
    """Computes the image gradient [B, H, W, C] by convolutions of stride 1.

    XLA's gradient, then these: 56² x 128: 23 to 13; 14² x 512: 10 to 5.2; of stride 2 from 14² x
    1024, one convolution for each of the four phases of pixels: 16 to 7.5.
    """
    strides, dilation = shape.strides, shape.dilation
    if strides != (1, 1) and dilation != (1, 1):
        x = jnp.zeros(image, g.dtype)
        return jax.vjp(lambda x: _merge_groups(x, w, shape, MAX_MERGED_CHANNELS), x)[1](g)[0]
    # Pixel q s + r of the padded image uses the taps r, r + s, ... of outputs q, q - 1, ...
    reach = [side + low for side, (low, _) in zip(image[1:3], shape.padding, strict=True)]
    sizes = [-(-n // s) for n, s in zip(reach, strides, strict=True)]

    def pixels(first: tuple[int, ...]) -> jax.Array:
        phase_kernel = w[first[0] :: strides[0], first[1] :: strides[1]]
        if 0 in phase_kernel.shape:
            return jnp.zeros((image[0], *sizes, image[3]), g.dtype)
        before = [d * (k - 1) for k, d in zip(phase_kernel.shape[:2], dilation, strict=True)]
        edges = [(b, n - o) for b, n, o in zip(before, sizes, g.shape[1:3], strict=True)]
        plain = ConvSpec((1, 1), tuple(edges), dilation, shape.groups)
        return _merge_groups(
            g, _swap_kernel_axes(phase_kernel, shape.groups), plain, MAX_MERGED_CHANNELS
        )

    phases = {r: pixels(r) for r in itertools.product(*map(range, strides))}
    rows = [
        jnp.stack([phases[r, c] for c in range(strides[1])], 3) if strides[1] > 1 else phases[r, 0]
        for r in range(strides[0])
    ]
    image_padded = jnp.stack(rows, 2) if strides[0] > 1 else rows[0]
    sides = [n * s for n, s in zip(sizes, strides, strict=True)]
    image_padded = image_padded.reshape(image[0], *sides, image[3])
    crops = [
        (-low, n - side, 0) for (low, _), n, side in zip(shape.padding, reach, sides, strict=True)
    ]
    return lax.pad(image_padded, jnp.zeros((), g.dtype), [(0, 0, 0), *crops, (0, 0, 0)])


def _swap_kernel_axes(w: jax.Array, groups: int) -> jax.Array:
    """Flips the kernel and swaps its channels: [h, w, C / groups, D] to [h, w, D / groups, C]."""
    height, width, inner, outer = w.shape
    kernels = w[::-1, ::-1].reshape(height, width, inner, groups, outer // groups)
    return kernels.transpose(0, 1, 4, 3, 2).reshape(height, width, outer // groups, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _kernel_gradient(x, g, kernel, shape):
    """`[B, H, W, C], [B, H', W', D] -> kernel [h, w, C / groups, D]`: XLA's, of few groups each.

    Products of matrices in place of its convolutions: of stride 1 1.6 to 2 times slower, of stride
    2 as fast.
    """
    w = jnp.zeros(kernel, x.dtype)
    return jax.vjp(lambda w: _merge_groups(x, w, shape, MAX_KERNEL_CHANNELS), w)[1](g)[0]


def _output_backward(shape, residuals, g):
    x, w = residuals
    return _input_gradient(g, w, x.shape, shape), _kernel_gradient(x, g, w.shape, shape)


def _input_gradient_backward(image, shape, residuals, slope):
    g, w = residuals
    return _output(slope, w, shape), _kernel_gradient(slope, g, w.shape, shape)


def _kernel_gradient_backward(kernel, shape, residuals, slope):
    x, g = residuals
    return _input_gradient(g, slope, x.shape, shape), _output(x, slope, shape)


_output.defvjp(lambda x, w, shape: (_output(x, w, shape), (x, w)), _output_backward)
_input_gradient.defvjp(
    lambda g, w, image, shape: (_input_gradient(g, w, image, shape), (g, w)),
    _input_gradient_backward,
)
_kernel_gradient.defvjp(
    lambda x, g, kernel, shape: (_kernel_gradient(x, g, kernel, shape), (x, g)),
    _kernel_gradient_backward,
)
