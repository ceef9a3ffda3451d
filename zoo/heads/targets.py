"""What a detector is told of its images."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

Targets = Mapping[str, jax.Array]
BOX_KEYS = ("boxes", "labels", "box_valid")


def image_sizes(image: jax.Array, targets: Targets | None) -> jax.Array:
    """`[B, H, W, C], {size [B, 2]} or None -> [B, 2]`: the pictures' heights and widths.

    Without a word of it the whole canvas is picture.

    >>> image_sizes(jnp.zeros((2, 8, 9, 3)), None).tolist()
    [[8, 9], [8, 9]]
    """
    if targets is not None and "size" in targets:
        return targets["size"]
    return jnp.broadcast_to(jnp.array(image.shape[1:3], jnp.int32), (len(image), 2))


def require_keys(
    targets: Targets | None, *, keys: Sequence[str] = BOX_KEYS
) -> dict[str, jax.Array]:
    """`{boxes [B, N, 4], labels [B, N], box_valid [B, N], ...} -> these alone`; ValueError where
    some of them are missing.

    >>> require_keys(None)
    Traceback (most recent call last):
    ValueError: in training this detector takes the truth, {boxes, labels, box_valid}, as its second argument: boxes, labels, box_valid are missing
    """
    missing = [name for name in keys if targets is None or name not in targets]
    if targets is None or missing:
        raise ValueError(
            f"in training this detector takes the truth, {{{', '.join(keys)}}}, as its second "
            f"argument: {', '.join(missing)} are missing"
        )
    return {name: targets[name] for name in keys}
