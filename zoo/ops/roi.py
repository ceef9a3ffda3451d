"""Regions of a map, each brought to one size: RoIAlign of one map or of a pyramid, RoI pooling.

Each takes a first pixel of all cells, then a second, as often as the largest cell asks for; the
gradient, to the map alone, goes back the same way. On a CPU the gradient, and pooling, go by eight
regions at a time: XLA:CPU adds rows to a map much faster where what it adds is in the cache, and
small regions take few turns. Milliseconds of CPU time, float32, two cores with AVX-512, jax 0.10.1,
128 regions to 7 x 7 x 256, of a map of 38 x 63 and of one of 200 x 304 (forward, the gradient):

    RoIAlign, 2 x 2 samples: all pixels, then their sum    57, 55     63, 108
        products with matrices [R, 7, H] and [R, 7, W]     26, 56     780, 750
        sample after sample, the gradient at once          1.5, 55    5.2, 108
        sample after sample, the gradient by 8 regions     1.5, 6.3   5.2, 42
    RoIAlign, as many samples as the cell has pixels       4.4, 13    17, 55
    pooling, all regions at once                           26, 30     38, 82
        by 8 regions                                       11, 20

Of the 42 most are the gradient's map of 62 MB itself.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from zoo.ops.chunked import batch_max, chunk, fori_loop, scan_chunks
from zoo.ops.conv_spec import accumulation_dtype

OUT_OF_RANGE = float(2**20)  # pixels of the map, where boxes end at the latest that are pooled


def roi_align(
    features: jax.Array,
    boxes: jax.Array,
    *,
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int = 2,
    aligned: bool = False,
) -> jax.Array:
    """`[H, W, C], [R, 4] -> [R, h, w, C]`, (h, w) = `output_size`: means of interpolated samples.

    `spatial_scale` is pixels of the map per pixel of the boxes. A cell has `sampling_ratio` x `sampling_ratio` samples;
    with -1 one for each pixel of the map that it is high and wide, rounded up, which is exact for
    boxes up to twice as large as the map; larger ones have no more. Samples more than a pixel
    outside of the map are 0, as is all of a box that is not finite. `aligned` puts the center of
    pixel i at i + 0.5; without it boxes lie half a pixel off and are a pixel large at least, as the
    first published implementations have them. The gradient is to `features`, boxes get none.

    Source: He et al. 2017, Mask R-CNN, section 3; torchvision.ops.roi_align.

    >>> ramp = jnp.arange(4.0).reshape(1, 4, 1)
    >>> box = jnp.array([[0.0, 0.0, 8.0, 2.0]])
    >>> roi_align(ramp, box, output_size=(1, 2), spatial_scale=0.5, aligned=True).ravel().tolist()
    [0.5, 2.5]
    """
    return pyramid_roi_align(
        [features],
        boxes,
        jnp.zeros(len(boxes), jnp.int32),
        output_size=output_size,
        spatial_scales=(spatial_scale,),
        sampling_ratio=sampling_ratio,
        aligned=aligned,
    )


def pyramid_roi_align(
    features: Sequence[jax.Array],
    boxes: jax.Array,
    level: jax.Array,
    *,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    sampling_ratio: int = 2,
    aligned: bool = False,
) -> jax.Array:
    """`[[H, W, C], ...], [R, 4], [R] -> [R, h, w, C]`: `roi_align`, each box of the map `level`.

    `spatial_scales` has a number for each map. It costs as much as of one map, and a copy of all maps.

    Source: Lin et al. 2017, Feature Pyramid Networks, section 4.2; torchvision.ops.MultiScaleRoIAlign.

    >>> maps, boxes = [jnp.zeros((4, 4, 1)), jnp.ones((2, 2, 1))], jnp.array([[0.0, 0, 8, 8]] * 2)
    >>> level = jnp.array([0, 1])
    >>> pyramid_roi_align(maps, boxes, level, output_size=(1, 1), spatial_scales=(0.5, 0.25)).ravel().tolist()
    [0.0, 1.0]
    """
    chex.assert_rank([boxes, *features], [2] + [3] * len(features))
    chex.assert_equal(len(features), len(spatial_scales))
    double = jnp.float64 in (boxes.dtype, features[0].dtype)
    boxes = boxes.astype(jnp.float64 if double else jnp.float32)
    shapes = np.array([each.shape[:2] for each in features])
    offsets = np.cumsum([0, *shapes.prod(1)[:-1]])
    usable = jnp.all(jnp.isfinite(boxes), -1, keepdims=True)
    boxes = jnp.where(usable, boxes, jnp.zeros_like(boxes))
    boxes = boxes * jnp.asarray(spatial_scales, boxes.dtype)[level][:, None]
    boxes = boxes - jnp.asarray(0.5 if aligned else 0.0, boxes.dtype)
    start, sides = boxes[:, 1::-1], boxes[:, :1:-1] - boxes[:, 1::-1]
    step = (sides if aligned else jnp.maximum(sides, jnp.ones_like(sides))) / _row_like(
        output_size, boxes
    )
    shape = jnp.asarray(shapes, jnp.int32)[level]
    if sampling_ratio > 0:
        samples = jnp.full_like(shape, sampling_ratio)
    else:
        most = 2 * -(-shape // jnp.asarray([output_size], jnp.int32))
        samples = jnp.ceil(step).clip(jnp.zeros_like(step), most.astype(step.dtype))
    samples = jnp.where(usable, samples.astype(jnp.int32), jnp.zeros_like(shape))
    offset = jnp.asarray(offsets, jnp.int32)[level]
    flat = [each.reshape(-1, each.shape[-1]) for each in features]
    flat = flat[0] if len(flat) == 1 else jnp.concatenate(flat)
    count = sampling_ratio**2 if sampling_ratio > 0 else None
    return _align(flat, _SampleGrid(start, step, samples, shape, offset), tuple(output_size), count)


def roi_pool(
    features: jax.Array, boxes: jax.Array, *, output_size: tuple[int, int], spatial_scale: float
) -> jax.Array:
    """`[H, W, C], [R, 4] -> [R, h, w, C]`, (h, w) = `output_size`: the largest of each cell's pixels.

    The box's ends, times `spatial_scale`, are rounded to pixels of the map, both inclusive, a half away from
    0; cell i of a side of n pixels has those from floor(i n / h) up to ceil((i + 1) n / h), so that
    cells share pixels. A cell that is outside of the map is 0, as is all of a box that is not finite.
    The gradient is to `features`, the first of equal ones in the order of rows.

    Source: Girshick 2015, Fast R-CNN, section 2.1; torchvision.ops.roi_pool, which rounds n / h and
    so for a few sides (57, for one) has a row more in the last cell.

    >>> x = jnp.arange(16.0).reshape(4, 4, 1)
    >>> roi_pool(x, jnp.array([[0.0, 0.0, 48.0, 32.0]]), output_size=(2, 2), spatial_scale=1 / 16).ravel().tolist()
    [5.0, 7.0, 9.0, 11.0]
    """
    chex.assert_rank([features, boxes], [3, 2])
    boxes = boxes.astype(accumulation_dtype(boxes.dtype))
    usable = jnp.all(jnp.isfinite(boxes), -1, keepdims=True)
    boxes = jnp.where(usable, boxes, jnp.zeros_like(boxes)) * jnp.asarray(
        spatial_scale, boxes.dtype
    )
    ends = _round_half_away(boxes.clip(-OUT_OF_RANGE, OUT_OF_RANGE)).astype(jnp.int32)
    rows, columns = (
        _bin_ranges(ends[:, axis], ends[:, axis + 2], count, limit)
        for axis, count, limit in zip((1, 0), output_size, features.shape, strict=False)
    )
    rows = rows._replace(count=jnp.where(usable, rows.count, jnp.zeros_like(rows.count)))
    flat = features.reshape(-1, features.shape[-1])
    return _pool(flat, _PixelRange(rows, columns), features.shape[1])


class _SampleGrid(NamedTuple):
    """Of regions: (y, x) of the first corner [R, 2], a cell's sides [R, 2], samples along them
    [R, 2], the map's height and width [R, 2] and its first row in the flat array [R]."""

    start: jax.Array
    step: jax.Array
    samples: jax.Array
    shape: jax.Array
    offset: jax.Array


