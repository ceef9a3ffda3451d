"""Transposed convolution as a module."""

from collections.abc import Sequence
from typing import final

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype, Initializer, PrecisionLike

from zoo.ops.transposed import conv_transpose


@final
class ConvTranspose(nn.Module):
    """`flax.linen.ConvTranspose` on `zoo.ops.transposed`, which is faster on a CPU.

    Fields, parameters and their layout are those of flax.

    Attributes:
        padding: "SAME", "VALID", one number for all sides, or one number or pair per axis. Numbers
            surround the dilated input: torch's `padding` p is kernel - 1 - p here, with
            `transpose_kernel`.

    Args:
        x: feature map [B, H, W, C].

    Returns:
        Feature map [B, H', W', features].

    Raises:
        ValueError: if the padding is "CIRCULAR".

    Source: flax.linen.ConvTranspose; Zeiler et al. 2010, Deconvolutional Networks.

    >>> model, x = ConvTranspose(4, (2, 2), (2, 2)), jnp.ones((1, 3, 3, 8))
    >>> y, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
    >>> y.shape, variables["params"]["kernel"].shape
    ((1, 6, 6, 4), (2, 2, 8, 4))
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] | None = None
    padding: str | int | Sequence[int | tuple[int, int]] = "SAME"
    kernel_dilation: int | Sequence[int] | None = None
    use_bias: bool = True
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    precision: PrecisionLike = None
    kernel_init: Initializer = nn.initializers.lecun_normal()
    bias_init: Initializer = nn.initializers.zeros
    transpose_kernel: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel_size, axes = self.kernel_size, x.ndim - 2
        if isinstance(kernel_size, int):
            kernel_size = (kernel_size,) * axes
        strides, dilation = (
            (value or 1,) * axes if value is None or isinstance(value, int) else tuple(value)
            for value in (self.strides, self.kernel_dilation)
        )
        widths = (x.shape[-1], self.features)
        kernel = self.param(
            "kernel",
            self.kernel_init,
            (*kernel_size, *(widths[::-1] if self.transpose_kernel else widths)),
            self.param_dtype,
        )
        bias = None
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = conv_transpose(
            x,
            kernel,
            strides,
            _transposed_padding(self.padding, axes),
            rhs_dilation=dilation,
            transpose_kernel=self.transpose_kernel,
            precision=self.precision,
        )
        return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + (-1,))


def _transposed_padding(padding: str | int | Sequence, axes: int) -> str | list[tuple[int, int]]:
    """Converts flax's forms of padding to jax's."""
    if isinstance(padding, str):
        if padding not in ("SAME", "VALID"):
            raise ValueError(f"expected padding 'SAME', 'VALID' or numbers, got {padding!r}")
        return padding
    sides = [padding] * axes if isinstance(padding, int) else padding
    return [(side, side) if isinstance(side, int) else tuple(side) for side in sides]
