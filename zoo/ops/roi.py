"""RoIAlign of a map or of a pyramid, and RoI pooling.

Every region is brought to one size. The functions process the first pixel of all cells, then the
second, and so on up to the largest cell; the gradient goes to the map alone, the same way back. On
a CPU the gradient and pooling process eight regions at a time: XLA:CPU adds rows to a map much
faster where the addends are in the cache, and small regions need few iterations.

Milliseconds of CPU time, float32, two cores with AVX-512, jax 0.10.1, 128 regions to 7 x 7 x 256,
of a map of 38 x 63 and of one of 200 x 304 (forward, gradient):

- RoIAlign, 2 x 2 samples, all pixels and then their sum: 57, 55; 63, 108
- RoIAlign by products with matrices [R, 7, H] and [R, 7, W]: 26, 56; 780, 750
- RoIAlign, sample after sample, the gradient at once: 1.5, 55; 5.2, 108
- RoIAlign, sample after sample, the gradient by 8 regions: 1.5, 6.3; 5.2, 42
- RoIAlign with as many samples as the cell has pixels: 4.4, 13; 17, 55
- RoI pooling, all regions at once: 26, 30; 38, 82
- RoI pooling by 8 regions: 11, 20

Most of the 42 ms is the gradient map of 62 MB itself.
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

OUT_OF_RANGE = float(2**20)  # box coordinates are clipped to this many pixels of the map


def roi_align(
    features: jax.Array,
    boxes: jax.Array,
    *,
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int = 2,
    aligned: bool = False,
) -> jax.Array:
    """Averages bilinear samples of a feature map in each cell of each box (RoIAlign).

    Samples more than a pixel outside of the map are 0, and so is everything of a box that is not
    finite. Only `features` has a gradient.

    Args:
        features: feature map [H, W, C].
        boxes: boxes [R, 4] in pixels of the image.
        output_size: number of cells (h, w).
        spatial_scale: pixels of the map per pixel of the image.
        sampling_ratio: samples per cell along each axis. With -1, one per pixel of the map, rounded
            up; this is exact for boxes up to twice as large as the map, and larger boxes have no
            more.
        aligned: put the center of pixel i at i + 0.5. Without it boxes are shifted by half a pixel
            and are at least one pixel large, as in the first published implementations.

    Returns:
        Pooled features [R, h, w, C].

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
    """Applies `roi_align` to the level of a feature pyramid that is assigned to each box.

    It costs as much as RoIAlign of one map, plus a copy of all maps.

    Args:
        features: feature maps [[H, W, C], ...].
        boxes: boxes [R, 4] in pixels of the image.
        level: index of the map for each box [R] int32.
        output_size: number of cells (h, w).
        spatial_scales: pixels of the map per pixel of the image, for each map.
        sampling_ratio: see `roi_align`.
        aligned: see `roi_align`.

    Returns:
        Pooled features [R, h, w, C].

    Source: Lin et al. 2017, Feature Pyramid Networks, section 4.2;
    torchvision.ops.MultiScaleRoIAlign.

    >>> maps, boxes = [jnp.zeros((4, 4, 1)), jnp.ones((2, 2, 1))], jnp.array([[0.0, 0, 8, 8]] * 2)
    >>> level = jnp.array([0, 1])
    >>> sizes = dict(output_size=(1, 1), spatial_scales=(0.5, 0.25))
    >>> pyramid_roi_align(maps, boxes, level, **sizes).ravel().tolist()
    [0.0, 1.0]
    """
    chex.assert_rank([boxes, *features], [2] + [3] * len(features))
    chex.assert_equal(len(features), len(spatial_scales))
    double = jnp.float64 in (boxes.dtype, features[0].dtype)
    boxes = boxes.astype(jnp.float64 if double else jnp.float32)
    shapes = np.array([feature_map.shape[:2] for feature_map in features])
    offsets = np.cumsum([0, *shapes.prod(1)[:-1]])
    is_finite = jnp.all(jnp.isfinite(boxes), -1, keepdims=True)
    boxes = jnp.where(is_finite, boxes, jnp.zeros_like(boxes))
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
        max_samples = 2 * -(-shape // jnp.asarray([output_size], jnp.int32))
        samples = jnp.ceil(step).clip(jnp.zeros_like(step), max_samples.astype(step.dtype))
    samples = jnp.where(is_finite, samples.astype(jnp.int32), jnp.zeros_like(shape))
    offset = jnp.asarray(offsets, jnp.int32)[level]
    flat = [feature_map.reshape(-1, feature_map.shape[-1]) for feature_map in features]
    flat = flat[0] if len(flat) == 1 else jnp.concatenate(flat)
    count = sampling_ratio**2 if sampling_ratio > 0 else None
    return _align(flat, _SampleGrid(start, step, samples, shape, offset), tuple(output_size), count)


def roi_pool(
    features: jax.Array, boxes: jax.Array, *, output_size: tuple[int, int], spatial_scale: float
) -> jax.Array:
    """Takes the maximum of a feature map in each cell of each box (RoI pooling).

    The corners of the box, times `spatial_scale`, are rounded to pixels of the map, halves away
    from 0; both are inclusive. Cell i along a side of n pixels covers floor(i n / h) to ceil((i +
    1) n / h), so cells share pixels. A cell outside of the map is 0, and so is everything of a box
    that is not finite. Only `features` has a gradient; among equal pixels the first in row order
    gets it.

    Args:
        features: feature map [H, W, C].
        boxes: boxes [R, 4] in pixels of the image.
        output_size: number of cells (h, w).
        spatial_scale: pixels of the map per pixel of the image.

    Returns:
        Pooled features [R, h, w, C].

    Source: Girshick 2015, Fast R-CNN, section 2.1; torchvision.ops.roi_pool, which rounds n / h and
    therefore has one more row in the last cell for a few sides (for example 57).

    >>> x = jnp.arange(16.0).reshape(4, 4, 1)
    >>> box = jnp.array([[0.0, 0.0, 48.0, 32.0]])
    >>> roi_pool(x, box, output_size=(2, 2), spatial_scale=1 / 16).ravel().tolist()
    [5.0, 7.0, 9.0, 11.0]
    """
    chex.assert_rank([features, boxes], [3, 2])
    boxes = boxes.astype(accumulation_dtype(boxes.dtype))
    is_finite = jnp.all(jnp.isfinite(boxes), -1, keepdims=True)
    boxes = jnp.where(is_finite, boxes, jnp.zeros_like(boxes)) * jnp.asarray(
        spatial_scale, boxes.dtype
    )
    ends = _round_half_away(boxes.clip(-OUT_OF_RANGE, OUT_OF_RANGE)).astype(jnp.int32)
    rows, columns = (
        _bin_ranges(ends[:, axis], ends[:, axis + 2], count, limit)
        for axis, count, limit in zip((1, 0), output_size, features.shape, strict=False)
    )
    rows = rows._replace(count=jnp.where(is_finite, rows.count, jnp.zeros_like(rows.count)))
    flat = features.reshape(-1, features.shape[-1])
    return _pool(flat, _PixelRange(rows, columns), features.shape[1])


class _SampleGrid(NamedTuple):
    """Sampling positions of R regions.

    Attributes:
        start: first corner (y, x) [R, 2].
        step: sides of a cell (y, x) [R, 2].
        samples: samples per cell along (y, x) [R, 2].
        shape: height and width of the map of each region [R, 2].
        offset: first row of that map in the flat array [R].
    """

    start: jax.Array
    step: jax.Array
    samples: jax.Array
    shape: jax.Array
    offset: jax.Array


class _BinRange(NamedTuple):
    """First pixel and number of pixels of each cell along one axis, both [R, n]."""

    first: jax.Array
    count: jax.Array


class _PixelRange(NamedTuple):
    """Pixels of every cell along both axes."""

    rows: _BinRange
    columns: _BinRange


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _align(
    flat: jax.Array, grid: _SampleGrid, size: tuple[int, int], count: int | None
) -> jax.Array:
    """Averages samples: flat map [P, C] to [R, h, w, C].

    `count` is the static number of samples per cell; None takes the numbers in `grid`.
    """
    dtype = accumulation_dtype(flat.dtype)

    def add(number, total):
        rows_of_corners, weights = _corner_weights(grid, size, number)
        for corner in range(4):
            rows = flat.at[rows_of_corners[..., corner]].get(mode="promise_in_bounds").astype(dtype)
            total = total + rows * weights[..., corner, None].astype(dtype)
        return total

    zero = jnp.zeros((len(grid.start), *size, flat.shape[1]), dtype)
    return fori_loop(_sample_count(grid) if count is None else count, add, zero).astype(flat.dtype)


def _align_forward(flat, grid, size, count):
    return _align(flat, grid, size, count), (flat[:, :0], grid)


def _align_backward(size, count, residuals, slope):
    empty, grid = residuals
    dtype = accumulation_dtype(empty.dtype)

    def scatter(total, chunk_and_slope):
        grid, slope = chunk_and_slope

        def add(number, total):
            rows_of_corners, weights = _corner_weights(grid, size, number)
            rows = weights[..., None].astype(dtype) * slope[..., None, :]
            return total.at[rows_of_corners].add(rows, mode="promise_in_bounds")

        return fori_loop(_sample_count(grid) if count is None else count, add, total)

    total = jnp.zeros((len(empty), slope.shape[-1]), dtype)
    return scan_chunks(scatter, total, grid, slope=slope.astype(dtype)).astype(empty.dtype), None


_align.defvjp(_align_forward, _align_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _pool(flat: jax.Array, pixels: _PixelRange, width: int) -> jax.Array:
    return _max_over_bins(flat, pixels, width)[0]


def _max_over_bins(flat, pixels, width):
    """Returns the maximum of each cell [R, h, w, C] and the row that holds it, or -1."""

    def reduce(pixels):
        def compare(number, state):
            best, argmax = state
            index = _pixel_index(pixels, width, number)[..., None]
            rows = flat.at[jnp.maximum(index, 0)].get(mode="promise_in_bounds").squeeze(-2)
            better = (rows > best) & (index >= 0)
            return jnp.where(better, rows, best), jnp.where(better, index, argmax)

        shape = (*pixels.rows.first.shape, pixels.columns.first.shape[1], flat.shape[1])
        state = (jnp.full(shape, -jnp.inf, flat.dtype), jnp.full(shape, -1, jnp.int32))
        best, argmax = fori_loop(_max_bin_pixels(pixels), compare, state)
        return jnp.where(argmax >= 0, best, jnp.zeros_like(best)), argmax

    def reduce_in_chunks(pixels):
        rois = len(pixels.rows.first)
        results = lax.map(reduce, chunk(pixels))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:rois], results)

    return lax.platform_dependent(pixels, cpu=reduce_in_chunks, default=reduce)


