"""What a segmenter's logits cost: a loss of pixels or of whole images, or a sum of several."""

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
    """A name, a function logits [B, H, W, K], mask [B, H, W] -> [B, H, W] or [B], or several."""
    several = [loss] if isinstance(loss, str) or callable(loss) else list(loss)
    if not several:
        raise ValueError(f"expected a loss or several to be summed, {', '.join(LOSSES)}; got none")
    return tuple(
        lookup(LOSSES, one, kind="loss") if isinstance(one, str) else one for one in several
    )


def pixel_loss(
    laws: Sequence[Callable], logits: jax.Array, mask: jax.Array, weight: jax.Array
) -> jax.Array:
    """[B, H, W, K], [B, H, W], weights [B, H, W] -> []: the sum that sum(weight) divides.

    A loss of an image counts as much as its pixels weigh together, so that one division makes the
    mean of all, over any split of the batch.
    """
    total = jnp.zeros(())
    for law in laws:
        each = law(logits, mask)
        total = total + jnp.sum(each * (weight if each.ndim == 3 else jnp.sum(weight, (1, 2))))
    return total


def align_logits(logits: Any, *maps: Any) -> tuple[Any, ...]:
    """Logits [B, h, w, K], maps [B, H, W, ...] -> all of them, cut to the middle that they share.

    Arrays of jax or numpy.

    >>> [x.shape for x in align_logits(jnp.zeros((1, 4, 8, 2)), jnp.zeros((1, 6, 6)))]
    [(1, 4, 6, 2), (1, 4, 6)]
    """
    sizes = [x.shape[1:3] for x in (logits, *maps)]
    size = tuple(map(min, *sizes))
    return tuple(center_crop(x, size) for x in (logits, *maps))


def center_crop(x: Any, size: Sequence[int]) -> Any:
    """[B, H, W, ...] -> [B, *size, ...]."""
    top, left = ((whole - part) // 2 for whole, part in zip(x.shape[1:3], size, strict=True))
    return x[:, top : top + size[0], left : left + size[1]]
