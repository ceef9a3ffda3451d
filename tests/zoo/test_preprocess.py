"""Preprocessing: what a model sees of an image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.preprocess import Preprocessing, preprocess, resize

RGB = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (32, 32))
RANDOM = np.random.default_rng(0)


def test_normalizing():
    image = RANDOM.integers(0, 256, (2, 32, 32, 3), np.uint8)
    expected = (image / 255 - np.array(RGB.mean)) / np.array(RGB.std)
    y = jax.jit(lambda x: preprocess(x, RGB))(image)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    as_float = (image / 255).astype(np.float32)
    np.testing.assert_allclose(preprocess(as_float, RGB), expected, rtol=1e-5, atol=1e-5)


SIZES = [  # of the image; wanted; crop; what the resized image measures before the crop
    ((32, 32), (32, 32), 1.0, (32, 32)),
    ((28, 28), (32, 32), 1.0, (32, 32)),
    ((480, 640), (224, 224), 0.875, (256, 341)),
    ((640, 480), (224, 224), 0.875, (341, 256)),
    ((333, 500), (224, 224), 224 / 256, (256, 384)),
    ((100, 50), (299, 299), 1.0, (598, 299)),
    ((60, 40), (60, 40), 1.0, (60, 40)),
    ((90, 90), (60, 40), 1.0, (60, 60)),
]


@pytest.mark.parametrize(("size", "wanted", "crop", "resized"), SIZES)
def test_sizes(size, wanted, crop, resized):
    card = RGB._replace(size=wanted, crop=crop)
    image = jax.ShapeDtypeStruct((2, *size, 3), jnp.uint8)
    floats = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    assert jax.eval_shape(lambda x: resize(x, card), floats).shape == (2, *resized, 3)
    assert jax.eval_shape(lambda x: preprocess(x, card), image).shape == (2, *wanted, 3)


def test_center_crop_of_untouched_pixels():
    image = RANDOM.uniform(size=(1, 10, 12, 1)).astype(np.float32)
    card = Preprocessing((0.0,), (1.0,), size=(8, 8), crop=0.8)
    np.testing.assert_allclose(preprocess(image, card), image[:, 1:9, 2:10], rtol=1e-6)


def test_antialiased_bilinear_halving():
    """A triangle of twice the width: weights 1, 3, 3, 1 over 8, less at the border."""
    image = RANDOM.uniform(size=(1, 8, 8, 1)).astype(np.float32)
    weights = np.zeros((4, 8))
    for row in range(4):
        for offset, weight in zip((-1, 0, 1, 2), (1, 3, 3, 1), strict=True):
            if 0 <= 2 * row + offset < 8:
                weights[row, 2 * row + offset] = weight
    weights /= weights.sum(1, keepdims=True)
    expected = weights @ image[0, :, :, 0] @ weights.T
    small = resize(jnp.asarray(image), Preprocessing((0.0,), (1.0,), (4, 4)))
    np.testing.assert_allclose(small[0, :, :, 0], expected, rtol=1e-5, atol=1e-6)


def test_interpolations_differ():
    image = RANDOM.uniform(size=(1, 9, 9, 1)).astype(np.float32)
    card = Preprocessing((0.0,), (1.0,), (20, 20))
    sums = {
        name: float(jnp.square(preprocess(image, card._replace(interpolation=name))).sum())
        for name in ("nearest", "bilinear", "bicubic")
    }
    assert len(set(sums.values())) == 3


def test_a_clip_is_its_frames():
    clip = RANDOM.integers(0, 256, (2, 3, 40, 50, 3), np.uint8)
    card = RGB._replace(crop=0.9, frames=3)
    y = preprocess(clip, card)
    assert y.shape == (2, 3, 32, 32, 3)
    for t in range(3):
        expected = preprocess(clip[:, t], card._replace(frames=0))
        np.testing.assert_allclose(y[:, t], expected, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match=r"expected clips \[B, T, H, W, 3\], got shape \(2, 3, 40"):
        preprocess(clip[..., :2], card)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((32, 32, 3), np.uint8), r"expected images \[B, H, W, 3\], got shape \(32, 32, 3"),
        (np.zeros((1, 4, 32, 32, 3), np.uint8), r"expected images \[B, H, W, 3\]"),
        (np.zeros((1, 32, 32, 1), np.uint8), r"expected images \[B, H, W, 3\]"),
        (np.zeros((1, 32, 32, 3), np.int32), r"uint8, or float in \[0, 1\], got int32"),
    ],
)
def test_wrong_images(image, message):
    with pytest.raises(ValueError, match=message):
        preprocess(image, RGB)
