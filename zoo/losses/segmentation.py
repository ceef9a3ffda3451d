"""Losses of logits for every pixel; pixels of 255 are ignored. In float32 or more, whatever comes."""

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
    """`[B, H, W], [B, H, W] -> [B, H, W]` float32: what each pixel counts, 0 where it is ignored.

    The product of the map `weight` and of `class_weights` [K] at the pixel's class, 1 without them.
    The weighted mean of a loss is sum(weights * losses) / sum(weights).

    Source: torch's cross_entropy with `weight`, which divides by the same sum; the map is w(x) of
    Ronneberger et al. 2015, equation 1.

    >>> pixel_weights(jnp.array([[[0, 1, 255]]]), class_weights=(1.0, 3.0)).tolist()
    [[[1.0, 3.0, 0.0]]]
    """
    chex.assert_rank(mask, 3)
    kept, label = split_ignored(mask)
    each = kept.astype(jnp.float32)
    if class_weights is not None:
        each = each * jnp.asarray(class_weights, jnp.float32)[label]
    if weight is not None:
        chex.assert_equal_shape([mask, weight])
        each = each * weight.astype(jnp.float32)
    return each


def pixel_cross_entropy(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """`[B, H, W, K], [B, H, W] -> [B, H, W]`: softmax cross-entropy; 0, without a gradient, where
    the mask is 255.

    Source: torch's cross_entropy with ignore_index=255 and reduction="none".

    >>> pixel_cross_entropy(jnp.zeros((1, 1, 2, 4)), jnp.array([[[3, 255]]])).round(4)
    Array([[[1.3863, 0.    ]]], dtype=float32)
    """
    logits, kept, own = check_inputs(logits, mask)
    true = jnp.sum(jnp.where(own, logits, jnp.zeros_like(logits)), -1)
    each = jax.nn.logsumexp(logits, -1) - true
    return jnp.where(kept, each, jnp.zeros_like(each))


def focal_loss(logits: jax.Array, mask: jax.Array, *, gamma: float = 2.0) -> jax.Array:
    """`[B, H, W, K], [B, H, W] -> [B, H, W]`: (1 - p)^gamma times the cross-entropy -log p of the
    true class; 0, without a gradient, where the mask is 255. At least two classes.

    The softmax form: with two classes, logits (0, x) give the sigmoid's of x. The alpha of the
    paper is a class weight, (1 - alpha, alpha).

    Source: Lin et al. 2017, Focal Loss for Dense Object Detection, equation 4.

    >>> focal_loss(jnp.zeros((1, 1, 1, 2)), jnp.array([[[1]]]), gamma=2.0).round(4)
    Array([[[0.1733]]], dtype=float32)
    """
    logits, kept, own = check_inputs(logits, mask)
    logp = jax.nn.log_softmax(logits)
    true = jnp.sum(jnp.where(own, logp, jnp.zeros_like(logp)), -1)
    # log(1 - p) from the other classes: the power has a finite gradient at p = 1 for any gamma.
    rest = jax.nn.logsumexp(jnp.where(own, jnp.full_like(logp, -jnp.inf), logp), -1)
    return jnp.where(kept, -jnp.exp(gamma * rest) * true, jnp.zeros_like(true))


def dice_loss(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """`[B, H, W, K], [B, H, W] -> [B]`: 1 - the mean soft Dice of the classes that the mask holds.

    A class's Dice is 2 sum(p g) / (sum p + sum g) over the image's pixels, p its probability, g 1
    where it is true. Pixels of 255 are in no sum; 0 where all are ignored.

    Source: Milletari et al. 2016, V-Net, section 3, without its squares, as in Drozdzal et al. 2016,
    The Importance of Skip Connections, section 2.

    >>> dice_loss(jnp.array([[[[99.0, 0.0], [0.0, 0.0]]]]), jnp.array([[[0, 1]]])).round(4)
    Array([0.2667], dtype=float32)
    """
    p, true = flatten_classes_first(logits, mask)
    hits, said, there = (jnp.sum(x, -1) for x in (p * true, p, true))  # [B, K]
    shares = 2 * hits / (said + jnp.maximum(there, jnp.ones_like(there)))
    return mean_over_present(1 - shares, there)


def lovasz_softmax(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """`[B, H, W, K], [B, H, W] -> [B]`: the Lovasz extension of 1 - IoU, the mean over the classes
    that the mask holds.

    Piecewise linear in the probabilities and, where these are 0 and 1, 1 - IoU itself. Each image
    is a set of its own; pixels of 255 are in none; 0 where all are ignored. Sorts K times the
    image's pixels.

    Source: Berman et al. 2018, The Lovasz-Softmax loss, equations 8, 9 and 11, algorithm 1; their
    release with classes="present" and per_image=True.

    >>> sure = jnp.array([[[[99.0, 0.0], [99.0, 0.0]]]])  # class 0 twice
    >>> lovasz_softmax(sure, jnp.array([[[0, 1]]])).tolist()  # IoU 1/2 and 0
    [0.75]
    """
    p, true = flatten_classes_first(logits, mask)
    kept = jnp.sum(true, 1, keepdims=True)
    error = jnp.abs(true - p)  # 0 where ignored: last, and no part of the sum
    order = jnp.argsort(jax.lax.stop_gradient(jnp.where(kept > 0, -error, jnp.ones_like(error))))
    error, true, kept = (
        jnp.take_along_axis(jnp.broadcast_to(x, p.shape), order, -1) for x in (error, true, kept)
    )
    there = jnp.sum(true, -1, keepdims=True)
    missed = there - jnp.cumsum(true, -1)
    union = there + jnp.cumsum(kept - true, -1)
    lost = 1 - missed / jnp.maximum(union, jnp.ones_like(union))
    steps = jnp.diff(lost, axis=-1, prepend=jnp.zeros_like(there))
    return mean_over_present(jnp.sum(error * jax.lax.stop_gradient(steps), -1), there[..., 0])


def split_ignored(mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`[...] -> [...] bool, [...] int32`: which pixels are kept, and their classes, 0 elsewhere.

    Source: the value 255 of Pascal VOC's masks.

    >>> [x.tolist() for x in split_ignored(jnp.array([7, 255], jnp.uint8))]
    [[True, False], [7, 0]]
    """
    kept = mask != IGNORE_LABEL
    return kept, jnp.where(kept, mask, jnp.zeros_like(mask)).astype(jnp.int32)


def check_inputs(logits: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`[B, H, W, K], [B, H, W] -> [B, H, W, K], [B, H, W], [B, H, W, K]`: logits in float32 or
    more, whether a pixel is kept, whether a class is its own.

    Source: a byte of mantissa holds no sum over pixels.

    >>> check_inputs(jnp.zeros((1, 1, 1, 2), jnp.bfloat16), jnp.array([[[1]]]))[2].tolist()
    [[[[False, True]]]]
    """
    chex.assert_rank([logits, mask], [4, 3])
    chex.assert_equal_shape_prefix([logits, mask], 3)
    kept, label = split_ignored(mask)
    own = label[..., None] == jnp.arange(logits.shape[-1], dtype=jnp.int32)[None, None, None]
    logits = logits.astype(jnp.float32) if jnp.finfo(logits.dtype).bits < 32 else logits
    return logits, kept, own


def flatten_classes_first(logits: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`[B, H, W, K], [B, H, W] -> [B, K, P], [B, K, P]`: probabilities and truth, 0 where ignored.

    Source: the losses of sets above, which sum and sort over the pixels.

    >>> [x.tolist() for x in flatten_classes_first(jnp.zeros((1, 1, 1, 2)), jnp.array([[[1]]]))]
    [[[[0.5], [0.5]]], [[[0.0], [1.0]]]]
    """
    logits, kept, own = check_inputs(logits, mask)
    p = jnp.where(kept[..., None], jax.nn.softmax(logits), jnp.zeros_like(logits))
    true = (own & kept[..., None]).astype(p.dtype)
    shape = (p.shape[0], -1, p.shape[-1])
    return p.reshape(shape).swapaxes(1, 2), true.reshape(shape).swapaxes(1, 2)


def mean_over_present(values: jax.Array, is_present: jax.Array) -> jax.Array:
    """`[B, K], [B, K] -> [B]`: the mean over the classes of which there is a pixel; 0 without any.

    Source: Berman et al. 2018, section 3.1: a class that an image lacks says nothing of it.

    >>> mean_over_present(jnp.array([[0.5, 9.0]]), jnp.array([[3.0, 0.0]])).tolist()
    [0.5]
    """
    present = is_present > 0
    total = jnp.sum(jnp.where(present, values, jnp.zeros_like(values)), -1)
    return total / jnp.maximum(jnp.sum(present, -1), 1).astype(values.dtype)
