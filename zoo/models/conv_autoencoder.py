"""Convolutional auto-encoder with BatchNorm."""

import functools
from typing import final

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from zoo.layers.activation import lookup_activation
from zoo.layers.conv_norm import ConvNorm


def upsample_double(x: jax.Array, like: jax.Array) -> jax.Array:
    """Repeats each pixel twice along both axes and crops to the size of `like`.

    Args:
        x: feature map [B, h, w, C].
        like: map of the target size [B, H, W, D].

    Returns:
        Feature map [B, H, W, C].

    Source: Nearest-neighbor upsampling before a convolution: Odena et al. 2016, Deconvolution and
    Checkerboard Artifacts.

    >>> x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    >>> upsample_double(x, jnp.zeros((1, 3, 4, 1)))[0, :, :, 0].tolist()
    [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 3.0, 3.0]]
    """
    return x.repeat(2, 1).repeat(2, 2)[:, : like.shape[1], : like.shape[2]]


@final
class ConvAutoencoder(nn.Module):
    """Convolutional auto-encoder.

    Each width halves the map (rounding up) by a 3 x 3 ConvNorm of stride 2, `encode_k`. A 1 x 1
    convolution makes the linear code. `decode_k` doubles the map and convolves, back to the image.
    The reconstruction is the sigmoid of its logits.

    Attributes:
        widths: channels of the encoder.
        code_width: channels of the code.

    Args:
        image: images [B, H, W, C] in [0, 1].
        train: use batch statistics.

    Returns:
        `reconstruction` and `reconstruction_logits` [B, H, W, C], `code` [B, h, w, D].

    Source: Masci et al. 2011, Stacked Convolutional Auto-Encoders; here with strides instead of
    max-pooling, BatchNorm, and training end to end.

    >>> image = jnp.zeros((1, 28, 28, 1))
    >>> model = ConvAutoencoder()
    >>> out, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    >>> out["reconstruction"].shape, out["code"].shape
    ((1, 28, 28, 1), (1, 4, 4, 8))
    """

    widths: tuple[int, ...] = (16, 32, 64)
    code_width: int = 8
    act: str = "relu"
    norm: str | None = "batch"
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        chex.assert_rank(image, 4)
        brick = functools.partial(
            ConvNorm,
            act=lookup_activation(self.act),
            norm=self.norm,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )
        levels = [image]
        for k, width in enumerate(self.widths, 1):
            levels.append(brick(width, stride=2, name=f"encode_{k}")(levels[-1], train=train))
        code = nn.Conv(self.code_width, (1, 1), dtype=self.dtype, name="code")(levels[-1])
        x = code
        for k in range(len(self.widths), 0, -1):
            x = upsample_double(x, levels[k - 1])
            x = brick(self.widths[k - 1], name=f"decode_{k}")(x, train=train)
        logits = nn.Conv(image.shape[-1], (3, 3), dtype=jnp.float32, name="pixels")(x)
        return dict(reconstruction=nn.sigmoid(logits), reconstruction_logits=logits, code=code)


CARD = dict(
    module=ConvAutoencoder,
    task="reconstruction",
    input=(28, 28, 1),
    paper="Masci et al. 2011, Stacked Convolutional Auto-Encoders for Hierarchical Feature "
    "Extraction",
    preprocessing=dict(mean=(0.0,), std=(1.0,)),
)

VARIANTS = {  # fields of ConvAutoencoder; parameters
    "conv_autoencoder": {},  # 51,945
}
