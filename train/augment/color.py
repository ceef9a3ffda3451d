"""Augmentation of the colors of one image.

Images are uint8, or floats in [0, 1], and keep their dtype. The adjust_ functions take no key. The
random functions and the policies apply them, with the definitions of Pillow's ImageEnhance.
"""

import jax
import jax.numpy as jnp

from train.augment.pixels import from_unit, to_unit

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow's "L"

# Principal components of ImageNet's colors in [0, 1], as published with fb.resnet.torch: the
# square roots of the variances, and the directions in columns.
PCA_DEVIATIONS = (0.2175, 0.0188, 0.0045)
PCA_DIRECTIONS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)


def brightness(key: jax.Array, image: jax.Array, *, amount: float) -> jax.Array:
    """Multiplies an image by a random factor in 1 +- amount.

    Args:
        key: random key [].
        image: image [H, W, C].
        amount: largest deviation of the factor from 1.

    Returns:
        The image.

    >>> brightness(jax.random.key(0), jnp.ones((8, 8, 3)), amount=0.4).shape
    (8, 8, 3)
    """
    return adjust_brightness(image, draw_factor(key, amount))


def contrast(key: jax.Array, image: jax.Array, *, amount: float) -> jax.Array:
    """Multiplies the distance to the mean gray by a random factor in 1 +- amount.

    Args:
        key: random key [].
        image: image [H, W, C].
        amount: largest deviation of the factor from 1.

    Returns:
        The image.

    >>> contrast(jax.random.key(0), jnp.ones((8, 8, 3)), amount=0.4).shape
    (8, 8, 3)
    """
    return adjust_contrast(image, draw_factor(key, amount))


def saturation(key: jax.Array, image: jax.Array, *, amount: float) -> jax.Array:
    """Multiplies the distance of each pixel to gray by a random factor in 1 +- amount.

    Args:
        key: random key [].
        image: image [H, W, C].
        amount: largest deviation of the factor from 1.

    Returns:
        The image.

    >>> saturation(jax.random.key(0), jnp.ones((8, 8, 3)), amount=0.4).shape
    (8, 8, 3)
    """
    return adjust_saturation(image, draw_factor(key, amount))


def hue(key: jax.Array, image: jax.Array, *, amount: float) -> jax.Array:
    """Rotates the hues by a random angle.

    Args:
        key: random key [].
        image: image [H, W, C].
        amount: largest rotation in turns.

    Returns:
        The image.

    >>> hue(jax.random.key(0), jnp.ones((8, 8, 3)), amount=0.1).shape
    (8, 8, 3)
    """
    return adjust_hue(image, jax.random.uniform(key, (), minval=-amount, maxval=amount))


def hsv(
    key: jax.Array,
    image: jax.Array,
    *,
    hue: float = 0.1,
    saturation: float = 1.5,
    exposure: float = 1.5,
) -> jax.Array:
    """Changes hue, saturation and value as YOLO does.

    Saturation and value are multiplied or divided by a random factor, with equal probability.

    Args:
        key: random key [].
        image: image [H, W, C].
        hue: largest rotation of the hue in turns.
        saturation: largest factor of the saturation.
        exposure: largest factor of the value.

    Returns:
        The image.

    Source: Redmon et al. 2016, section 2.2, for saturation and exposure of 1.5; darknet's
    random_distort_image for the draws and its hue, which the cards of later versions have at 0.1.

    >>> hsv(jax.random.key(0), jnp.ones((8, 8, 3))).shape
    (8, 8, 3)
    """
    draws = jax.random.uniform(key, (5,))
    factors = 1 + draws[:2] * (jnp.array([saturation, exposure]) - 1)
    factors = jnp.where(draws[2:4] < 0.5, factors, 1 / factors)
    return adjust_hsv(image, hue * (2 * draws[4] - 1), factors[0], factors[1])