class _BinRange(NamedTuple):
    """Along an axis, the first pixel of each region's cells and their number; both [R, n]."""

    first: jax.Array
    count: jax.Array


class _PixelRange(NamedTuple):
    rows: _BinRange
    columns: _BinRange


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _align(
    flat: jax.Array, grid: _SampleGrid, size: tuple[int, int], count: int | None
) -> jax.Array:
    """`[P, C], ... -> [R, h, w, C]`; `count` samples in each cell, or as many as `grid` says."""
    dtype = accumulation_dtype(flat.dtype)

    def add(number, total):
        places, weights = _corner_weights(grid, size, number)
        for corner in range(4):
            rows = flat.at[places[..., corner]].get(mode="promise_in_bounds").astype(dtype)
            total = total + rows * weights[..., corner, None].astype(dtype)
        return total

    zero = jnp.zeros((len(grid.start), *size, flat.shape[1]), dtype)
    return fori_loop(_sample_count(grid) if count is None else count, add, zero).astype(flat.dtype)


def _align_forward(flat, grid, size, count):
    return _align(flat, grid, size, count), (flat[:, :0], grid)


def _align_backward(size, count, kept, slope):
    like, grid = kept
    dtype = accumulation_dtype(like.dtype)

    def back(total, part):
        grid, slope = part

        def add(number, total):
            places, weights = _corner_weights(grid, size, number)
            rows = weights[..., None].astype(dtype) * slope[..., None, :]
            return total.at[places].add(rows, mode="promise_in_bounds")

        return fori_loop(_sample_count(grid) if count is None else count, add, total)

    total = jnp.zeros((len(like), slope.shape[-1]), dtype)
    return scan_chunks(back, total, grid, slope=slope.astype(dtype)).astype(like.dtype), None


