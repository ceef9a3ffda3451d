"""Against Pillow, the standard library, numpy and the laws of color."""

import colorsys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from train.augment import color
from train.augment.pixels import from_unit, to_unit

ENHANCE = {
    "brightness": (color.adjust_brightness, ImageEnhance.Brightness),
    "contrast": (color.adjust_contrast, ImageEnhance.Contrast),
    "saturation": (color.adjust_saturation, ImageEnhance.Color),
    "sharpness": (color.adjust_sharpness, ImageEnhance.Sharpness),
}
FACTORS = jnp.array([0.0, 0.35, 1.0, 1.7, 3.0])


@pytest.mark.parametrize("name", ENHANCE)
def test_adjustments_are_pillows(photograph, name):
    """Within a level, where Pillow cuts off; and its gray is of whole levels, so within two."""
    ours, theirs = ENHANCE[name]
    adjusted = jax.jit(jax.vmap(ours, in_axes=(None, 0)))(jnp.asarray(photograph), FACTORS)
    for factor, image in zip(FACTORS, np.asarray(adjusted, int), strict=True):
        expected = theirs(Image.fromarray(photograph)).enhance(float(factor))
        bound = 1 + abs(1 - float(factor))
        assert np.abs(image - np.asarray(expected, int)).max() <= bound
    np.testing.assert_array_equal(adjusted[2], photograph)
    assert np.abs(np.asarray(adjusted[4], int) - photograph).max() > 20


def test_adjustments_of_one_channel():
    gray = jnp.asarray(np.arange(64).reshape(8, 8, 1), jnp.uint8)
    np.testing.assert_array_equal(color.adjust_saturation(gray, 0.0), gray)
    np.testing.assert_array_equal(color.adjust_hue(gray, 0.3), gray)
    with pytest.raises(ValueError, match="1 or 3 channels, got 4"):
        color.adjust_saturation(jnp.zeros((8, 8, 4)), 0.0)


def test_smooth_is_pillows(photograph):
    theirs = np.asarray(Image.fromarray(photograph).filter(ImageFilter.SMOOTH), int)
    ours = from_unit(color.smooth_kernel(to_unit(jnp.asarray(photograph))), jnp.dtype(jnp.uint8))
    assert np.abs(np.asarray(ours, int) - theirs).max() <= 1


@pytest.mark.parametrize("turn", [0.0, 0.2, -0.45, 0.77])
def test_hue_is_the_standard_librarys(photograph, turn):
    image = photograph.copy()
    image[0] = [[0, 0, 0], [255, 255, 255], [90, 90, 90], [255, 0, 0], [0, 255, 0]] * 4

    def expected(pixel):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
        return colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)

    theirs = np.apply_along_axis(expected, -1, image)
    ours = jax.jit(color.adjust_hue)(jnp.asarray(image / 255, jnp.float32), turn)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_whole_turn_of_hue_is_none(photograph):
    for turns in (1.0, -2.0):
        turned = jax.jit(color.adjust_hue)(jnp.asarray(photograph), turns)
        np.testing.assert_array_equal(turned, photograph)


@pytest.mark.parametrize("deviation", [0.3, 1.5, 6.0])
def test_blur_is_a_normalized_convolution(photograph, deviation):
    """Every pixel by the sum over all others, written out."""
    y, x = np.mgrid[:24, :20]
    distance = (y[..., None, None] - y) ** 2 + (x[..., None, None] - x) ** 2
    weights = np.exp(-distance / (2 * deviation**2))
    weights /= weights.sum((2, 3), keepdims=True)
    theirs = np.einsum("yxhw,hwc->yxc", weights, photograph / 255)
    ours = jax.jit(color.adjust_blur)(jnp.asarray(photograph / 255, jnp.float32), deviation)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_noise_has_its_deviation():
    gray = jnp.full((64, 64, 3), 0.5)
    noisy = np.asarray(color.noise(jax.random.key(0), gray, deviation=0.1))
    assert abs(noisy.std() - 0.1) < 0.003 and abs(noisy.mean() - 0.5) < 0.004
    assert len(np.unique(noisy[0, 0])) == 3, "each channel has its own"


def test_pca_color_lies_along_the_axes():
    """Over many keys the added colors have the published directions and deviations."""
    directions, deviations = np.array(color.PCA_DIRECTIONS), np.array(color.PCA_DEVIATIONS)
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=2e-4)
    keys = jax.random.split(jax.random.key(0), 4000)
    gray = jnp.full((2, 2, 3), 0.5)
    drawn = jax.jit(jax.vmap(partial(color.pca_color, image=gray, deviation=0.1)))(keys)
    added = np.asarray(drawn, np.float64) - 0.5
    np.testing.assert_array_equal(added, np.broadcast_to(added[:, :1, :1], added.shape))
    along = added[:, 0, 0] @ directions
    np.testing.assert_allclose(along.std(0), 0.1 * deviations, rtol=0.06)
    assert np.abs(np.corrcoef(along.T) - np.eye(3)).max() < 0.08
    with pytest.raises(ValueError, match="of 3 channels, got 1"):
        color.pca_color(jax.random.key(0), jnp.zeros((4, 4, 1)))


def test_factors_are_uniform_in_their_range():
    """A gray of 0.4 times a factor in 1 +- 0.5 spreads evenly over 0.2 to 0.6."""
    keys = jax.random.split(jax.random.key(0), 1000)
    image = jnp.full((1, 1, 1), 0.4)
    levels = jax.vmap(partial(color.brightness, image=image, amount=0.5))(keys).ravel()
    counts = np.histogram(levels, 5, (0.2, 0.6))[0]
    assert counts.sum() == 1000
    assert np.all(np.abs(counts - 200) < 5 * np.sqrt(160))
    assert float(jax.vmap(partial(color.draw_factor, amount=3.0))(keys).min()) >= 0


def test_units():
    levels = jnp.arange(256, dtype=jnp.uint8)
    np.testing.assert_array_equal(from_unit(to_unit(levels), levels.dtype), levels)
    half = to_unit(jnp.array([0.25], jnp.bfloat16))
    assert half.dtype == jnp.float32 and from_unit(half, jnp.bfloat16).dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="uint8 or of floats in .*, got int32"):
        to_unit(jnp.array([1]))


@pytest.mark.parametrize(("turn", "saturation", "exposure"), [(0.0, 1.5, 1.0), (0.1, 0.7, 1.4)])
def test_hsv_is_colorsys_s(turn, saturation, exposure):
    image = np.random.default_rng(0).random((4, 4, 3)).astype(np.float32)
    ours = color.adjust_hsv(jnp.asarray(image), turn, saturation, exposure)

    def one(pixel):
        hue, own, value = colorsys.rgb_to_hsv(*pixel.tolist())
        return colorsys.hsv_to_rgb((hue + turn) % 1, own * saturation, value * exposure)

    expected = np.clip(np.apply_along_axis(one, -1, image.astype(float)), 0, 1)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_hsv_multiplies_and_divides_alike():
    gray = jnp.full((1, 1, 1), 0.25, jnp.float32)
    keys = jax.random.split(jax.random.key(0), 400)
    drawn = np.asarray(jax.vmap(color.hsv, in_axes=(0, None))(keys, gray)).ravel() / 0.25
    assert 1 / 1.5 <= drawn.min() < 0.69 and 1.45 < drawn.max() <= 1.5
    assert abs((drawn > 1).mean() - 0.5) < 0.13