def noise(key: jax.Array, image: jax.Array, *, deviation: float) -> jax.Array:
    """Adds Gaussian noise.

    Args:
        key: random key [].
        image: image [H, W, C].
        deviation: standard deviation, for values in [0, 1].

    Returns:
        The image.

    >>> noise(jax.random.key(0), jnp.ones((8, 8, 3)), deviation=0.1).shape
    (8, 8, 3)
    """
    drawn = deviation * jax.random.normal(key, image.shape)
    return from_unit(to_unit(image) + drawn, image.dtype)


def pca_color(key: jax.Array, image: jax.Array, *, deviation: float = 0.1) -> jax.Array:
    """Adds a random color along the principal components of the colors of ImageNet.

    Args:
        key: random key [].
        image: image [H, W, 3].
        deviation: standard deviation of the coefficients.

    Returns:
        The image.

    Raises:
        ValueError: if the image does not have three channels.

    Source: Krizhevsky et al. 2012, section 4.1; the constants from fb.resnet.torch, since the paper
    has none.

    >>> pca_color(jax.random.key(0), jnp.ones((8, 8, 3))).shape
    (8, 8, 3)
    """
    if image.shape[-1] != 3:
        raise ValueError(f"the color axes are of 3 channels, got {image.shape[-1]}")
    drawn = deviation * jax.random.normal(key, (3,)) * jnp.array(PCA_DEVIATIONS)
    color = jnp.sum(jnp.array(PCA_DIRECTIONS) * drawn[None], -1)
    return from_unit(to_unit(image) + jnp.reshape(color, (1, 1, 3)), image.dtype)


def blur(
    key: jax.Array, image: jax.Array, *, deviations: tuple[float, float] = (0.1, 2.0)
) -> jax.Array:
    """Applies a Gaussian blur of random strength.

    Args:
        key: random key [].
        image: image [H, W, C].
        deviations: smallest and largest standard deviation in pixels.

    Returns:
        The image.

    Source: Chen et al. 2020 (SimCLR), appendix A.

    >>> blur(jax.random.key(0), jnp.ones((8, 8, 3))).shape
    (8, 8, 3)
    """
    low, high = deviations
    return adjust_blur(image, jax.random.uniform(key, (), minval=low, maxval=high))


def draw_factor(key: jax.Array, amount: float) -> jax.Array:
    """Draws a factor [] in 1 +- amount that is at least 0."""
    return jax.random.uniform(key, (), minval=max(0.0, 1.0 - amount), maxval=1.0 + amount)


def adjust_brightness(image: jax.Array, factor: float | jax.Array) -> jax.Array:
    """Multiplies an image [H, W, C] by a factor []; 0 is black, 1 the image."""
    return blend(image, jnp.zeros((1, 1, 1)), factor)


def adjust_contrast(image: jax.Array, factor: float | jax.Array) -> jax.Array:
    """Blends an image [H, W, C] with its mean gray; factor 0 is the mean gray, 1 the image."""
    return blend(image, jnp.mean(to_gray(to_unit(image)), keepdims=True), factor)


def adjust_saturation(image: jax.Array, factor: float | jax.Array) -> jax.Array:
    """Blends an image [H, W, C] with its gray image; factor 0 is the gray image, 1 the image."""
    return blend(image, to_gray(to_unit(image)), factor)


def adjust_sharpness(image: jax.Array, factor: float | jax.Array) -> jax.Array:
    """Blends an image [H, W, C] with its `smooth_kernel`; factor 0 is that, 1 the image."""
    return blend(image, smooth_kernel(to_unit(image)), factor)


def adjust_hue(image: jax.Array, turn: float | jax.Array) -> jax.Array:
    """Rotates the hues of an image by an angle.

    A gray image has no hue and does not change.

    Args:
        image: image [H, W, C].
        turn: rotation [] in turns.

    Returns:
        The image.

    Raises:
        ValueError: if C is neither 1 nor 3.
    """
    return adjust_hsv(image, turn, 1.0, 1.0) if is_color(image) else image


