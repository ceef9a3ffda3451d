"""Losses of Faster R-CNN and Fast R-CNN on the samples in the model's outputs."""

from collections.abc import Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp

from zoo.losses.regression import smooth_l1

SIGMA_3 = 1 / 9  # beta of smooth_l1 for sigma = 3


def rcnn_losses(
    outputs: Mapping[str, jax.Array],
    batch: Any = None,
    *,
    rpn_beta: float = SIGMA_3,
    roi_beta: float = SIGMA_3,
) -> dict[str, jax.Array]:
    """Computes the classification and box losses of the RPN and of the RoI head.

    Each loss is the mean over the valid samples of an image. The box losses sum over the four
    coordinates and count only samples with an object. An image without samples has a loss of 0.
    torchvision divides by the samples of the whole batch, which is the same if all images have
    equally many.

    Args:
        outputs: outputs of a detector in training: `rpn_logits` [B, n], `roi_logits` [B, R, K + 1],
            ...
        batch: not used; losses of other detectors need it.
        rpn_beta: beta of smooth_l1 in the RPN. 1 / 9 is torchvision's, and py-faster-rcnn's sigma
            of 3.
        roi_beta: beta of smooth_l1 in the head. torchvision uses 1 / 9, Fast R-CNN and
            py-faster-rcnn 1.

    Returns:
        `rpn_objectness` and `rpn_boxes` (if the model has an RPN), `roi_classes` and `roi_boxes`,
        each [B].

    Source: Girshick 2015, Fast R-CNN, equations 1 to 3; Ren et al. 2015, Faster R-CNN, equation 1,
    normalized as in their code; torchvision's compute_loss and fastrcnn_loss.

    >>> outputs = {"roi_logits": jnp.zeros((1, 1, 2)), "roi_deltas": jnp.zeros((1, 1, 2, 4))}
    >>> outputs |= {"roi_labels": jnp.array([[1]]), "roi_valid": jnp.array([[True]])}
    >>> losses = rcnn_losses(outputs | {"roi_targets": jnp.ones((1, 1, 4))}, roi_beta=1.0)
    >>> {name: round(float(loss[0]), 4) for name, loss in losses.items()}
    {'roi_classes': 0.6931, 'roi_boxes': 2.0}
    """
    del batch
    losses = {}
    if "rpn_logits" in outputs:
        logits, deltas, targets, positive, valid = (
            outputs[f"rpn_{name}"] for name in ("logits", "deltas", "targets", "positive", "valid")
        )
        entropy = jax.nn.softplus(jnp.where(positive, -logits, logits))
        losses["rpn_objectness"] = mean_over_samples(entropy, valid)
        box_losses = box_loss(deltas, targets, beta=rpn_beta)
        losses["rpn_boxes"] = mean_over_samples(box_losses, valid, counted=positive)
    logits, deltas, targets, labels, valid = (
        outputs[f"roi_{name}"] for name in ("logits", "deltas", "targets", "labels", "valid")
    )
    chex.assert_equal_shape_prefix([logits, labels, valid, targets], 2)
    log_probability = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1)[..., 0]
    losses["roi_classes"] = mean_over_samples(-log_probability, valid)
    deltas = jnp.take_along_axis(deltas, labels[..., None, None], 2)[:, :, 0]
    box_losses = box_loss(deltas, targets, beta=roi_beta)
    losses["roi_boxes"] = mean_over_samples(box_losses, valid, counted=labels > 0)
    return losses


def box_loss(deltas: jax.Array, targets: jax.Array, *, beta: float) -> jax.Array:
    """Sums the smooth L1 loss over the four box coordinates.

    Args:
        deltas: predicted offsets [B, n, 4].
        targets: encoded ground truth [B, n, 4].
        beta: see `smooth_l1`.

    Returns:
        Losses [B, n].

    Source: Girshick 2015, Fast R-CNN, equation 2.

    >>> box_loss(jnp.ones((1, 1, 4)), jnp.zeros((1, 1, 4)), beta=1.0).tolist()
    [[2.0]]
    """
    per_box = jax.vmap(lambda a, b: smooth_l1(a, b, beta=beta))
    return deltas.shape[-1] * per_box(deltas, targets.astype(deltas.dtype))


def mean_over_samples(
    values: jax.Array, valid: jax.Array, *, counted: jax.Array | None = None
) -> jax.Array:
    """Divides the sum of the valid values by the number of valid samples.

    Args:
        values: values [B, n].
        valid: samples that count in the denominator [B, n] bool.
        counted: samples that count in the numerator [B, n] bool; all if not given.

    Returns:
        Means [B].

    Source: The code of Faster R-CNN, which divides the box loss by all samples.

    >>> valid, values = jnp.array([[True, True, False]]), jnp.array([[1.0, 3.0, 9.0]])
    >>> mean_over_samples(values, valid, counted=jnp.array([[True, False, True]])).tolist()
    [0.5]
    """
    is_counted = valid if counted is None else valid & counted
    total = jnp.sum(jnp.where(is_counted, values, jnp.zeros_like(values)), 1)
    return total / jnp.maximum(jnp.sum(valid, 1), 1).astype(total.dtype)
