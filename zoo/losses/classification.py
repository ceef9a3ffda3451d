"""Losses of logits, one number per example; optax has softmax's and Crammer and Singer's hinge."""

import chex
import jax
import jax.numpy as jnp


def multiclass_svm(logits: jax.Array, label: jax.Array, *, margin: float = 1.0) -> jax.Array:
    """`[B, K], [B] -> [B]`: sum over the wrong classes of max(0, logit - true logit + margin).

    optax's multiclass_hinge_loss takes the worst wrong class in place of the sum.

    Source: Weston and Watkins 1999, as in Stanford's CS231n, Linear Classification.

    >>> multiclass_svm(jnp.array([[3.0, 5.0, -1.5]]), jnp.array([0])).tolist()
    [3.0]
    """
    chex.assert_rank([logits, label], [2, 1])
    true = jnp.take_along_axis(logits, label[:, None], axis=1)
    violated = jnp.maximum(logits - true + margin, jnp.zeros((), logits.dtype))
    wrong = jnp.arange(logits.shape[1])[None] != label[:, None]
    return jnp.sum(jnp.where(wrong, violated, jnp.zeros_like(violated)), 1)


def binary_cross_entropy(
    logits: jax.Array, target: jax.Array, *, threshold: float | None = None
) -> jax.Array:
    """`[B, K], [B, K] -> [B]`: one yes or no for every class, the MEAN over the classes.

    target: one-hot, smoothed, or mixed as mixup leaves it. threshold: shares above it count as 1,
    the others as 0, so that both images of a mixture are wholly there. The mean makes the loss and
    its gradient K times smaller than the sum; an optimizer that scales by the gradient's size
    (LAMB, Adam) does not see that, SGD does.

    Source: Wightman et al. 2021, ResNet strikes back; timm's BinaryCrossEntropy, whose
    default is the mean too (its sum_classes is the sum) and whose target_threshold is `threshold`.

    >>> binary_cross_entropy(jnp.zeros((1, 4)), jnp.array([[0.0, 0.3, 0.7, 0.0]])).round(4)
    Array([0.6931], dtype=float32)
    """
    chex.assert_equal_shape([logits, target])
    if threshold is not None:
        target = target > threshold
    target = target.astype(logits.dtype)
    return jnp.mean(jax.nn.softplus(logits) - target * logits, 1)


def distillation_loss(
    student_logits: jax.Array, teacher_logits: jax.Array, *, temperature: float
) -> jax.Array:
    """`[B, K], [B, K] -> [B]`: T^2 KL(teacher || student), both softened by the temperature T.

    T^2 keeps the gradient's size, which falls with 1 / T^2. Nothing is stopped here: the gradient
    reaches the teacher too, unless the caller says stop_gradient.

    Source: Hinton et al. 2015, Distilling the Knowledge in a Neural Network, section 2.

    >>> distillation_loss(jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 4.0]]), temperature=2.0).tolist()
    [0.0]
    """
    chex.assert_equal_shape([student_logits, teacher_logits])
    student = jax.nn.log_softmax(student_logits / temperature)
    teacher = jax.nn.log_softmax(teacher_logits / temperature)
    return temperature**2 * jnp.sum(jnp.exp(teacher) * (teacher - student), 1)