def _pool_forward(flat, pixels, width):
    best, argmax = _max_over_bins(flat, pixels, width)
    return best, (flat[:, :0], argmax)


def _pool_backward(width, residuals, slope):
    empty, where = residuals

    def scatter(total, chunk_and_slope):
        where, slope = chunk_and_slope
        channel = jnp.arange(slope.shape[-1], dtype=jnp.int32)
        row = jnp.where(where >= 0, where, jnp.full_like(where, len(empty)))
        return total.at[row, jnp.broadcast_to(channel, row.shape)].add(slope, mode="drop")

    total = jnp.zeros((len(empty), slope.shape[-1]), accumulation_dtype(empty.dtype))
    return scan_chunks(scatter, total, where, slope=slope.astype(total.dtype)).astype(
        empty.dtype
    ), None


_pool.defvjp(_pool_forward, _pool_backward)


def _corner_weights(
    grid: _SampleGrid, size: tuple[int, int], number: Any
) -> tuple[jax.Array, jax.Array]:
    """Returns the four rows around sample `number` of every cell, and their weights.

    Args:
        grid: sampling positions.
        size: number of cells (h, w).
        number: index of the sample [].

    Returns:
        Rows [R, h, w, 4] int32 and weights [R, h, w, 4].
    """
    total = grid.samples[:, 0] * grid.samples[:, 1]
    samples_per_axis = jnp.maximum(grid.samples, 1)
    column, row = number % samples_per_axis[:, 1], number // samples_per_axis[:, 1]
    pairs = []
    for axis, sample_index in enumerate((row, column)):
        step, limit = grid.step[:, axis, None], grid.shape[:, axis, None]
        fraction = (sample_index.astype(step.dtype) + 0.5) / samples_per_axis[:, axis].astype(
            step.dtype
        )
        cell = jnp.arange(size[axis], dtype=step.dtype)[None]
        position = grid.start[:, axis, None] + (cell + fraction[:, None]) * step
        is_inside = (
            (position >= -1) & (position <= limit.astype(step.dtype)) & (number < total)[:, None]
        )
        position = jnp.where(is_inside, position, jnp.zeros_like(position))
        position = position.clip(jnp.zeros_like(step), (limit - 1).astype(step.dtype))
        low = jnp.floor(position).astype(jnp.int32)
        weight_high = position - low.astype(step.dtype)
        weights = jnp.stack([1 - weight_high, weight_high], -1) * is_inside[..., None].astype(
            step.dtype
        )
        pairs.append((jnp.stack([low, jnp.minimum(low + 1, limit - 1)], -1), weights))
    (y, y_weight), (x, x_weight) = pairs
    y_weight = y_weight / jnp.maximum(total, 1).astype(y_weight.dtype)[:, None, None]
    y = grid.offset[:, None, None] + y * grid.shape[:, 1, None, None]
    shape = (len(total), *size, 4)
    rows = y[:, :, None, :, None] + x[:, None, :, None, :]
    weights = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]
    return rows.reshape(shape), weights.reshape(shape)