def adjust_hsv(
    image: jax.Array,
    turn: float | jax.Array,
    saturation: float | jax.Array,
    exposure: float | jax.Array,
) -> jax.Array:
    """Rotates the hues and multiplies saturation and value.

    RGB values are clipped to [0, 1], as in darknet's distort_image. Only the value of a gray image
    changes.

    Args:
        image: image [H, W, C].
        turn: rotation [] in turns.
        saturation: factor [] of the saturation.
        exposure: factor [] of the value.

    Returns:
        The image.

    Raises:
        ValueError: if C is neither 1 nor 3.
    """
    unit = to_unit(image)
    if not is_color(image):
        return from_unit(exposure * unit, image.dtype)
    red, green, blue = unit[..., 0], unit[..., 1], unit[..., 2]
    value = jnp.max(unit, -1)
    chroma = value - jnp.min(unit, -1)
    safe = jnp.where(chroma > 0, chroma, 1.0)
    sextant = jnp.where(
        value == red,
        (green - blue) / safe,
        jnp.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    place = sextant[..., None] + 6 * turn + jnp.array([5.0, 3.0, 1.0]).reshape(1, 1, 3)
    place = jnp.mod(place, 6.0)
    share = jnp.clip(jnp.minimum(place, 4 - place), 0.0, 1.0)
    mixed = value[..., None] - saturation * chroma[..., None] * share
    return from_unit(exposure * mixed, image.dtype)


def adjust_blur(image: jax.Array, deviation: float | jax.Array) -> jax.Array:
    """Applies a Gaussian blur; weights at the border also sum to 1.

    It multiplies by two dense matrices, so that the deviation can be a traced value. A kernel would
    need a static size.

    Args:
        image: image [H, W, C].
        deviation: standard deviation [] in pixels.

    Returns:
        The image.
    """

    def weights(size: int) -> jax.Array:
        place = jnp.arange(size, dtype=jnp.float32)
        falling = jnp.exp(-0.5 * jnp.square((place[:, None] - place[None]) / deviation))
        return falling / jnp.sum(falling, -1, keepdims=True)

    height, width, _ = image.shape
    blurred = jnp.einsum(
        "yh,hwc,xw->yxc", weights(height), to_unit(image), weights(width), precision="highest"
    )
    return from_unit(blurred, image.dtype)


def blend(image: jax.Array, other: jax.Array, factor: float | jax.Array) -> jax.Array:
    """Blends an image with another one.

    Args:
        image: image [H, W, C].
        other: other image, floats in [0, 1].
        factor: factor []: 0 is the other image, 1 the image, larger values extrapolate.

    Returns:
        The image.
    """
    return from_unit(other + factor * (to_unit(image) - other), image.dtype)


def to_gray(unit: jax.Array) -> jax.Array:
    """Converts an image [H, W, C] to its luma [H, W, 1]; raises ValueError if C is not 1 or 3."""
    if not is_color(unit):
        return unit
    return jnp.sum(unit * jnp.array(LUMA).reshape(1, 1, 3), -1, keepdims=True)


def is_color(image: jax.Array) -> bool:
    """Returns whether an image has 3 channels; raises ValueError if it has neither 1 nor 3."""
    if image.shape[-1] not in (1, 3):
        raise ValueError(f"expected an image of 1 or 3 channels, got {image.shape[-1]}")
    return image.shape[-1] == 3


def smooth_kernel(unit: jax.Array) -> jax.Array:
    """Smooths an image with weights 1 for 3x3 neighbors and 5 for the pixel; borders stay.

    Source: Pillow's ImageFilter.SMOOTH.
    """
    rows = unit[:-2] + unit[1:-1] + unit[2:]
    nine = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    inner = (nine + 4 * unit[1:-1, 1:-1]) / 13
    return unit.at[1:-1, 1:-1].set(inner)