_align.defvjp(_align_forward, _align_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _pool(flat: jax.Array, pixels: _PixelRange, width: int) -> jax.Array:
    return _max_over_bins(flat, pixels, width)[0]


def _max_over_bins(flat, pixels, width):
    """`[P, C], ... -> [R, h, w, C], [R, h, w, C]`: the largest, and the rows that have it, or -1."""

    def some(pixels):
        def compare(number, state):
            best, where = state
            place = _pixel_index(pixels, width, number)[..., None]
            rows = flat.at[jnp.maximum(place, 0)].get(mode="promise_in_bounds").squeeze(-2)
            better = (rows > best) & (place >= 0)
            return jnp.where(better, rows, best), jnp.where(better, place, where)

        shape = (*pixels.rows.first.shape, pixels.columns.first.shape[1], flat.shape[1])
        state = (jnp.full(shape, -jnp.inf, flat.dtype), jnp.full(shape, -1, jnp.int32))
        best, where = fori_loop(_max_bin_pixels(pixels), compare, state)
        return jnp.where(where >= 0, best, jnp.zeros_like(best)), where

    def parted(pixels):
        rois = len(pixels.rows.first)
        found = lax.map(some, chunk(pixels))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:rois], found)

    return lax.platform_dependent(pixels, cpu=parted, default=some)


def _pool_forward(flat, pixels, width):
    best, where = _max_over_bins(flat, pixels, width)
    return best, (flat[:, :0], where)


def _pool_backward(width, kept, slope):
    like, where = kept

    def back(total, part):
        where, slope = part
        channel = jnp.arange(slope.shape[-1], dtype=jnp.int32)
        place = jnp.where(where >= 0, where, jnp.full_like(where, len(like)))
        return total.at[place, jnp.broadcast_to(channel, place.shape)].add(slope, mode="drop")

    total = jnp.zeros((len(like), slope.shape[-1]), accumulation_dtype(like.dtype))
    return scan_chunks(back, total, where, slope=slope.astype(total.dtype)).astype(like.dtype), None


