"""stub"""

import jax, jax.numpy as jnp


def match(iou, valid, *, high, low, low_quality=True):
    iou = jnp.where(valid[:, None], iou, -1.0)
    best, arg = iou.max(0), iou.argmax(0)
    out = jnp.where(best >= high, arg, jnp.where(best < low, -1, -2))
    if low_quality:
        row = iou.max(1, keepdims=True)
        out = jnp.where(((iou == row) & valid[:, None] & (row > 0)).any(0), arg, out)
    return out.astype(jnp.int32)


def sample(key, positive, negative, *, count, share):
    a, b = jax.random.split(key)
    n = positive.shape[0]
    if n < count:
        pad = (0, count - n)
        positive, negative = jnp.pad(positive, pad), jnp.pad(negative, pad)
    pos = jnp.where(positive, 1 + jax.random.uniform(a, positive.shape), 0)
    rank = jnp.argsort(jnp.argsort(-pos))
    kept = positive & (rank < int(count * share))
    neg = jnp.where(negative, 1 + jax.random.uniform(b, negative.shape), 0)
    rankn = jnp.argsort(jnp.argsort(-neg))
    keptn = negative & (rankn < count - kept.sum())
    key2 = jnp.where(kept, 2, jnp.where(keptn, 1, 0))
    top, idx = jax.lax.top_k(key2, count)
    return jnp.minimum(idx, n - 1).astype(jnp.int32), top == 2, top > 0
