"""The deep auto-encoder, and its layers trained one after the other."""

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
    """`[B, H, W, C] -> {reconstruction [B, H, W, C], reconstruction_logits, code [B, D]}`.

    `widths` are the layers from the pixels to the code; the way back mirrors them. `act` is that
    of the hidden layers, `code_act` that of the code. The reconstruction is the sigmoid of its
    logits, which the cross-entropy wants: images lie in [0, 1]. Without pre-training the start
    matters: sparse_normal learns at once, xavier stays near the mean image for long.

    The layer that leads to level k (the k-th width; level 0 is the pixels) is encode_k, the one
    that leads back from it decode_k, so greedy layer-wise pre-training needs nothing more: train
    Autoencoder((w_k,), code_act=...) on the codes of the one before as images [B, 1, 1, w_(k-1)],
    for k = 1, 2 ..., with code_act "sigmoid" for all but the last; assemble() puts the parts into
    the parameters of the whole.

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


def stack_autoencoders(parts: Sequence[dict]) -> dict:
    """`params of [w_1], [w_2] ... -> params of [w_1, w_2 ...]`: auto-encoders of one layer to one.

    Part k is the parameters of an Autoencoder with one width that was trained on level k - 1.

    Source: Bengio et al. 2007, section 4.

    >>> parts = [{"encode_1": "a", "decode_1": "z"}, {"encode_1": "b", "decode_1": "y"}]
    >>> stack_autoencoders(parts)
    {'encode_1': 'a', 'decode_1': 'z', 'encode_2': 'b', 'decode_2': 'y'}
    """
    return {
        f"{way}_{k}": part[f"{way}_1"]
        for k, part in enumerate(parts, 1)
        for way in ("encode", "decode")
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
