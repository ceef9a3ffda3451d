"""LeNet-5, as published in 1998 and as built today."""

import functools
from typing import final

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype, Shape
from jax import lax

from zoo.layers.activation import lookup_activation
from zoo.layers.initializer import fan_in_uniform, lookup_initializer
from zoo.ops.pooling import avg_pool

# Table I: the maps of S2 that each of the sixteen maps of C3 is connected to.
C3_CONNECTIONS = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip

# Figure 3: the digits 0 to 9 on 7 x 12 pixels, the targets of F6; # is +1, a dot is -1. The bar
# over 0, 2, 4 and 5 is in the figure.
DIGIT_BITMAPS = """
.#####. ...##.. .#####. ####### .#####. .#####. ..####. ####### .#####. .#####.
....... ..###.. ....... .....## ....... ....... .##.... .....## ##...## ##..###
..###.. .####.. .#####. ....##. ....... ####### ##..... .....## ##...## ##...##
.##.##. ...##.. ##...## ...##.. .##..## ##..... ##..... ....##. ##...## ##...##
##...## ...##.. #....## ..####. .##..## ##..... ######. ...##.. .#####. ##..###
##...## ...##.. ....##. .....## ###..## .####.. ###..## ...##.. ##...## .######
##...## ...##.. ..###.. .....## ##...## ..####. ##...## ..##... ##...## .....##
##...## ...##.. .##.... .....## ##...## .....## ##...## ..##... ##...## .....##
.##.##. ...##.. ##..... ##...## ##..### ##...## ###..## ..##... ##...## ....##.
..###.. .###### ####### .#####. .###### .#####. .#####. ..##... .#####. .####..
....... ....... ....... ....... .....## ....... ....... ....... ....... .......
....... ....... ....... ....... .....## ....... ....... ....... ....... .......
"""


def digit_codes() -> np.ndarray:
    """Returns the target codes of figure 3.

    Returns:
        Codes [10, 84], row by row, of -1 and +1.

    Source: LeCun et al. 1998, figure 3, as transcribed in public re-implementations.

    >>> digit_codes().shape, digit_codes()[1, :7].tolist()
    ((10, 84), [-1.0, -1.0, -1.0, 1.0, 1.0, -1.0, -1.0])
    """
    rows = [line.split() for line in DIGIT_BITMAPS.split("\n") if line]
    pixels = np.array([[list(word) for word in row] for row in rows])
    return np.where(pixels == "#", 1, -1).transpose(1, 0, 2).reshape(10, 84).astype(np.float32)


@final
class Subsample(nn.Module):
    """Sum pooling of 2 x 2 with a trainable scale and offset per map.

    Args:
        x: feature map [B, H, W, C].

    Returns:
        Feature map [B, H / 2, W / 2, C].

    Source: LeCun et al. 1998, section II.B, layers S2 and S4; the initialization is appendix A's, F
    = 4.

    >>> x = jnp.ones((1, 4, 4, 6))
    >>> y, variables = jax.eval_shape(Subsample().init_with_output, jax.random.key(0), x)
    >>> y.shape, sum(weight.size for weight in jax.tree.leaves(variables))
    ((1, 2, 2, 6), 12)
    """

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        scale = self.param("scale", lambda key: fan_in_uniform(key, (4, width))[0])
        bias = self.param("bias", nn.initializers.zeros, (width,), jnp.float32)
        scale, bias = (value.reshape(1, 1, 1, width).astype(self.dtype) for value in (scale, bias))
        return 4 * avg_pool(x.astype(self.dtype), (2, 2), (2, 2)) * scale + bias


