"""Perceptron, softmax regression and multi-layer perceptron on flattened pixels."""

from typing import final

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from zoo.layers.activation import lookup_activation
from zoo.layers.initializer import lookup_initializer


@final
class Perceptron(nn.Module):
    """`[B, H, W, C] -> {pooled [B, D], logits [B, K]}`: the pixels, `widths` hidden layers, a head.

    `input_dropout` is the part of the pixels, `dropout` that of the hidden units that training
    leaves out (random stream "dropout"). pooled is the last hidden layer, or the pixels. The
    hidden layers are hidden1, hidden2 ..., the head is output.

    Source: Rosenblatt 1958, The Perceptron; with hidden layers Rumelhart et al. 1986, Learning
    Representations by Back-Propagating Errors; dropout is Hinton et al. 2012, Improving Neural
    Networks by Preventing Co-Adaptation of Feature Detectors, appendix A.

    >>> model, image = Perceptron(widths=(30,)), jnp.zeros((2, 28, 28, 1))
    >>> out, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    >>> out["logits"].shape, variables["params"]["hidden1"]["kernel"].shape
    ((2, 10), (784, 30))
    """

    num_classes: int = 10
    widths: tuple[int, ...] = ()
    act: str = "relu"
    input_dropout: float = 0.0
    dropout: float = 0.0
    kernel_init: str = "he"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        chex.assert_rank(image, 4)
        act, kernel_init = lookup_activation(self.act), lookup_initializer(self.kernel_init)
        x = image.reshape(image.shape[0], -1)
        x = nn.Dropout(self.input_dropout, deterministic=not train)(x)
        for i, width in enumerate(self.widths, 1):
            x = nn.Dense(width, kernel_init=kernel_init, dtype=self.dtype, name=f"hidden{i}")(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(act(x))
        outputs = dict(pooled=x)
        if self.num_classes:
            outputs["logits"] = nn.Dense(
                self.num_classes, kernel_init=kernel_init, dtype=jnp.float32, name="output"
            )(x)
        return outputs


def perceptron_rate(step: jax.typing.ArrayLike) -> jax.Array:
    """Returns the learning rate 1000 / (1000 + t) of step t = 0, 1, 2, ...

    Args:
        step: step t [].

    Returns:
        Learning rate [].

    Source: Russell & Norvig, Artificial Intelligence: A Modern Approach, 3rd edition, section
    18.6.3.

    >>> float(perceptron_rate(1000))
    0.5
    """
    return 1000 / (1000 + jnp.asarray(step, jnp.float32))


def perceptron_update(params: dict, image: jax.Array, label: jax.Array, *, rate: jax.Array) -> dict:
    """Applies the perceptron rule w + a (y - y') x, summed over the examples.

    y' is the prediction and y the label, both 0 or 1 per unit. With one unit the prediction is
    whether its logit is at least 0, with more it is the unit of the largest logit. A correct
    prediction changes nothing. The rule equals a gradient step on the loss max(0, -margin).

    Args:
        params: parameters of a Perceptron without hidden layers.
        image: images [B, H, W, C].
        label: class indices [B].
        rate: learning rate [].

    Returns:
        Updated parameters.

    Source: Rosenblatt 1958; Russell & Norvig, 3rd edition, section 18.6.3, equation 18.7; for
    several units Duda & Hart 1973, section 5.12 (Kesler's construction).

    >>> zeros = {"output": {"kernel": jnp.zeros((2, 1)), "bias": jnp.zeros(1)}}
    >>> image = jnp.array([3.0, 4.0]).reshape(1, 1, 2, 1)
    >>> perceptron_update(zeros, image, jnp.array([0]), rate=0.5)["output"]["kernel"].tolist()
    [[-1.5], [-2.0]]
    """
    x = image.reshape(image.shape[0], -1)
    kernel, bias = params["output"]["kernel"], params["output"]["bias"]
    logits = x @ kernel + bias.reshape(1, -1)
    units = logits.shape[1]
    if units == 1:
        error = label.reshape(-1, 1) - (logits >= 0)
    else:
        error = jax.nn.one_hot(label, units) - jax.nn.one_hot(logits.argmax(1), units)
    return {"output": {"kernel": kernel + rate * x.T @ error, "bias": bias + rate * error.sum(0)}}


CARD = dict(
    module=Perceptron,
    task="classification",
    input=(28, 28, 1),
    paper="Rosenblatt 1958, The Perceptron: A Probabilistic Model for Information Storage and "
    "Organization in the Brain",
    preprocessing=dict(mean=(0.0,), std=(1.0,)),
)

VARIANTS = {  # fields of Perceptron; parameters
    "perceptron": dict(kernel_init="zeros"),  # 7,850
    "softmax_regression": dict(  # 7,850
        kernel_init="zeros",
        card=dict(
            paper="Cox 1966, Some Procedures Connected with the Logistic Qualitative Response Curve"
        ),
    ),
    "mlp": dict(  # 1,276,810
        widths=(800, 800),
        input_dropout=0.2,
        dropout=0.5,
        card=dict(
            paper="Hinton et al. 2012, Improving Neural Networks by Preventing Co-Adaptation of "
            "Feature Detectors",
        ),
    ),
}
