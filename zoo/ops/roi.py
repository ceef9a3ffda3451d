"""Regions of a map, each brought to one size: RoIAlign and RoI pooling."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from zoo.ops.window import wide


class Grid(NamedTuple):
    start: jax.Array
    step: jax.Array
    samples: jax.Array
    shape: jax.Array
    offset: jax.Array


def roi_align(features, boxes, *, size, scale, sampling=2, aligned=False):
    return pyramid_roi_align([features], boxes, jnp.zeros(len(boxes), jnp.int32), size=size, scales=(scale,), sampling=sampling, aligned=aligned)


def pyramid_roi_align(features, boxes, level, *, size, scales, sampling=2, aligned=False):
    shapes = np.array([each.shape[:2] for each in features])
    offsets = np.cumsum([0, *shapes.prod(1)])[:-1]
    scale = jnp.asarray(scales, boxes.dtype)[level][:, None]
    shape = jnp.asarray(shapes, jnp.int32)[level]
    usable = jnp.all(jnp.isfinite(boxes), -1, keepdims=True)
    boxes = jnp.where(usable, boxes, jnp.zeros_like(boxes)) * scale
    if aligned:
        boxes = boxes - 0.5
    start = boxes[:, 1::-1]
    sides = boxes[:, :1:-1] - start
    if not aligned:
        sides = jnp.maximum(sides, 1)
    step = sides / jnp.asarray(size, boxes.dtype)
    if sampling > 0:
        samples = jnp.full(shape.shape, sampling, jnp.int32)
    else:
        most = 2 * -(-shape // jnp.asarray(size, jnp.int32))
        samples = jnp.clip(jnp.ceil(step), 0, most.astype(step.dtype)).astype(jnp.int32)
    samples = jnp.where(usable, samples, 0)
    grid = Grid(start, step, samples, shape, jnp.asarray(offsets, jnp.int32)[level])
    flat = [each.reshape(-1, each.shape[-1]) for each in features]
    flat = flat[0] if len(flat) == 1 else jnp.concatenate(flat)
    return _align(flat, grid, tuple(size))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _align(flat, grid, size):
    return _forward(flat, grid, size)

def _align_fwd(flat, grid, size):
    return _forward(flat, grid, size), (jax.eval_shape(lambda: flat), grid) if False else (flat[:, :0], grid)

MODE='chunk'; CHUNK=8; BCHUNK=8
def _forward(flat, grid, size):
    acc = wide(flat.dtype)
    def some(grid):
        def body(k, out):
            idx, w = _sample(grid, size, k)
            rows = flat.at[idx].get(mode='promise_in_bounds').astype(acc)
            return out + (rows * w.astype(acc)[..., None]).sum(-2)
        def body2(k, out):
            idx, w = _sample(grid, size, k)
            for c in range(4):
              out = out + flat.at[idx[..., c]].get(mode='promise_in_bounds').astype(acc) * w[..., c, None].astype(acc)
            return out
        n = jnp.max(grid.samples.prod(1)) 
        zero=jnp.zeros((len(grid.start), *size, flat.shape[1]), acc)
        if MODE.endswith('unroll'):
            for k in range(4): zero=body2(k,zero)
            return zero
        return lax.fori_loop(0, n, body2, zero)
    R=len(grid.start)
    if MODE.startswith('chunk'):
        chunks=jax.tree.map(lambda x: x.reshape(-1,CHUNK,*x.shape[1:]),grid)
        out=lax.map(some,chunks).reshape(R,*size,-1)
    else: out=some(grid)
    return out.astype(flat.dtype)

def _align_bwd(size, kept, g):
    like, grid = kept
    acc = wide(like.dtype)
    R=len(grid.start)
    chunks=jax.tree.map(lambda x: x.reshape(-1,BCHUNK,*x.shape[1:]),(grid,g.astype(acc)))
    def step(a, x):
        grid, g = x
        def body(k, a):
            idx, w = _sample(grid, size, k)
            return a.at[idx].add(w.astype(acc)[..., None]*g[..., None, :], mode='promise_in_bounds')
        if MODE.endswith('unroll'):
            idx,w=jax.tree.map(lambda *x: jnp.concatenate(x,-1),*[_sample(grid,size,k) for k in range(4)])
            return a.at[idx].add(w.astype(acc)[..., None]*g[..., None, :], mode='promise_in_bounds'),None
        return lax.fori_loop(0, jnp.max(grid.samples.prod(1)), body, a), None
    a,_=lax.scan(step, jnp.zeros((like.shape[0], g.shape[-1]), acc), chunks)
    return a.astype(like.dtype), jax.tree.map(lambda x: np.zeros(x.shape, jax.dtypes.float0) if x.dtype==jnp.int32 else jnp.zeros_like(x), grid)

_align.defvjp(_align_fwd, _align_bwd)

def _sample(grid, size, k):
    ny, nx = grid.samples[:, 0], jnp.maximum(grid.samples[:, 1],1)
    use = k < ny * grid.samples[:,1]
    count = ny*nx
    def axis(which, number, bins, n):
        limit = grid.shape[:, which, None]
        lim=limit.astype(grid.start.dtype)
        inner = (number.astype(grid.start.dtype) + 0.5) / jnp.maximum(n,1).astype(grid.start.dtype)
        p = grid.start[:, which, None] + (jnp.arange(bins, dtype=grid.start.dtype)[None] + inner[:, None]) * grid.step[:, which, None]
        ok = (p >= -1) & (p <= lim) & use[:, None]
        p = jnp.clip(jnp.where(ok, p, 0), 0, lim - 1)
        lo = jnp.floor(p).astype(jnp.int32)
        hi = jnp.minimum(lo + 1, limit - 1)
        f = p - lo.astype(p.dtype)
        return jnp.stack([lo, hi],-1), jnp.where(ok[...,None], jnp.stack([1 - f, f],-1), 0)
    yi, yw = axis(0, k // nx, size[0], ny)
    xi, xw = axis(1, k % nx, size[1], nx)
    yw = yw / jnp.maximum(count,1).astype(yw.dtype)[:,None,None]
    idx = (grid.offset[:,None,None]+yi*grid.shape[:, 1,None,None])[:, :, None, :, None] + xi[:, None, :, None, :]
    w = yw[:, :, None, :, None] * xw[:, None, :, None, :]
    return idx.reshape(len(idx), *size, 4), w.reshape(len(idx), *size, 4)
