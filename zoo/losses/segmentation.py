"""Losses of per-pixel logits, computed in float32 or wider; pixels of 255 are ignored."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

IGNORE_LABEL = 255  # in a mask


def pixel_weights(
    mask: jax.Array,
    weight: jax.Array | None = None,
    *,
    class_weights: Sequence[float] | np.ndarray | None = None,
) -> jax.Array:
    """Returns the weight of each pixel; 0 where it is ignored.

    The weighted mean of a loss is sum(weights * losses) / sum(weights).

    Args:
        mask: class indices [B, H, W] int; 255 is ignored.
        weight: weight map [B, H, W]; 1 if not given.
        class_weights: weight per class [K]; 1 if not given.

    Returns:
        Weights [B, H, W] float32.

    Source: torch's cross_entropy with `weight`, which divides by the same sum; the map is w(x) of
    Ronneberger et al. 2015, equation 1.

    >>> pixel_weights(jnp.array([[[0, 1, 255]]]), class_weights=(1.0, 3.0)).tolist()
    [[[1.0, 3.0, 0.0]]]
    """
    chex.assert_rank(mask, 3)
    is_labeled, label = split_ignored(mask)
    weights = is_labeled.astype(jnp.float32)
    if class_weights is not None:
        weights = weights * jnp.asarray(class_weights, jnp.float32)[label]
    if weight is not None:
        chex.assert_equal_shape([mask, weight])
        weights = weights * weight.astype(jnp.float32)
    return weights


def pixel_cross_entropy(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """Computes the softmax cross-entropy of every pixel; 0 without gradient where ignored.

    Args:
        logits: logits [B, H, W, K].
        mask: class indices [B, H, W] int; 255 is ignored.

    Returns:
        Losses [B, H, W].

    Source: torch's cross_entropy with ignore_index=255 and reduction="none".

    >>> pixel_cross_entropy(jnp.zeros((1, 1, 2, 4)), jnp.array([[[3, 255]]])).round(4)
    Array([[[1.3863, 0.    ]]], dtype=float32)
    """
    logits, is_labeled, is_true_class = check_inputs(logits, mask)
    true_logit = jnp.sum(jnp.where(is_true_class, logits, jnp.zeros_like(logits)), -1)
    losses = jax.nn.logsumexp(logits, -1) - true_logit
    return jnp.where(is_labeled, losses, jnp.zeros_like(losses))


def focal_loss(logits: jax.Array, mask: jax.Array, *, gamma: float = 2.0) -> jax.Array:
    """Computes (1 - p)^gamma times the cross-entropy; 0 without gradient where ignored.

    It is the softmax form, for at least two classes. With two classes, logits (0, x) give the
    sigmoid form of x. The paper's alpha is a class weight (1 - alpha, alpha).

    Args:
        logits: logits [B, H, W, K].
        mask: class indices [B, H, W] int; 255 is ignored.
        gamma: exponent.

    Returns:
        Losses [B, H, W].

    Source: Lin et al. 2017, Focal Loss for Dense Object Detection, equation 4.

    >>> focal_loss(jnp.zeros((1, 1, 1, 2)), jnp.array([[[1]]]), gamma=2.0).round(4)
    Array([[[0.1733]]], dtype=float32)
    """
    logits, is_labeled, is_true_class = check_inputs(logits, mask)
    logp = jax.nn.log_softmax(logits)
    true_log_probability = jnp.sum(jnp.where(is_true_class, logp, jnp.zeros_like(logp)), -1)
    # log(1 - p) comes from the other classes, so the gradient at p = 1 is finite for any gamma.
    log_other = jax.nn.logsumexp(jnp.where(is_true_class, jnp.full_like(logp, -jnp.inf), logp), -1)
    return jnp.where(
        is_labeled,
        -jnp.exp(gamma * log_other) * true_log_probability,
        jnp.zeros_like(true_log_probability),
    )


def dice_loss(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """Computes 1 minus the mean soft Dice coefficient of the classes in the mask.

    The Dice coefficient of a class is 2 sum(p g) / (sum p + sum g) over the pixels of an image,
    with probability p and ground truth g. Ignored pixels are in no sum. The loss is 0 where all
    pixels are ignored.

    Args:
        logits: logits [B, H, W, K].
        mask: class indices [B, H, W] int; 255 is ignored.

    Returns:
        Losses [B].

    Source: Milletari et al. 2016, V-Net, section 3, without its squares, as in Drozdzal et al.
    2016, The Importance of Skip Connections, section 2.

    >>> dice_loss(jnp.array([[[[99.0, 0.0], [0.0, 0.0]]]]), jnp.array([[[0, 1]]])).round(4)
    Array([0.2667], dtype=float32)
    """
    p, true = flatten_classes_first(logits, mask)
    hits, predicted, actual = (jnp.sum(x, -1) for x in (p * true, p, true))  # [B, K]
    coefficients = 2 * hits / (predicted + jnp.maximum(actual, jnp.ones_like(actual)))
    return mean_over_present(1 - coefficients, actual)


def lovasz_softmax(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """Computes the Lovasz extension of 1 - IoU, averaged over the classes in the mask.

    It is piecewise linear in the probabilities and equals 1 - IoU where these are 0 and 1. Each
    image is treated separately. Ignored pixels do not count, and the loss is 0 where all are
    ignored. It sorts K times the pixels of an image.

    Args:
        logits: logits [B, H, W, K].
        mask: class indices [B, H, W] int; 255 is ignored.

    Returns:
        Losses [B].

    Source: Berman et al. 2018, The Lovasz-Softmax loss, equations 8, 9 and 11, algorithm 1; their
    release with classes="present" and per_image=True.

    >>> sure = jnp.array([[[[99.0, 0.0], [99.0, 0.0]]]])  # class 0 twice
    >>> lovasz_softmax(sure, jnp.array([[[0, 1]]])).tolist()  # IoU 1/2 and 0
    [0.75]
    """
    p, true = flatten_classes_first(logits, mask)
    valid = jnp.sum(true, 1, keepdims=True)
    error = jnp.abs(true - p)  # 0 where ignored: last, and no part of the sum
    order = jnp.argsort(jax.lax.stop_gradient(jnp.where(valid > 0, -error, jnp.ones_like(error))))
    error, true, valid = (
        jnp.take_along_axis(jnp.broadcast_to(x, p.shape), order, -1) for x in (error, true, valid)
    )
    count = jnp.sum(true, -1, keepdims=True)
    missed = count - jnp.cumsum(true, -1)
    union = count + jnp.cumsum(valid - true, -1)
    lost = 1 - missed / jnp.maximum(union, jnp.ones_like(union))
    steps = jnp.diff(lost, axis=-1, prepend=jnp.zeros_like(count))
    return mean_over_present(jnp.sum(error * jax.lax.stop_gradient(steps), -1), count[..., 0])


def split_ignored(mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Splits a mask into labeled pixels and labels, with label 0 where ignored.

    Args:
        mask: class indices [B, H, W] int; 255 is ignored.

    Returns:
        `is_labeled` [B, H, W] bool and labels [B, H, W] int32.

    >>> [x.tolist() for x in split_ignored(jnp.array([7, 255], jnp.uint8))]
    [[True, False], [7, 0]]
    """
    is_labeled = mask != IGNORE_LABEL
    return is_labeled, jnp.where(is_labeled, mask, jnp.zeros_like(mask)).astype(jnp.int32)


