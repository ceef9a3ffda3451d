"""Tiles and windows against the whole image at once, and against plain numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.inference import tiling

RANDOM = np.random.default_rng(0)
KERNELS = [RANDOM.normal(0, 0.3, (3, 3, *channels)).astype(np.float32)
           for channels in ((2, 4), (4, 4), (4, 3))]  # fmt: skip


def convolve(x, kernel, padding):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=numbers)


class Net:
    """A net of three convolutions, compiled; it counts the shapes that it was compiled for.

    Without padding it takes 3 pixels on each side; 4, of an even size, where it pools by two.
    """

    def __init__(self, padding="VALID", pooled=False):
        self.shapes = []
        self.jitted = jax.jit(functools.partial(self.compute, padding=padding, pooled=pooled))
        self.predict = functools.partial(self.jitted, KERNELS)

    def compute(self, kernels, image, *, padding, pooled):
        self.shapes.append(image.shape)
        x = image.astype(jnp.float32) / 255
        x = jnp.tanh(convolve(x, kernels[0], padding))
        if pooled:
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        x = jnp.tanh(convolve(x, kernels[1], padding))
        if pooled:
            x = x.repeat(2, 1).repeat(2, 2)
        return convolve(x, kernels[2], padding)


def picture(*shape):
    return RANDOM.integers(0, 256, (*shape, 2), np.uint8)


def mirrored(image, margin, even=1):
    """As the net sees a whole image: `margin` around it, and more below until sizes divide."""
    more = [(margin, margin + -length % even) for length in image.shape[1:3]]
    return np.pad(image, ((0, 0), *more, (0, 0)), mode="reflect")


@pytest.mark.parametrize("pooled", [False, True])
def test_overlap_tile_is_the_whole_mirrored_image(pooled):
    """Of any size, smaller than the tile's middle and than the margin too; compiled once."""
    margin = 4 if pooled else 3
    net = Net(pooled=pooled)
    knobs = dict(tile=(20, 26), margin=margin, batch_size=3)
    for shape in ((1, 30, 41), (2, 12, 18), (1, 47, 13), (1, 5, 3), (1, 1, 2)):
        image = picture(*shape)
        tiled = tiling.overlap_tile(net.predict, image, **knobs)
        assert tiled.shape == (*shape, 3)
        whole = Net(pooled=pooled).predict(mirrored(image, margin, even=2))
        np.testing.assert_allclose(tiled, np.asarray(whole)[:, : shape[1], : shape[2]], atol=1e-5)
    assert net.shapes == [(3, 20, 26, 2), (6, 20, 26, 2)], "one compilation for each B"


def test_an_odd_stride_breaks_what_is_pooled_by_two():
    """Why the stride is a knob: a tile that begins between two pooled pixels is another image."""
    net, image = Net(pooled=True), picture(1, 30, 41)
    whole = Net(pooled=True).predict(mirrored(image, 4, even=2))[:, :30, :41]
    knobs = dict(tile=(21 + 1, 22), margin=4)
    even = tiling.overlap_tile(net.predict, image, stride=(10, 12), **knobs)
    odd = tiling.overlap_tile(net.predict, image, stride=(11, 13), **knobs)
    np.testing.assert_allclose(even, whole, atol=1e-5)
    assert np.abs(odd - whole).max() > 0.01


def test_overlap_tile_cuts_off_what_a_padded_model_gives_beyond():
    """And classes are copied as they are."""
    net, image = Net(padding="SAME"), picture(1, 29, 25)

    def classes(image):
        return jnp.argmax(net.predict(image), -1)[..., None].astype(jnp.uint8)

    tiled = tiling.overlap_tile(classes, image, tile=16, margin=3)
    whole = Net().predict(mirrored(image, 3))
    np.testing.assert_array_equal(tiled[..., 0], np.argmax(whole, -1))
    assert tiled.dtype == np.uint8


@pytest.mark.parametrize("blend", ["gaussian", "uniform"])
def test_sliding_window_is_the_weighted_mean(blend):
    """Of predictions that know where in the window they are, against sums over the whole image."""
    window, stride = (8, 6), (5, 4)
    ramp = RANDOM.normal(size=(1, *window, 2)).astype(np.float32)

    def predict(image):
        return image.astype(np.float32) * ramp

    y, x = (np.arange(side) - (side - 1) / 2 for side in window)
    bell = np.exp(-0.5 * ((y[:, None] * 8 / window[0]) ** 2 + (x * 8 / window[1]) ** 2))
    weights = {"gaussian": bell, "uniform": np.ones(window)}[blend][..., None]
    for height, width in ((23, 17), (8, 6), (9, 30)):
        image = picture(2, height, width)
        sums, mass = np.zeros((2, height, width, 2)), np.zeros((height, width, 1))
        for top in {*range(0, height - 8, 5), height - 8}:
            for left in {*range(0, width - 6, 4), width - 6}:
                part = (slice(top, top + 8), slice(left, left + 6))
                sums[:, *part] += weights * predict(image[:, *part])
                mass[part] += weights
        for batch_size in (1, 4):
            ours = tiling.sliding_window(
                predict, image, window=window, stride=stride, blend=blend, batch_size=batch_size
            )
            np.testing.assert_allclose(ours, sums / mass, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (40, 3), (7, 5), (33, 29)])
