"""Assignment of ground truth to anchors or proposals, and balanced sampling."""

import chex
import jax
import jax.numpy as jnp
from jax import lax

BELOW, BETWEEN = -1, -2  # not matched: background, and neither background nor foreground


def match_anchors(
    iou: jax.Array,
    valid: jax.Array,
    *,
    fg_iou_thresh: float,
    bg_iou_thresh: float,
    allow_low_quality_matches: bool = True,
) -> jax.Array:
    """Matches each anchor with the ground truth box that it overlaps most.

    Differs from torchvision in one case: a ground truth box that overlaps no anchor is matched to
    no anchor, where torchvision matches it to all of them.

    Args:
        iou: IoU of N ground truth boxes and A anchors [N, A]. A column of -1 excludes an anchor: it
            becomes background and is never the best match of a box.
        valid: ground truth rows that are not padding [N] bool.
        fg_iou_thresh: an anchor with at least this IoU is matched.
        bg_iou_thresh: an anchor below this IoU is background.
        allow_low_quality_matches: also match the anchors that overlap a box most, whatever their
            IoU; each is matched to the row that it overlaps most itself.

    Returns:
        Row index of the matched box [A] int32; -1 for background, -2 for anchors between the
        thresholds.

    Raises:
        ValueError: if `bg_iou_thresh` is above `fg_iou_thresh`.

    Source: torchvision's Matcher; Ren et al. 2015, Faster R-CNN, section 3.1.2.

    >>> iou = jnp.array([[0.8, 0.4, 0.1, 0.0], [0.0, 0.0, 0.2, 0.1]])
    >>> match_anchors(iou, jnp.array([True, True]), fg_iou_thresh=0.7, bg_iou_thresh=0.3).tolist()
    [0, -2, 1, -1]
    """
    if bg_iou_thresh > fg_iou_thresh:
        raise ValueError(
            f"expected bg_iou_thresh <= fg_iou_thresh, got {bg_iou_thresh} and {fg_iou_thresh}"
        )
    chex.assert_shape(iou, (len(valid), None))
    iou = jnp.where(valid[:, None], iou, jnp.full_like(iou, -1))
    best, row = jnp.max(iou, 0), jnp.argmax(iou, 0).astype(jnp.int32)
    low, high = jnp.asarray(bg_iou_thresh, iou.dtype), jnp.asarray(fg_iou_thresh, iou.dtype)
    unmatched = jnp.where(best < low, jnp.full_like(row, BELOW), jnp.full_like(row, BETWEEN))
    matched = best >= high
    if allow_low_quality_matches:
        best_per_row = jnp.max(iou, 1, keepdims=True)
        matched |= jnp.any((iou == best_per_row) & (best_per_row > 0), 0)
    return jnp.where(matched & jnp.any(valid), row, unmatched)


def sample_balanced(
    key: jax.Array,
    positive: jax.Array,
    negative: jax.Array,
    *,
    batch_size: int,
    positive_fraction: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Samples a fixed number of positive and negative examples without replacement.

    Args:
        key: random key.
        positive: candidates for positive samples [A] bool.
        negative: candidates for negative samples [A] bool.
        batch_size: number of samples.
        positive_fraction: at most `int(batch_size * positive_fraction)` samples are positive.

    Returns:
        Indices [batch_size] int32 with the positive ones first, `is_positive` [batch_size] bool and
        `valid` [batch_size] bool. Where there are too few candidates the last samples are invalid
        and their index is 0.

    Source: torchvision's BalancedPositiveNegativeSampler.

    >>> positive, negative = jnp.arange(8) < 1, jnp.arange(8) >= 6
    >>> options = dict(batch_size=4, positive_fraction=0.5)
    >>> samples = sample_balanced(jax.random.key(0), positive, negative, **options)
    >>> indices, is_positive, valid = samples
    >>> sorted(indices[valid].tolist()), is_positive.tolist(), valid.tolist()
    ([0, 6, 7], [True, False, False, False], [True, True, True, False])
    """
    chex.assert_equal_shape([positive, negative])
    draws = jax.random.uniform(key, positive.shape)
    max_positive = min(int(batch_size * positive_fraction), len(positive))
    positives, positive_found = _sample_mask(draws, positive, max_positive)
    negatives, negative_found = _sample_mask(draws, negative, min(batch_size, len(negative)))
    num_positive = jnp.sum(positive_found, dtype=jnp.int32)
    position = jnp.arange(batch_size, dtype=jnp.int32)
    is_positive = position < num_positive
    valid = is_positive | (position < num_positive + jnp.sum(negative_found, dtype=jnp.int32))
    negative_index = negatives.at[position - num_positive].get(mode="fill", fill_value=0)
    # with max_positive = 0 the array of positives is empty and cannot be indexed
    positive_index = (
        positives.at[position].get(mode="fill", fill_value=0) if max_positive else negative_index
    )
    indices = jnp.where(is_positive, positive_index, negative_index)
    return jnp.where(valid, indices, jnp.zeros_like(indices)), is_positive, valid


def _sample_mask(
    draws: jax.Array, candidates: jax.Array, count: int
) -> tuple[jax.Array, jax.Array]:
    """Returns the indices of the `count` highest draws and whether each is a candidate."""
    values, indices = lax.top_k(jnp.where(candidates, draws, jnp.full_like(draws, -1)), count)
    return indices.astype(jnp.int32), values >= 0
