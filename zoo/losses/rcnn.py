"""What Faster R-CNN and Fast R-CNN minimize, from the samples that their outputs hold."""

from collections.abc import Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp

from zoo.losses.regression import smooth_l1

SIGMA_3 = 1 / 9  # as beta of smooth_l1


def rcnn_losses(
    outputs: Mapping[str, jax.Array],
    batch: Any = None,
    *,
    rpn_beta: float = SIGMA_3,
    roi_beta: float = SIGMA_3,
) -> dict[str, jax.Array]:
    """`{rpn_logits [B, n], roi_logits [B, R, K + 1], ...}, batch -> {name: [B]}`, to be summed.

    "rpn_objectness" and "rpn_boxes", where the model has proposals of its own, "roi_classes" and
    "roi_boxes": each the mean over an image's valid samples, of boxes the sum of the four numbers,
    which count for those samples alone that hold an object. 0 where an image has no samples. The
    batch says nothing more. torchvision divides by the batch's samples together, which is the same
    where all images have as many.

    rpn_beta, roi_beta: of smooth_l1; 1 / 9 is torchvision's for both, and py-faster-rcnn's sigma of
        3 in the RPN; Fast R-CNN and py-faster-rcnn's second stage have roi_beta=1.

    Source: Girshick 2015, Fast R-CNN, equations 1 to 3; Ren et al. 2015, Faster R-CNN, equation 1,
    normalized as in their code; torchvision's compute_loss and fastrcnn_loss.

    >>> outputs = {"roi_logits": jnp.zeros((1, 1, 2)), "roi_deltas": jnp.zeros((1, 1, 2, 4))}
    >>> outputs |= {"roi_labels": jnp.array([[1]]), "roi_valid": jnp.array([[True]])}
    >>> losses = rcnn_losses(outputs | {"roi_targets": jnp.ones((1, 1, 4))}, roi_beta=1.0)
    >>> {name: round(float(each[0]), 4) for name, each in losses.items()}
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
        far = box_loss(deltas, targets, beta=rpn_beta)
        losses["rpn_boxes"] = mean_over_samples(far, valid, counted=positive)
    logits, deltas, targets, labels, valid = (
        outputs[f"roi_{name}"] for name in ("logits", "deltas", "targets", "labels", "valid")
    )
    chex.assert_equal_shape_prefix([logits, labels, valid, targets], 2)
    own = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1)[..., 0]
    losses["roi_classes"] = mean_over_samples(-own, valid)
    deltas = jnp.take_along_axis(deltas, labels[..., None, None], 2)[:, :, 0]
    far = box_loss(deltas, targets, beta=roi_beta)
    losses["roi_boxes"] = mean_over_samples(far, valid, counted=labels > 0)
    return losses


def box_loss(deltas: jax.Array, targets: jax.Array, *, beta: float) -> jax.Array:
    """`[B, n, 4], [B, n, 4] -> [B, n]`: smooth L1, the sum over the four.

    Source: Girshick 2015, Fast R-CNN, equation 2.

    >>> box_loss(jnp.ones((1, 1, 4)), jnp.zeros((1, 1, 4)), beta=1.0).tolist()
    [[2.0]]
    """
    of_one = jax.vmap(lambda a, b: smooth_l1(a, b, beta=beta))
    return deltas.shape[-1] * of_one(deltas, targets.astype(deltas.dtype))


def mean_over_samples(
    values: jax.Array, valid: jax.Array, *, counted: jax.Array | None = None
) -> jax.Array:
    """`[B, n], [B, n] -> [B]`: the sum of the valid values by the number of valid samples.

    Of the values only those `counted` [B, n], where given: the number stays that of the valid.

    Source: the code of Faster R-CNN, which divides the loss of boxes by all samples too.

    >>> valid, values = jnp.array([[True, True, False]]), jnp.array([[1.0, 3.0, 9.0]])
    >>> mean_over_samples(values, valid, counted=jnp.array([[True, False, True]])).tolist()
    [0.5]
    """
    kept = valid if counted is None else valid & counted
    total = jnp.sum(jnp.where(kept, values, jnp.zeros_like(values)), 1)
    return total / jnp.maximum(jnp.sum(valid, 1), 1).astype(total.dtype)
