"""Pictures on canvases: against torch's few numbers, a plain loop, and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.canvas import Canvas, fit_size, letterbox, normalize_canvas
from zoo.preprocess import Preprocessing

PICTURE = (np.arange(35).reshape(5, 7, 1) * 37 % 101 / 100).astype(np.float32)
# torch 2.13: interpolate(picture, scale_factor=6 / 5, mode="bilinear", recompute_scale_factor=True)
LARGER = """
0.        0.300625  0.624375  0.38      0.261875  0.585625  0.72      0.2
0.4275    0.728125  0.531094  0.476094  0.357969  0.255625  0.532031  0.6275
0.313333  0.613958  0.648385  0.509219  0.391094  0.478125  0.691406  0.513333
0.3675    0.326198  0.571042  0.563385  0.44526   0.532292  0.745573  0.5675
0.59      0.275156  0.456875  0.638594  0.520469  0.339219  0.489375  0.79
0.26      0.560625  0.884375  0.64      0.521875  0.53      0.159375  0.46
"""
SMALLER = """
0.32875   0.555417  0.319167  0.50375
0.26875   0.79      0.55375   0.57
0.419167  0.772083  0.535833  0.467917
"""


def table(text):
    return np.array([line.split() for line in text.split("\n") if line], np.float32)


def test_torch_s_numbers():
    image, _, size, scale = letterbox(PICTURE, Canvas((8, 9), "short", short=6, long=100))
    assert size.tolist() == [6, 8] and size.dtype == np.int32
    assert scale.tolist() == np.float32([6 / 5, 8 / 7]).tolist()
    np.testing.assert_allclose(image[:6, :8, 0], table(LARGER), atol=2e-6)
    assert image.dtype == np.float32 and not image[6:].any() and not image[:, 8:].any()
    image, *_ = letterbox(PICTURE, Canvas((3, 4)))
    np.testing.assert_allclose(image[..., 0], table(SMALLER), atol=2e-6)


def by_hand(image, size):
    """[h, w, C] -> [H, W, C] float64: four neighbors, pixel by pixel."""
    height, width, _ = image.shape
    new = np.zeros((*size, image.shape[2]))
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * height / size[0] - 0.5, 0), height - 1)
            x = min(max((j + 0.5) * width / size[1] - 0.5, 0), width - 1)
            top, left = int(y), int(x)
            for row, down in ((top, 1 - y % 1), (min(top + 1, height - 1), y % 1)):
                for column, across in ((left, 1 - x % 1), (min(left + 1, width - 1), x % 1)):
                    new[i, j] += down * across * image[row, column]
    return new


@pytest.mark.parametrize("size", [(3, 5), (13, 4), (9, 31), (6, 11)])
def test_bilinear_is_four_neighbors(size):
    image = np.random.default_rng(0).integers(0, 256, (6, 11, 3), dtype=np.uint8)
    expected = by_hand(image.astype(np.float64), size)
    exact, *_ = letterbox(image.astype(np.float64), Canvas(size))
    np.testing.assert_allclose(exact, expected, rtol=1e-12)
    rounded, *_ = letterbox(image, Canvas(size))
    assert rounded.dtype == np.uint8 and np.abs(rounded - expected).max() < 0.5001


def test_boxes_hold_the_same_pixels():
    """A rectangle whose edges fall on whole pixels of the canvas."""
    picture = np.zeros((20, 30, 1), np.uint8)
    picture[4:12, 6:22] = 255
    image, boxes, size, scale = letterbox(
        picture, Canvas((64, 64), "short", short=40, long=100), np.array([[6, 4, 22, 12]])
    )
    assert size.tolist() == [40, 60] and scale.tolist() == [2, 2]
    assert boxes.dtype == np.float32 and boxes.tolist() == [[12, 8, 44, 24]]
    rows, columns = np.nonzero(image[..., 0] > 127)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (12, 8, 44, 24)
    assert letterbox(picture, Canvas((8, 8)), np.zeros((0, 4)))[1].shape == (0, 4)
    assert letterbox(picture, Canvas((8, 8)))[1] is None


SHORT = Canvas((800, 1344), "short", short=800, long=1333)


@pytest.mark.parametrize(
    ("old", "new"),
    # The last two are limited by the long side: torchvision's floor(h * 1333 / max).
    [((480, 640), (800, 1066)), ((375, 500), (800, 1066)), ((300, 900), (444, 1333))],
)
def test_the_short_side_is_as_torchvision_rounds_it(old, new):
    assert fit_size(old, SHORT) == new


@pytest.mark.parametrize(
    ("shape", "canvas", "message"),
    [
        (
            (640, 480, 3),
            SHORT,
            "expected a canvas of at least 800 x 1066 for an image of 480 x 640 pixels",
        ),
        ((5, 5, 3), Canvas((8, 8), "crop"), "'stretch' or 'short', got 'crop'"),
        ((5, 5), Canvas((8, 8)), r"expected an image \[h, w, C\], got shape \(5, 5\)"),
        ((0, 5, 3), Canvas((8, 8)), r"expected an image \[h, w, C\], got shape \(0, 5, 3\)"),
    ],
)
def test_mistakes_are_one_line(shape, canvas, message):
    with pytest.raises(ValueError, match=message) as caught:
        letterbox(np.zeros(shape, np.uint8), canvas)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="expected an image of uint8 or floats, got int64"):
        letterbox(np.zeros((2, 2, 1), np.int64), Canvas((2, 2)))


def test_normalized_is_zero_outside_of_the_picture():
    card = Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1), size=(1, 1))
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    sizes = np.int32([[4, 3], [2, 5]])
    seen = jax.jit(normalize_canvas, static_argnums=2)(jnp.asarray(image), jnp.asarray(sizes), card)
    expected = (image / 255 - np.array(card.mean)) / np.array(card.std)
    expected[0, :, 3:] = 0
    expected[1, 2:] = 0
    assert seen.dtype == jnp.float32
    np.testing.assert_allclose(seen, expected, atol=1e-5)
