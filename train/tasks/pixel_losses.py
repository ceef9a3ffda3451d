"""Losses of segmentation: of pixels or images, or a sum of several."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from zoo import losses
from zoo.lookup import lookup

LossName = Literal["cross_entropy", "focal", "dice", "lovasz"]
LOSSES: dict[str, Callable] = {
    "cross_entropy": losses.pixel_cross_entropy,
    "focal": losses.focal_loss,
    "dice": losses.dice_loss,
    "lovasz": losses.lovasz_softmax,
}


def lookup_losses(
    loss: LossName | Callable | Sequence[LossName | Callable],
) -> tuple[Callable, ...]:
    """Returns loss functions by name.

    Args:
        loss: a name, a function of logits [B, H, W, K] and mask [B, H, W] that returns [B, H, W] or
            [B], or several of them.

    Returns:
        The functions.

    Raises:
        ValueError: if no loss is given or a name is unknown.
    """
    several = [loss] if isinstance(loss, str) or callable(loss) else list(loss)
    if not several:
        raise ValueError(f"expected a loss or several to be summed, {', '.join(LOSSES)}; got none")
    return tuple(
        lookup(LOSSES, one, kind="loss") if isinstance(one, str) else one for one in several
    )


def pixel_loss(
    laws: Sequence[Callable], logits: jax.Array, mask: jax.Array, weight: jax.Array
) -> jax.Array:
    """Computes the sum of several losses, which sum(weight) divides.

    The loss of an image is multiplied by the weight of its pixels. Therefore one division computes
    the mean for any split of the batch.

    Args:
        laws: loss functions.
        logits: logits [B, H, W, K].
        mask: ground truth [B, H, W].
        weight: weights [B, H, W].

    Returns:
        The sum [].
    """
    total = jnp.zeros(())
    for law in laws:
        each = law(logits, mask)
        total = total + jnp.sum(each * (weight if each.ndim == 3 else jnp.sum(weight, (1, 2))))
    return total


def align_logits(logits: Any, *maps: Any) -> tuple[Any, ...]:
    """Crops logits [B, h, w, K] and maps [B, H, W, ...] of jax or numpy to their common center.

    >>> [x.shape for x in align_logits(jnp.zeros((1, 4, 8, 2)), jnp.zeros((1, 6, 6)))]
    [(1, 4, 6, 2), (1, 4, 6)]
    """
    sizes = [x.shape[1:3] for x in (logits, *maps)]
    size = tuple(map(min, *sizes))
    return tuple(center_crop(x, size) for x in (logits, *maps))


def center_crop(x: Any, size: Sequence[int]) -> Any:
    """Crops the center [B, *size, ...] of an array [B, H, W, ...]."""
    top, left = ((whole - part) // 2 for whole, part in zip(x.shape[1:3], size, strict=True))
    return x[:, top : top + size[0], left : left + size[1]]
