"""What the tests of lowerings compare: values and gradients, of ours and of XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np


def close(ours, theirs, tolerance=1e-5):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.abs(a - b).max() <= tolerance * max(np.abs(b).max(), 1)


def gradients(convolve, x, w):
    y = jax.eval_shape(convolve, x, w)
    like = jnp.asarray(np.random.default_rng(1).normal(size=y.shape), y.dtype)
    return jax.grad(lambda x, w: jnp.sum(convolve(x, w) * like), argnums=(0, 1))(x, w)
