"""Variables for tests, without the compilation that drawing them by a model's own init costs."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

RANGES = dict(
    mean=(-1.0, 1.0),
    var=(0.2, 5.0),
    scale=(0.5, 2.0),
    bias=(-0.5, 0.5),
    class_token=(-1.0, 1.0),
    positions=(-1.0, 1.0),
)


def draw_variables(model: nn.Module, image: tuple[int, ...]) -> dict[str, Any]:
    """Shape of one image to variables, all random: kernels of variance 1 / fan in, the rest wide."""
    shape = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    random = np.random.default_rng(0)

    def value(path, leaf):
        name = path[-1].key
        if name == "kernel":
            array = random.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape)
        else:
            array = random.uniform(*RANGES[name], leaf.shape)
        return array.astype(leaf.dtype)

    shapes = jax.eval_shape(model.init, jax.random.key(0), shape)
    return jax.tree_util.tree_map_with_path(value, shapes)


@pytest.fixture(scope="session")
def draw():
    return draw_variables
