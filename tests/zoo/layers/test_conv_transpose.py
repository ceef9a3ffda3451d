"""ConvTranspose against flax's: the same parameters make the same outputs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.layers.conv_transpose import ConvTranspose

FIELDS = {
    "2x2 stride 2": dict(kernel_size=(2, 2), strides=(2, 2)),
    "valid, turned, no bias": dict(
        kernel_size=(3, 3), strides=(2, 2), padding="VALID", transpose_kernel=True, use_bias=False
    ),
    "numbers": dict(kernel_size=(4, 4), strides=(2, 2), padding=[1, (2, 0)]),
    "holes": dict(kernel_size=(3, 3), kernel_dilation=(2, 2), padding=2),
    "bfloat16": dict(kernel_size=(2, 2), strides=(2, 2), dtype=jnp.bfloat16),
}


@pytest.mark.parametrize("case", FIELDS)
def test_as_flax(case):
    fields = dict(features=5, bias_init=nn.initializers.normal(), **FIELDS[case])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 5, 3)), jnp.float32)
    theirs, variables = nn.ConvTranspose(**fields).init_with_output(jax.random.key(0), x)
    own = ConvTranspose(**fields).init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, own, variables)
    y = ConvTranspose(**fields).apply(variables, x)
    assert y.shape == theirs.shape and y.dtype == theirs.dtype
    tolerance = 2e-2 if y.dtype == jnp.bfloat16 else 1e-5
    np.testing.assert_allclose(
        y.astype(jnp.float32), theirs.astype(jnp.float32), tolerance, tolerance
    )


def test_other_padding_is_refused():
    with pytest.raises(ValueError, match="CIRCULAR"):
        ConvTranspose(2, (2, 2), padding="CIRCULAR").init(jax.random.key(0), jnp.ones((1, 2, 2, 1)))
