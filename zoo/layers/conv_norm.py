"""Convolution, normalization and activation: the building block of most families."""

from collections.abc import Callable
from typing import final

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer

from zoo.layers.norm import create_norm
from zoo.ops.convolution import conv_general_dilated

HE_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


@final
class ConvNorm(nn.Module):
    """Convolution followed by a norm and an activation.

    Attributes:
        width: number of output channels.
        kernel: kernel size, one number or one per axis.
        stride: stride, one number or one per axis.
        groups: number of channel groups.
        dilation: dilation, one number or one per axis.
        padding: "torch" pads dilation * (kernel // 2) on both sides of each axis; "SAME" and
            "VALID" are XLA's; a number pads every side by that much.
        act: activation function; None for none.
        norm: kind of norm, see `zoo.layers.norm.create_norm`.
        use_bias: None adds a bias where there is no norm; norm "folded" always has one, which holds
            the folded BatchNorm.
        scale_init: initializer of the norm's scale.

    Args:
        x: feature map [B, H, W, C] or [B, T, H, W, C].
        train: use batch statistics in the norm.

    Returns:
        Feature map [B, H / stride, W / stride, width], likewise with a time axis.

    Source: He et al. 2016, Deep Residual Learning, section 3.4; the kernel initializer is He et al.
    2015, equation 14 (fan out).

    >>> model, x = ConvNorm(16, stride=2), jnp.ones((1, 8, 8, 3))
    >>> y, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
    >>> y.shape, sorted(variables["params"])
    ((1, 4, 4, 16), ['conv', 'norm'])
    """

    width: int
    kernel: int | tuple[int, ...] = 3
    stride: int | tuple[int, ...] = 1
    groups: int = 1
    dilation: int | tuple[int, ...] = 1
    padding: str | int = "torch"
    act: Callable[[jax.Array], jax.Array] | None = nn.relu
    norm: str | None = "batch"
    use_bias: bool | None = None
    dtype: Dtype = jnp.float32
    axis_name: str | None = None
    kernel_init: Initializer = HE_FAN_OUT
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        axes = x.ndim - 2
        kernel, stride, dilation = (
            (value,) * axes if isinstance(value, int) else value
            for value in (self.kernel, self.stride, self.dilation)
        )
        padding = self.padding
        if padding == "torch":
            padding = [d * (k // 2) for k, d in zip(kernel, dilation, strict=True)]
        folded = self.norm == "folded"
        use_bias = self.norm is None if self.use_bias is None else self.use_bias
        x = nn.Conv(
            self.width,
            kernel,
            stride,
            padding=padding,
            kernel_dilation=dilation,
            feature_group_count=self.groups,
            use_bias=use_bias or folded,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            conv_general_dilated=conv_general_dilated,
            name="conv",
        )(x)
        if not folded:
            x = create_norm(
                self.norm,
                axis_name=self.axis_name,
                dtype=self.dtype,
                scale_init=self.scale_init,
            )(x, train=train)
        return x if self.act is None else self.act(x)
