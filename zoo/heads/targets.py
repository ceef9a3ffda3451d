"""What a detector is told of its images."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

Truth = Mapping[str, jax.Array]
BOXES = ("boxes", "labels", "box_valid")


def sizes_of(image: jax.Array, truth: Truth | None) -> jax.Array:
    """`[B, H, W, C], {size [B, 2]} or None -> [B, 2]`: the pictures' heights and widths.

    Without a word of it the whole canvas is picture.

    >>> sizes_of(jnp.zeros((2, 8, 9, 3)), None).tolist()
    [[8, 9], [8, 9]]
    """
    if truth is not None and "size" in truth:
        return truth["size"]
    return jnp.broadcast_to(jnp.array(image.shape[1:3], jnp.int32), (len(image), 2))


def told(truth: Truth | None, *, names: Sequence[str] = BOXES) -> dict[str, jax.Array]:
    """`{boxes [B, N, 4], labels [B, N], box_valid [B, N], ...} -> these alone`; ValueError where
    some of them are missing.

    >>> told(None)
    Traceback (most recent call last):
    ValueError: in training this detector takes the truth, {boxes, labels, box_valid}, as its second argument: boxes, labels, box_valid are missing
    """
    missing = [name for name in names if truth is None or name not in truth]
    if truth is None or missing:
        raise ValueError(
            f"in training this detector takes the truth, {{{', '.join(names)}}}, as its second "
            f"argument: {', '.join(missing)} are missing"
        )
    return {name: truth[name] for name in names}