def test_sliding_window_of_any_size(shape):
    """What depends on a pixel alone comes back; the classes, band by band, are those of the whole."""
    image = picture(1, *shape)
    calls = []

    def predict(pieces):
        calls.append(pieces.shape)
        return np.stack([pieces[..., 0], pieces[..., 1], 255.0 - pieces[..., 0]], -1)

    knobs = dict(window=(10, 12), stride=(6, 7))
    whole = tiling.sliding_window(predict, image, **knobs)
    np.testing.assert_allclose(whole, predict(image), atol=1e-3)
    mask = tiling.sliding_window(
        predict, image, finish=lambda rows: np.argmax(rows, -1).astype(np.uint8), **knobs
    )
    assert mask.shape == (1, *shape) and mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, np.argmax(whole, -1))
    assert set(calls) == {(1, 10, 12, 2), (1, *shape, 2)}


def test_flips():
    """An even net stays; of any net the mean turns with the image; four times compiled is once."""
    net, image = Net(), picture(2, 15, 12)
    mean = np.asarray(tiling.average_flips(net.predict, image))
    assert mean.shape == (2, 9, 6, 3) and len(net.shapes) == 1
    views = [np.flip(np.asarray(net.predict(np.flip(image, a))), a) for a in ((), 1, 2, (1, 2))]
    np.testing.assert_allclose(mean, np.mean(views, 0), atol=1e-6)
    for axis in (1, 2):
        turned = tiling.average_flips(net.predict, np.flip(image, axis))
        np.testing.assert_allclose(np.flip(turned, axis), mean, atol=1e-6)
    with_tiles = tiling.overlap_tile(
        functools.partial(tiling.average_flips, net.predict), image, tile=12, margin=3
    )
    assert with_tiles.shape == (2, 15, 12, 3)


def test_turns():
    """The mean over all eight pictures of a square, which turns with the image; one is compiled."""
    net, image = Net(padding="SAME"), picture(2, 12, 12)
    mean = np.asarray(tiling.average_rotations(net.predict, image))
    assert len(net.shapes) == 1
    views = [
        np.rot90(
            np.flip(np.asarray(net.predict(np.flip(np.rot90(image, k, (1, 2)), a))), a), -k, (1, 2)
        )
        for k in (0, 1)
        for a in ((), 1, 2, (1, 2))
    ]
    np.testing.assert_allclose(mean, np.mean(views, 0), atol=1e-6)
    for k in range(4):
        turned = tiling.average_rotations(net.predict, np.rot90(image, k, (1, 2)))
        np.testing.assert_allclose(np.rot90(turned, -k, (1, 2)), mean, atol=1e-6)
    assert tiling.average_rotations(net.predict, picture(1, 9, 12)).shape == (1, 9, 12, 3)


def test_mistakes():
    image, predict = picture(1, 9, 9), Net(padding="SAME").predict
    over, slide = tiling.overlap_tile, tiling.sliding_window
    cases = [
        (over, dict(tile=8, margin=4), r"larger than twice the margin"),
        (over, dict(tile=8, margin=1, stride=7), r"a stride from 1 to \(6, 6\), got \(7, 7\)"),
        (over, dict(tile=8, margin=1, batch_size=0), "expected a batch_size of at least 1, got 0"),
        (slide, dict(window=8, stride=9), r"from 1 to the window \(8, 8\), got \(9, 9\)"),
        (slide, dict(window=8, stride=4, blend="mean"), "'gaussian' or 'uniform', got 'mean'"),
    ]
    for function, knobs, said in cases:
        with pytest.raises(ValueError, match=said):
            function(predict, image, **knobs)
    with pytest.raises(ValueError, match=r"of \(8, 8\) or more, got \(1, 2, 2, 3\)"):
        slide(Net().predict, image, window=8, stride=4)
    with pytest.raises(ValueError, match=r"expected non-empty images .*, got \(9, 9, 2\)"):
        over(predict, image[0], tile=8, margin=1)
