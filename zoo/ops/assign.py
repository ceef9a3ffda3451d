"""Which box of the truth an anchor or a proposal stands for, and which of them are trained on."""

import chex
import jax
import jax.numpy as jnp
from jax import lax

BELOW, BETWEEN = -1, -2  # no match: background, and neither


def match_anchors(
    iou: jax.Array,
    valid: jax.Array,
    *,
    fg_iou_thresh: float,
    bg_iou_thresh: float,
    allow_low_quality_matches: bool = True,
) -> jax.Array:
    """`[N, A], [N] -> [A]` int32: the row of truth that each column overlaps with most.

    -1 where that IoU is below `bg_iou_thresh`, -2 from there up to `fg_iou_thresh`. With `allow_low_quality_matches` a column that
    is some valid row's best, equal ones included, is matched all the same: to the row that it
    overlaps with most itself. What overlaps with nothing is nobody's best, where torchvision gives
    a box outside of all anchors all of them. A column of -1 is left out: it is below, and nobody's
    best. Without a valid row all are -1. ValueError where low is above high.

    Source: torchvision's Matcher; Ren et al. 2015, Faster R-CNN, section 3.1.2.

    >>> iou = jnp.array([[0.8, 0.4, 0.1, 0.0], [0.0, 0.0, 0.2, 0.1]])
    >>> match_anchors(iou, jnp.array([True, True]), fg_iou_thresh=0.7, bg_iou_thresh=0.3).tolist()
    [0, -2, 1, -1]
    """
    if bg_iou_thresh > fg_iou_thresh:
        raise ValueError(f"low is at most high, got low {bg_iou_thresh}, high {fg_iou_thresh}")
    chex.assert_shape(iou, (len(valid), None))
    iou = jnp.where(valid[:, None], iou, jnp.full_like(iou, -1))
    best, row = jnp.max(iou, 0), jnp.argmax(iou, 0).astype(jnp.int32)
    least, enough = jnp.asarray(bg_iou_thresh, iou.dtype), jnp.asarray(fg_iou_thresh, iou.dtype)
    kind = jnp.where(best < least, jnp.full_like(row, BELOW), jnp.full_like(row, BETWEEN))
    matched = best >= enough
    if allow_low_quality_matches:
        most = jnp.max(iou, 1, keepdims=True)
        matched |= jnp.any((iou == most) & (most > 0), 0)
    return jnp.where(matched & jnp.any(valid), row, kind)


def sample_balanced(
    key: jax.Array,
    positive: jax.Array,
    negative: jax.Array,
    *,
    batch_size: int,
    positive_fraction: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`key, [A], [A] -> [count], [count], [count]`: indices (int32), which are positive, valid.

    Even draws without replacement: of the positive at most int(count * share), they stand first;
    the rest of the negative. Where there are too few of both the last are not valid, their indices 0.

    Source: torchvision's BalancedPositiveNegativeSampler.

    >>> positive, negative = jnp.arange(8) < 1, jnp.arange(8) >= 6
    >>> told = dict(batch_size=4, positive_fraction=0.5)
    >>> indices, is_positive, valid = sample_balanced(jax.random.key(0), positive, negative, **told)
    >>> sorted(indices[valid].tolist()), is_positive.tolist(), valid.tolist()
    ([0, 6, 7], [True, False, False, False], [True, True, True, False])
    """
    chex.assert_equal_shape([positive, negative])
    draws = jax.random.uniform(key, positive.shape)
    most = min(int(batch_size * positive_fraction), len(positive))
    first, first_some = _sample_mask(draws, positive, most)
    rest, rest_some = _sample_mask(draws, negative, min(batch_size, len(negative)))
    taken = jnp.sum(first_some, dtype=jnp.int32)
    place = jnp.arange(batch_size, dtype=jnp.int32)
    is_positive = place < taken
    valid = is_positive | (place < taken + jnp.sum(rest_some, dtype=jnp.int32))
    later = rest.at[place - taken].get(mode="fill", fill_value=0)
    # where there may be no positive, there is none to look up
    sooner = first.at[place].get(mode="fill", fill_value=0) if most else later
    indices = jnp.where(is_positive, sooner, later)
    return jnp.where(valid, indices, jnp.zeros_like(indices)), is_positive, valid


def _sample_mask(draws: jax.Array, among: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The `count` highest draws, with the least index, and whether they are `among` those meant."""
    values, indices = lax.top_k(jnp.where(among, draws, jnp.full_like(draws, -1)), count)
    return indices.astype(jnp.int32), values >= 0
