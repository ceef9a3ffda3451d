"""stub"""

import jax, jax.numpy as jnp


def roi_align(features, boxes, *, size, scale, sampling=2, aligned=False):
    H, W, C = features.shape
    off = 0.5 if aligned else 0.0
    b = boxes * scale - off
    w, h = b[:, 2] - b[:, 0], b[:, 3] - b[:, 1]
    if not aligned:
        w, h = jnp.maximum(w, 1), jnp.maximum(h, 1)

    def weights(start, side, n, full):
        step = side / n
        at = start[:, None, None] + step[:, None, None] * (
            jnp.arange(n)[None, :, None] + (jnp.arange(sampling)[None, None, :] + 0.5) / sampling
        )
        out = (at < -1) | (at > full)
        at = jnp.maximum(at, 0)
        low = jnp.floor(at)
        edge = low >= full - 1
        low = jnp.where(edge, full - 1, low)
        frac = jnp.where(edge, 0.0, at - low)
        low = low.astype(jnp.int32)
        high = jnp.minimum(low + 1, full - 1)
        grid = jnp.arange(full).reshape(1, 1, 1, -1)
        m = (1 - frac)[..., None] * (low[..., None] == grid) + frac[..., None] * (
            high[..., None] == grid
        )
        m = jnp.where(out[..., None], 0.0, m)
        return m.mean(2).astype(features.dtype)

    wy = weights(b[:, 1], h, size[0], H)
    wx = weights(b[:, 0], w, size[1], W)
    return jnp.einsum("rhy,rwx,yxc->rhwc", wy, wx, features)


def roi_pool(features, boxes, *, size, scale):
    H, W, C = features.shape
    x0, y0, x1, y1 = jnp.round(boxes * scale).T

    def mask(a, b, n, full):
        side = jnp.maximum(b - a + 1, 1)
        step = side / n
        lo = jnp.clip(jnp.floor(step[:, None] * jnp.arange(n)[None]) + a[:, None], 0, full)
        hi = jnp.clip(jnp.ceil(step[:, None] * (jnp.arange(n)[None] + 1)) + a[:, None], 0, full)
        g = jnp.arange(full).reshape(1, 1, -1)
        return (g >= lo[..., None]) & (g < hi[..., None])

    my, mx = mask(y0, y1, size[0], H), mask(x0, x1, size[1], W)
    t = jnp.where(my[:, :, :, None, None], features[None, None], -jnp.inf).max(2)
    t = jnp.where(mx[:, None, :, :, None], t[:, :, None], -jnp.inf).max(3)
    return jnp.where(jnp.isfinite(t), t, 0)


def pyramid_roi_align(features, boxes, level, *, size, scales, sampling=2, aligned=False):
    found = 0
    for k, (x, scale) in enumerate(zip(features, scales)):
        p = roi_align(x, boxes, size=size, scale=scale, sampling=sampling)
        found = found + jnp.where((level == k)[:, None, None, None], p, 0)
    return found
