"""Deep auto-encoder, and the assembly of layers that were trained one by one."""

from collections.abc import Sequence
from typing import final

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from zoo.layers.activation import lookup_activation
from zoo.layers.initializer import lookup_initializer


@final
class Autoencoder(nn.Module):
    """Fully connected auto-encoder; the decoder mirrors the encoder.

    The reconstruction is the sigmoid of its logits, so images lie in [0, 1] and a cross-entropy
    loss can use the logits. Without pre-training the initialization matters: sparse_normal learns
    at once, Xavier stays near the mean image for long.

    The layer that leads to level k is `encode_k`, and the one that leads back is `decode_k`; level
    0 is the pixels. Greedy layer-wise pre-training needs nothing more: for k = 1, 2, ... train
    `Autoencoder((w_k,), code_act=...)` on the codes of the previous level as images [B, 1, 1,
    w_(k-1)], with `code_act="sigmoid"` for all but the last. `stack_autoencoders` then assembles
    the parameters.

    Attributes:
        widths: units of the layers from the pixels to the code.
        act: activation of the hidden layers.
        code_act: activation of the code.

    Args:
        image: images [B, H, W, C] in [0, 1].
        train: not used.

    Returns:
        `reconstruction` and `reconstruction_logits` [B, H, W, C], `code` [B, D].

    Source: Hinton & Salakhutdinov 2006, Reducing the Dimensionality of Data with Neural Networks,
    figure 1 and its supporting material; greedy training of such pairs instead of Boltzmann
    machines is Bengio et al. 2007, Greedy Layer-Wise Training of Deep Networks, section 4.

    >>> model, image = Autoencoder((20, 5)), jnp.zeros((2, 28, 28, 1))
    >>> out, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    >>> out["reconstruction"].shape, out["code"].shape, sorted(variables["params"])
    ((2, 28, 28, 1), (2, 5), ['decode_1', 'decode_2', 'encode_1', 'encode_2'])
    """

    widths: tuple[int, ...] = (1000, 500, 250, 30)
    act: str = "sigmoid"
    code_act: str = "linear"
    kernel_init: str = "sparse_normal"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        chex.assert_rank(image, 4)
        act, code_act = lookup_activation(self.act), lookup_activation(self.code_act)

        def dense(width: int, name: str, dtype: Dtype = self.dtype) -> nn.Dense:
            return nn.Dense(
                width, kernel_init=lookup_initializer(self.kernel_init), dtype=dtype, name=name
            )

        depth = len(self.widths)
        x = image.reshape(image.shape[0], -1)
        pixels = x.shape[1]
        for k, width in enumerate(self.widths, 1):
            x = dense(width, f"encode_{k}")(x)
            x = act(x) if k < depth else code_act(x)
        code = x
        for k in range(depth, 1, -1):
            x = act(dense(self.widths[k - 2], f"decode_{k}")(x))
        logits = dense(pixels, "decode_1", jnp.float32)(x).reshape(image.shape)
        return dict(reconstruction=nn.sigmoid(logits), reconstruction_logits=logits, code=code)


def stack_autoencoders(layers: Sequence[dict]) -> dict:
    """Assembles the parameters of single-layer auto-encoders into those of a deep one.

    Args:
        layers: parameters of `Autoencoder((w_k,))` for k = 1, 2, ..., each trained on level k - 1.

    Returns:
        Parameters of `Autoencoder((w_1, w_2, ...))`.

    Source: Bengio et al. 2007, Greedy Layer-Wise Training of Deep Networks, section 4.

    >>> layers = [{"encode_1": "a", "decode_1": "z"}, {"encode_1": "b", "decode_1": "y"}]
    >>> stack_autoencoders(layers)
    {'encode_1': 'a', 'decode_1': 'z', 'encode_2': 'b', 'decode_2': 'y'}
    """
    return {
        f"{direction}_{k}": params[f"{direction}_1"]
        for k, params in enumerate(layers, 1)
        for direction in ("encode", "decode")
    }


CARD = dict(
    module=Autoencoder,
    task="reconstruction",
    input=(28, 28, 1),
    paper="Hinton & Salakhutdinov 2006, Reducing the Dimensionality of Data with Neural Networks",
    preprocessing=dict(mean=(0.0,), std=(1.0,)),
)

VARIANTS = {  # fields of Autoencoder; parameters
    "autoencoder": {},  # 2,837,314
}
