"""RoIAlign and RoI pooling against torchvision and plain numpy, with their gradients."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden import roi_fixtures
from zoo.ops.conv_spec import accumulation_dtype
from zoo.ops.roi import pyramid_roi_align, roi_align, roi_pool

GOLDEN = roi_fixtures.golden("roi")
FIELDS = dict(output_size=roi_fixtures.ROI_SIZE, spatial_scale=roi_fixtures.ROI_SCALE)
WORST = [
    [np.nan] * 4,
    [0, 0, np.nan, 9],
    [-np.inf, 0, np.inf, 9],
    [0, 0, np.inf, np.inf],
    [-3e38, -3e38, 3e38, 3e38],
    [1e15, 1e15, 2e15, 2e15],
    [5, 5, 5, 5],
    [9, 9, 2, 2],
    [0, 0, 0, 0],
]


@functools.cache
def computed(f, **fields):
    """f with its gradient, that of `slope` times f."""

    def both(features, boxes, slope):
        y, back = jax.vjp(lambda x: f(x, boxes, **FIELDS, **fields), features)
        return y, back(slope)[0]

    return jax.jit(both)


def arguments(name, dtype=np.float32):
    features, regions = roi_fixtures.features().astype(dtype), roi_fixtures.regions()
    shape = (len(regions), *roi_fixtures.ROI_SIZE, features.shape[-1])
    return features, regions, roi_fixtures.slope(name, shape).astype(dtype)


@pytest.mark.parametrize(("sampling", "aligned"), roi_fixtures.ROI_ALIGN)
def test_align_as_torchvision(sampling, aligned):
    name = f"align {sampling} {aligned}"
    y, gradient = computed(roi_align, sampling_ratio=sampling, aligned=aligned)(*arguments(name))
    np.testing.assert_allclose(y, GOLDEN[name], atol=5e-6)
    np.testing.assert_allclose(gradient, GOLDEN[f"{name} gradient"], atol=5e-5)


def test_pool_as_torchvision():
    y, gradient = computed(roi_pool)(*arguments("pool"))
    np.testing.assert_array_equal(y, GOLDEN["pool"])
    np.testing.assert_allclose(gradient, GOLDEN["pool gradient"], atol=1e-5)


def slow_align(x, box, *, output_size, spatial_scale, sampling):
    """Of an aligned box, sample by sample, as the definition of interpolation has it."""
    height, width, channels = x.shape
    x0, y0, x1, y1 = (side * spatial_scale - 0.5 for side in box)
    y = np.zeros((*output_size, channels))
    for i, j, a, b in itertools.product(*map(range, (*output_size, sampling, sampling))):
        down = y0 + (i + (a + 0.5) / sampling) * (y1 - y0) / output_size[0]
        along = x0 + (j + (b + 0.5) / sampling) * (x1 - x0) / output_size[1]
        if -1 <= down <= height and -1 <= along <= width:
            down, along = np.clip(down, 0, height - 1), np.clip(along, 0, width - 1)
            for row, column in itertools.product(range(height), range(width)):
                share = max(1 - abs(down - row), 0) * max(1 - abs(along - column), 0)
                y[i, j] += share * x[row, column] / sampling**2
    return y


def slow_cells(box, shape, *, output_size, spatial_scale):
    """Of each cell its place, and the rows and columns that it has of the map."""
    x0, y0, x1, y1 = (int(np.trunc(s * spatial_scale + math.copysign(0.5, s))) for s in box)
    tall, long = max(y1 - y0 + 1, 1), max(x1 - x0 + 1, 1)
    for i, j in itertools.product(*map(range, output_size)):
        top, left = y0 + i * tall // output_size[0], x0 + j * long // output_size[1]
        end, right = (
            y0 - (-(i + 1) * tall // output_size[0]),
            x0 - (-(j + 1) * long // output_size[1]),
        )
        yield (i, j), *np.clip([top, end], 0, shape[0]), *np.clip([left, right], 0, shape[1])


def slow_pool(x, box, *, output_size, spatial_scale):
    y = np.zeros((*output_size, x.shape[-1]))
    for cell, top, end, left, right in slow_cells(
        box, x.shape, output_size=output_size, spatial_scale=spatial_scale
    ):
        part = x[top:end, left:right]
        y[cell] = part.max((0, 1)) if part.size else 0
    return y


def test_as_numpy():
    """A size and a scale of its own, boxes whose ends fall on halves of pixels."""
    x = np.random.default_rng(0).normal(size=(6, 7, 2)).astype(np.float32)
    boxes = np.array([[4, 4, 28, 20], [-12, 0, 60, 36], [20, 12, 21, 13], [0, 0, 56, 48]], float)
    fields = dict(output_size=(2, 5), spatial_scale=1 / 8)
    align = functools.partial(roi_align, sampling_ratio=3, aligned=True, **fields)
    pool = functools.partial(roi_pool, **fields)
    ours = jax.jit(lambda *arguments: (align(*arguments), pool(*arguments)))(
        x, jnp.asarray(boxes, jnp.float32)
    )
    slow = functools.partial(slow_align, sampling=3)
    for y, oracle in zip(ours, (slow, slow_pool), strict=True):
        np.testing.assert_allclose(y, [oracle(x, box, **fields) for box in boxes], atol=1e-5)


def test_equal_pixels_give_the_gradient_to_the_first():
    """As torchvision's and Fast R-CNN's own loops do; zeros after a ReLU are such."""
    features, regions, slope = arguments("pool")
    features = features.round()
    y, gradient = computed(roi_pool)(features, regions, slope)
    expected = np.zeros_like(features)
    for box, each, slopes in zip(regions, y, slope, strict=True):
        for cell, top, end, left, right in slow_cells(box, features.shape, **FIELDS):
            part = features[top:end, left:right]
            for channel in range(part.shape[-1] if part.size else 0):
                row, column = np.unravel_index(part[..., channel].argmax(), part.shape[:2])
                assert part[row, column, channel] == each[cell][channel]
                expected[top + row, left + column, channel] += slopes[cell][channel]
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


@pytest.mark.parametrize(
    "f", [functools.partial(roi_align, sampling_ratio=-1, aligned=True), roi_pool]
)
def test_the_worst(f):
    """Not a number out of any box, and no gradient but zeros for the boxes themselves."""
    boxes = jnp.asarray(WORST, jnp.float32)

    def total(x, boxes):
        y = f(x, boxes, **FIELDS)
        return jnp.sum(y * y), y

    slopes, y = jax.jit(jax.grad(total, (0, 1), has_aux=True))(roi_fixtures.features(), boxes)
    assert np.isfinite(y).all() and np.isfinite(slopes[0]).all()
    assert not slopes[1].any() and not y[:4].any()


@pytest.mark.parametrize("f", [functools.partial(roi_align, sampling_ratio=-1), roi_pool])
def test_a_batch(f):
    """vmap of the gradient is the gradients, though some boxes take more turns than others."""
    features, regions, slope = arguments("batch")
    images = np.stack([features, features[::-1]])
    many = np.stack([regions, regions / 3])

    def gradient(x, boxes):
        return jax.vjp(lambda x: f(x, boxes, **FIELDS), x)[1](slope)[0]

    one = jax.jit(gradient)
    ours = jax.jit(jax.vmap(gradient))(images, many)
    for k in range(2):
        np.testing.assert_allclose(ours[k], one(images[k], many[k]), atol=1e-5)


def test_pyramid():
    """Each box of its own map, value and gradient, as if of one map alone; none of the others."""
    rng = np.random.default_rng(0)
    maps = [
        rng.normal(size=(*shape, 2)).astype(np.float32) for shape in ((16, 24), (8, 12), (4, 6))
    ]
    boxes, scales = roi_fixtures.regions(), (0.25, 0.125, 0.0625)
    level = np.arange(len(boxes)) % 3
    slope = roi_fixtures.slope("pyramid", (len(boxes), 2, 2, 2))

    def apart(*maps):
        every = [
            roi_align(x, boxes, output_size=(2, 2), spatial_scale=scale)
            for x, scale in zip(maps, scales, strict=True)
        ]
        return jnp.stack(every)[level, np.arange(len(boxes))]

    def together(*maps):
        return pyramid_roi_align(
            maps, boxes, jnp.asarray(level), output_size=(2, 2), spatial_scales=scales
        )

    def both(f, *maps):
        y, back = jax.vjp(f, *maps)
        return y, back(slope)

    ours, theirs = (jax.jit(functools.partial(both, f))(*maps) for f in (together, apart))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), ours, theirs)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_types(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        tolerance = 2e-2 if dtype == jnp.bfloat16 else 1e-6
        given = [jnp.asarray(each) for each in arguments("align 2 False")]
        f = computed(roi_align, sampling_ratio=2, aligned=False)
        y, gradient = f(given[0].astype(dtype), given[1], given[2].astype(dtype))
        assert y.dtype == gradient.dtype == dtype
        np.testing.assert_allclose(
            y.astype(accumulation_dtype(dtype)), GOLDEN["align 2 False"], atol=tolerance
        )
        if dtype == jnp.float64:
            golden = GOLDEN["align 2 False gradient"]
            np.testing.assert_allclose(gradient, golden, atol=1e-6)
        y = jax.eval_shape(functools.partial(roi_pool, **FIELDS), given[0].astype(dtype), given[1])
        assert y.dtype == dtype
