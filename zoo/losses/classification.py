"""Classification losses that optax lacks."""

import chex
import jax
import jax.numpy as jnp


def multiclass_svm(logits: jax.Array, label: jax.Array, *, margin: float = 1.0) -> jax.Array:
    """Sums the hinge loss max(0, logit - true logit + margin) over the wrong classes.

    optax's multiclass_hinge_loss takes the worst wrong class instead of the sum.

    Args:
        logits: logits [B, K].
        label: class indices [B] int.
        margin: margin between the true logit and the others.

    Returns:
        Losses [B].

    Source: Weston and Watkins 1999, as in Stanford's CS231n, Linear Classification.

    >>> multiclass_svm(jnp.array([[3.0, 5.0, -1.5]]), jnp.array([0])).tolist()
    [3.0]
    """
    chex.assert_rank([logits, label], [2, 1])
    true_logit = jnp.take_along_axis(logits, label[:, None], axis=1)
    violation = jnp.maximum(logits - true_logit + margin, jnp.zeros((), logits.dtype))
    is_wrong = jnp.arange(logits.shape[1])[None] != label[:, None]
    return jnp.sum(jnp.where(is_wrong, violation, jnp.zeros_like(violation)), 1)


def binary_cross_entropy(
    logits: jax.Array, target: jax.Array, *, threshold: float | None = None
) -> jax.Array:
    """Averages the binary cross-entropy of every class.

    The mean over classes makes the loss and its gradient K times smaller than the sum. Optimizers
    that scale by the size of the gradient (LAMB, Adam) are not affected, SGD is.

    Args:
        logits: logits [B, K].
        target: target probabilities [B, K]: one-hot, smoothed or mixed.
        threshold: if given, targets above it count as 1 and the others as 0, so that both images of
            a mixture are present.

    Returns:
        Losses [B].

    Source: Wightman et al. 2021, ResNet strikes back; timm's BinaryCrossEntropy, whose default is
    also the mean and whose target_threshold is `threshold`.

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
    """Computes T² KL(teacher || student) with both softened by the temperature T.

    The factor T² preserves the size of the gradient. The gradient also reaches the teacher unless
    the caller applies `stop_gradient`.

    Args:
        student_logits: logits [B, K].
        teacher_logits: logits [B, K].
        temperature: temperature T.

    Returns:
        Losses [B].

    Source: Hinton et al. 2015, Distilling the Knowledge in a Neural Network, section 2.

    >>> student, teacher = jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 4.0]])
    >>> distillation_loss(student, teacher, temperature=2.0).tolist()
    [0.0]
    """
    chex.assert_equal_shape([student_logits, teacher_logits])
    student = jax.nn.log_softmax(student_logits / temperature)
    teacher = jax.nn.log_softmax(teacher_logits / temperature)
    return temperature**2 * jnp.sum(jnp.exp(teacher) * (teacher - student), 1)