def check_inputs(logits: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Validates shapes and casts the logits to float32 or wider.

    Args:
        logits: logits [B, H, W, K].
        mask: class indices [B, H, W] int; 255 is ignored.

    Returns:
        Logits, `is_labeled` [B, H, W] bool and `is_true_class` [B, H, W, K] bool.

    >>> check_inputs(jnp.zeros((1, 1, 1, 2), jnp.bfloat16), jnp.array([[[1]]]))[2].tolist()
    [[[[False, True]]]]
    """
    chex.assert_rank([logits, mask], [4, 3])
    chex.assert_equal_shape_prefix([logits, mask], 3)
    is_labeled, label = split_ignored(mask)
    is_true_class = (
        label[..., None] == jnp.arange(logits.shape[-1], dtype=jnp.int32)[None, None, None]
    )
    logits = logits.astype(jnp.float32) if jnp.finfo(logits.dtype).bits < 32 else logits
    return logits, is_labeled, is_true_class


def flatten_classes_first(logits: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns probabilities and one-hot ground truth with flat pixels; 0 where ignored.

    Args:
        logits: logits [B, H, W, K].
        mask: class indices [B, H, W] int; 255 is ignored.

    Returns:
        Probabilities [B, K, H * W] and ground truth [B, K, H * W].

    >>> [x.tolist() for x in flatten_classes_first(jnp.zeros((1, 1, 1, 2)), jnp.array([[[1]]]))]
    [[[[0.5], [0.5]]], [[[0.0], [1.0]]]]
    """
    logits, is_labeled, is_true_class = check_inputs(logits, mask)
    p = jnp.where(is_labeled[..., None], jax.nn.softmax(logits), jnp.zeros_like(logits))
    one_hot = (is_true_class & is_labeled[..., None]).astype(p.dtype)
    shape = (p.shape[0], -1, p.shape[-1])
    return p.reshape(shape).swapaxes(1, 2), one_hot.reshape(shape).swapaxes(1, 2)


def mean_over_present(values: jax.Array, counts: jax.Array) -> jax.Array:
    """Averages over the classes that occur in the mask; 0 if none does.

    Args:
        values: values per class [B, K].
        counts: number of pixels per class [B, K].

    Returns:
        Means [B].

    Source: Berman et al. 2018, section 3.1.

    >>> mean_over_present(jnp.array([[0.5, 9.0]]), jnp.array([[3.0, 0.0]])).tolist()
    [0.5]
    """
    is_present = counts > 0
    total = jnp.sum(jnp.where(is_present, values, jnp.zeros_like(values)), -1)
    return total / jnp.maximum(jnp.sum(is_present, -1), 1).astype(values.dtype)
