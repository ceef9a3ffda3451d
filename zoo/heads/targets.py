"""Ground truth arguments of detectors."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

Targets = Mapping[str, jax.Array]
BOX_KEYS = ("boxes", "labels", "box_valid")


def image_sizes(image: jax.Array, targets: Targets | None) -> jax.Array:
    """Returns the size of each image on its canvas; the whole canvas if not given.

    Args:
        image: padded images [B, H, W, C].
        targets: may hold `size` [B, 2].

    Returns:
        Heights and widths [B, 2].

    >>> image_sizes(jnp.zeros((2, 8, 9, 3)), None).tolist()
    [[8, 9], [8, 9]]
    """
    if targets is not None and "size" in targets:
        return targets["size"]
    return jnp.broadcast_to(jnp.array(image.shape[1:3], jnp.int32), (len(image), 2))


def require_keys(
    targets: Targets | None, *, keys: Sequence[str] = BOX_KEYS
) -> dict[str, jax.Array]:
    """Selects the required keys of the ground truth.

    Args:
        targets: ground truth: `boxes` [B, N, 4], `labels` [B, N], `box_valid` [B, N], ...
        keys: required keys.

    Returns:
        The required entries.

    Raises:
        ValueError: if a key is missing.

    >>> require_keys(None)
    Traceback (most recent call last):
    ValueError: expected targets with boxes, labels, box_valid in training, got none
    """
    missing = [name for name in keys if targets is None or name not in targets]
    if targets is None or missing:
        raise ValueError(
            f"expected targets with {', '.join(keys)} in training, "
            f"got {', '.join(targets or ()) or 'none'}"
        )
    return {name: targets[name] for name in keys}