def _round_half_away(x: jax.Array) -> jax.Array:
    """Rounds to whole numbers, halves away from 0, like C's round."""
    truncated = jnp.trunc(x)
    is_half = jnp.abs(x - truncated) >= jnp.asarray(0.5, x.dtype)
    return jnp.where(is_half, truncated + jnp.sign(x), truncated)


def _bin_ranges(first: jax.Array, last: jax.Array, count: int, limit: int) -> _BinRange:
    """Splits sides from `first` to `last` into `count` cells, limited to the map."""
    side = jnp.maximum(last - first + 1, 1)[:, None]
    cell = jnp.arange(count, dtype=jnp.int32)[None]
    start = first[:, None] + cell * side // count
    stop = first[:, None] - (-(cell + 1) * side // count)
    start, stop = start.clip(0, limit), stop.clip(0, limit)
    return _BinRange(start, stop - start)


def _pixel_index(pixels: _PixelRange, width: int, number: Any) -> jax.Array:
    """Returns the row of pixel `number` of every cell [R, h, w]; -1 past the last one."""
    rows, columns = pixels
    columns_per_cell = columns.count[:, None]
    row, column = (
        number // jnp.maximum(columns_per_cell, 1),
        number % jnp.maximum(columns_per_cell, 1),
    )
    y, x = rows.first[..., None] + row, columns.first[:, None] + column
    is_inside = number < rows.count[..., None] * columns_per_cell
    return jnp.where(is_inside, y * width + x, jnp.full_like(x, -1, shape=is_inside.shape))


def _sample_count(grid: _SampleGrid) -> jax.Array:
    return batch_max(grid.samples[:, 0] * grid.samples[:, 1])


def _max_bin_pixels(pixels: _PixelRange) -> jax.Array:
    tallest, widest = (jnp.max(cells.count, 1, initial=0) for cells in pixels)
    return batch_max(tallest * widest)


def _row_like(numbers: Sequence[float], like: jax.Array) -> jax.Array:
    return jnp.asarray(numbers, like.dtype)[None]
