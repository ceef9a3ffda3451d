"""Normalisation without parameters."""

import jax
import jax.numpy as jnp


def local_response_norm(
    x: jax.Array, *, size: int, alpha: float, beta: float, k: float
) -> jax.Array:
    """`[..., C] -> [..., C]`: x / (k + alpha / size * sum of x^2 over `size` channels)^beta.

    The window is the channel itself and (size - 1) / 2 on either side, zeros beyond the ends. As in
    Caffe and torch, alpha is divided by `size`; the paper and TensorFlow do not divide, so the
    paper's alpha of 1e-4 with size 5 is 5e-4 here.

    Source: Krizhevsky et al. 2012, ImageNet Classification with Deep Convolutional Neural Networks,
    section 3.3; torch.nn.LocalResponseNorm.

    >>> local_response_norm(jnp.array([3.0, 4.0, 0.0]), size=3, alpha=3.0, beta=0.5, k=0.0).tolist()
    [0.6..., 0.8..., 0.0]
    """
    after = (size - 1) // 2
    sides = [(0, 0)] * (x.ndim - 1) + [(size - 1 - after, after)]
    squares = jnp.pad(jnp.square(x), sides)
    window = sum(squares[..., i : i + x.shape[-1]] for i in range(1, size))
    return x / (k + alpha / size * (squares[..., : x.shape[-1]] + window)) ** beta