@final
class SparseConv(nn.Module):
    """A 5 x 5 convolution with the connections of C3_CONNECTIONS.

    The kernel is [5, 5, 60], one slice per connection: 1,500 weights and 16 biases.

    Args:
        x: feature map [B, H, W, 6].

    Returns:
        Feature map [B, H - 4, W - 4, 16].

    Source: LeCun et al. 1998, section II.B, layer C3 and table I.

    >>> x = jnp.ones((1, 14, 14, 6))
    >>> y, variables = jax.eval_shape(SparseConv().init_with_output, jax.random.key(0), x)
    >>> y.shape, sum(weight.size for weight in jax.tree.leaves(variables))
    ((1, 10, 10, 16), 1516)
    """

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        source = np.concatenate(C3_CONNECTIONS)
        inputs = np.array([len(row) for row in C3_CONNECTIONS])
        target = np.repeat(np.arange(len(C3_CONNECTIONS)), inputs)

        def by_fan_in(key: jax.Array, shape: Shape) -> jax.Array:
            limit = 2.4 / (25 * inputs[target])
            return jax.random.uniform(key, shape, jnp.float32, -1, 1) * limit.reshape(1, 1, -1)

        kernel = self.param("kernel", by_fan_in, (5, 5, len(source)))
        bias = self.param("bias", nn.initializers.zeros, (len(C3_CONNECTIONS),), jnp.float32)
        dense = jnp.zeros((5, 5, 6, len(C3_CONNECTIONS))).at[:, :, source, target].set(kernel)
        y = lax.conv_general_dilated(
            x.astype(self.dtype),
            dense.astype(self.dtype),
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + bias.reshape(1, 1, 1, -1).astype(self.dtype)


@final
class LeNet5(nn.Module):
    """LeNet-5.

    The stages are S2 and S4, of stride 2 and 4. A larger image makes C5 a map, which is averaged;
    at 32 x 32 it is one vector.

    Attributes:
        sparse: connect C3 by table I.
        subsample: give S2 and S4 trainable weights instead of averaging.
        rbf: make the logits minus the squared distances of F6 to the digit codes, so that the
            softmax cross-entropy is equation 9 with j = 0. It requires ten classes.

    Args:
        image: images [B, H, W, 1] of at least 32 x 32.
        train: not used.

    Returns:
        `stage1`, `stage2`, `pooled` [B, 84] and `logits` [B, K].

    Raises:
        ValueError: if the image is smaller than 32 x 32, or `rbf` is used with other than ten
            classes.

    Source: LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition, section
    II.B. 60,000 weights with all three, as published; 61,706 with none.

    >>> image = jnp.zeros((1, 32, 32, 1))
    >>> out, variables = jax.eval_shape(LeNet5().init_with_output, jax.random.key(0), image)
    >>> out["stage2"].shape, out["logits"].shape
    ((1, 5, 5, 16), (1, 10))
    """

    num_classes: int = 10
    sparse: bool = False
    subsample: bool = False
    rbf: bool = False
    act: str = "tanh"
    kernel_init: str = "xavier"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        chex.assert_rank(image, 4)
        if min(image.shape[1:3]) < 32:
            raise ValueError(f"expected images of at least 32 x 32 for LeNet-5, got {image.shape}")
        act, kernel_init = lookup_activation(self.act), lookup_initializer(self.kernel_init)
        dense = functools.partial(nn.Dense, kernel_init=kernel_init, dtype=self.dtype)
        conv = functools.partial(
            nn.Conv, kernel_size=(5, 5), padding="VALID", kernel_init=kernel_init, dtype=self.dtype
        )

        def pool(x: jax.Array, name: str) -> jax.Array:
            if self.subsample:
                return act(Subsample(self.dtype, name=name)(x))
            return avg_pool(x, (2, 2), (2, 2))

        stage1 = pool(act(conv(6, name="c1")(image)), "s2")
        c3 = SparseConv(self.dtype, name="c3") if self.sparse else conv(16, name="c3")
        stage2 = pool(act(c3(stage1)), "s4")
        c5 = act(conv(120, name="c5")(stage2)).mean((1, 2))
        pooled = act(dense(84, name="f6")(c5))
        outputs = dict(stage1=stage1, stage2=stage2, pooled=pooled)
        if self.num_classes and self.rbf:
            outputs["logits"] = -self.distances(pooled.astype(jnp.float32))
        elif self.num_classes:
            outputs["logits"] = dense(self.num_classes, dtype=jnp.float32, name="output")(pooled)
        return outputs

    def distances(self, code: jax.Array) -> jax.Array:
        """Returns minus the squared distances [B, 10] of the code to the digit codes."""
        if self.num_classes != 10:
            raise ValueError(
                f"expected num_classes=10 with rbf, got {self.num_classes}; use rbf=False"
            )
        return jnp.square(code[:, None] - digit_codes()[None]).sum(-1)


CARD = dict(
    module=LeNet5,
    task="classification",
    input=(32, 32, 1),
    paper="LeCun, Bottou, Bengio, Haffner 1998, Gradient-Based Learning Applied to Document "
    "Recognition",
    preprocessing=dict(mean=(0.1307,), std=(0.3081,)),  # of MNIST's training images, 28 x 28
)

VARIANTS = {  # fields of LeNet5; parameters
    "lenet5": dict(  # 60,000
        sparse=True,
        subsample=True,
        rbf=True,
        act="scaled_tanh",
        kernel_init="fan_in_uniform",
        card=dict(
            # section II.B: background -0.1, ink 1.175
            preprocessing=dict(mean=(0.1 / 1.275,), std=(1 / 1.275,)),
            reported="MNIST test error 0.95 %, 0.8 % with distortions",
        ),
    ),
    "lenet5_modern": {},  # 61,706
}