_pool.defvjp(_pool_forward, _pool_backward)


def _corner_weights(
    grid: _SampleGrid, size: tuple[int, int], number: Any
) -> tuple[jax.Array, jax.Array]:
    """`[R, h, w, 4]` twice: the rows around every cell's sample of this number, and their weights."""
    total = grid.samples[:, 0] * grid.samples[:, 1]
    each = jnp.maximum(grid.samples, 1)
    column, row = number % each[:, 1], number // each[:, 1]
    pairs = []
    for axis, which in enumerate((row, column)):
        step, limit = grid.step[:, axis, None], grid.shape[:, axis, None]
        inside = (which.astype(step.dtype) + 0.5) / each[:, axis].astype(step.dtype)
        cell = jnp.arange(size[axis], dtype=step.dtype)[None]
        place = grid.start[:, axis, None] + (cell + inside[:, None]) * step
        some = (place >= -1) & (place <= limit.astype(step.dtype)) & (number < total)[:, None]
        place = jnp.where(some, place, jnp.zeros_like(place))
        place = place.clip(jnp.zeros_like(step), (limit - 1).astype(step.dtype))
        low = jnp.floor(place).astype(jnp.int32)
        share = place - low.astype(step.dtype)
        weights = jnp.stack([1 - share, share], -1) * some[..., None].astype(step.dtype)
        pairs.append((jnp.stack([low, jnp.minimum(low + 1, limit - 1)], -1), weights))
    (y, y_weight), (x, x_weight) = pairs
    y_weight = y_weight / jnp.maximum(total, 1).astype(y_weight.dtype)[:, None, None]
    y = grid.offset[:, None, None] + y * grid.shape[:, 1, None, None]
    shape = (len(total), *size, 4)
    places = y[:, :, None, :, None] + x[:, None, :, None, :]
    weights = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]
    return places.reshape(shape), weights.reshape(shape)


def _round_half_away(x: jax.Array) -> jax.Array:
    """To whole numbers, halves away from 0: C's round."""
    whole = jnp.trunc(x)
    half = jnp.abs(x - whole) >= jnp.asarray(0.5, x.dtype)
    return jnp.where(half, whole + jnp.sign(x), whole)


def _bin_ranges(first: jax.Array, last: jax.Array, count: int, limit: int) -> _BinRange:
    """`[R], [R] -> [R, count]`: cells of sides from `first` up to `last`, within `limit` pixels."""
    side = jnp.maximum(last - first + 1, 1)[:, None]
    cell = jnp.arange(count, dtype=jnp.int32)[None]
    start = first[:, None] + cell * side // count
    stop = first[:, None] - (-(cell + 1) * side // count)
    start, stop = start.clip(0, limit), stop.clip(0, limit)
    return _BinRange(start, stop - start)


def _pixel_index(pixels: _PixelRange, width: int, number: Any) -> jax.Array:
    """`[R, h, w]`: the row of every cell's pixel of this number, -1 past the last."""
    rows, columns = pixels
    across = columns.count[:, None]
    row, column = number // jnp.maximum(across, 1), number % jnp.maximum(across, 1)
    y, x = rows.first[..., None] + row, columns.first[:, None] + column
    some = number < rows.count[..., None] * across
    return jnp.where(some, y * width + x, jnp.full_like(x, -1, shape=some.shape))


def _sample_count(grid: _SampleGrid) -> jax.Array:
    return batch_max(grid.samples[:, 0] * grid.samples[:, 1])


def _max_bin_pixels(pixels: _PixelRange) -> jax.Array:
    tallest, widest = (jnp.max(each.count, 1, initial=0) for each in pixels)
    return batch_max(tallest * widest)


def _row_like(numbers: Sequence[float], like: jax.Array) -> jax.Array:
    return jnp.asarray(numbers, like.dtype)[None]
