"""Augmentation that changes colors: one key and one image at a time, to be vmapped.

Every image is uint8 or floats in [0, 1] and comes back so. The adjust_ functions take no key:
they are what the random ones and the policies apply, after Pillow's ImageEnhance.
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
    """Key [], [H, W, C] -> [H, W, C], times a factor in 1 +- amount.

    >>> brightness(jax.random.key(0), jnp.ones((8, 8, 3)), amount=0.4).shape
    (8, 8, 3)
    """
    return adjust_brightness(image, draw_factor(key, amount))


def contrast(key: jax.Array, image: jax.Array, *, amount: float) -> jax.Array:
    """Key [], [H, W, C] -> [H, W, C], the distance to its mean gray times a factor in 1 +- amount.

    >>> contrast(jax.random.key(0), jnp.ones((8, 8, 3)), amount=0.4).shape
    (8, 8, 3)
    """
    return adjust_contrast(image, draw_factor(key, amount))


def saturation(key: jax.Array, image: jax.Array, *, amount: float) -> jax.Array:
    """Key [], [H, W, C] -> [H, W, C], each pixel's distance to gray times a factor in 1 +- amount.

    >>> saturation(jax.random.key(0), jnp.ones((8, 8, 3)), amount=0.4).shape
    (8, 8, 3)
    """
    return adjust_saturation(image, draw_factor(key, amount))


def hue(key: jax.Array, image: jax.Array, *, amount: float) -> jax.Array:
    """Key [], [H, W, C] -> [H, W, C], its hues moved round the circle by up to `amount` turns.

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
    """Key [], [H, W, C] -> [H, W, C]: hue, saturation and exposure (the value) of YOLO.

    The hue moves round the circle by up to `hue` turns; the others are multiplied by a factor
    between 1 and `saturation` or `exposure`, or divided by it, either as likely.

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
    """Key [], [H, W, C] -> [H, W, C] plus Gaussian noise, its standard deviation in [0, 1] units.

    >>> noise(jax.random.key(0), jnp.ones((8, 8, 3)), deviation=0.1).shape
    (8, 8, 3)
    """
    drawn = deviation * jax.random.normal(key, image.shape)
    return from_unit(to_unit(image) + drawn, image.dtype)


def pca_color(key: jax.Array, image: jax.Array, *, deviation: float = 0.1) -> jax.Array:
    """Key [], [H, W, 3] -> [H, W, 3] plus one color, drawn along ImageNet's main color axes.

    Errors: ValueError where the image has not three channels.

    Source: Krizhevsky et al. 2012, section 4.1; the constants from fb.resnet.torch, since the
    paper has none.

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
    """Key [], [H, W, C] -> [H, W, C], a Gaussian blur of between `deviations` pixels.

    Source: Chen et al. 2020 (SimCLR), appendix A.

    >>> blur(jax.random.key(0), jnp.ones((8, 8, 3))).shape
    (8, 8, 3)
    """
    low, high = deviations
    return adjust_blur(image, jax.random.uniform(key, (), minval=low, maxval=high))


def draw_factor(key: jax.Array, amount: float) -> jax.Array:
    """Key [] -> [], uniform in 1 +- amount, never below 0."""
    return jax.random.uniform(key, (), minval=max(0.0, 1.0 - amount), maxval=1.0 + amount)


def adjust_brightness(image: jax.Array, factor: float | jax.Array) -> jax.Array:
    """[H, W, C], factor [] -> [H, W, C]; 0 is black, 1 the image."""
    return blend(image, jnp.zeros((1, 1, 1)), factor)


def adjust_contrast(image: jax.Array, factor: float | jax.Array) -> jax.Array:
    """[H, W, C], factor [] -> [H, W, C]; 0 is the mean gray all over, 1 the image."""
    return blend(image, jnp.mean(to_gray(to_unit(image)), keepdims=True), factor)


def adjust_saturation(image: jax.Array, factor: float | jax.Array) -> jax.Array:
    """[H, W, C], factor [] -> [H, W, C]; 0 is the gray image, 1 the image."""
    return blend(image, to_gray(to_unit(image)), factor)


def adjust_sharpness(image: jax.Array, factor: float | jax.Array) -> jax.Array:
    """[H, W, C], factor [] -> [H, W, C]; 0 is the image after `smooth_kernel`, 1 the image."""
    return blend(image, smooth_kernel(to_unit(image)), factor)


def adjust_hue(image: jax.Array, turn: float | jax.Array) -> jax.Array:
    """[H, W, C], turn [] -> [H, W, C]; 1 is once round the circle of hues.

    Through hue, saturation and value; a gray image (C = 1) has no hue and stays.
    Errors: ValueError where C is neither 1 nor 3.
    """
    return adjust_hsv(image, turn, 1.0, 1.0) if is_color(image) else image


def adjust_hsv(
    image: jax.Array,
    turn: float | jax.Array,
    saturation: float | jax.Array,
    exposure: float | jax.Array,
) -> jax.Array:
    """[H, W, C], turn, factors [] -> [H, W, C]: hue turned, saturation and value multiplied.

    What leaves [0, 1] is cut when it is red, green and blue again, as in darknet's distort_image.
    Of a gray image (C = 1) the value alone. Errors: ValueError where C is neither 1 nor 3.
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
    """[H, W, C], deviation [] in pixels -> [H, W, C]; the border's weights sum to 1 too.

    Two products with dense weights, so that the deviation may be drawn inside jit; a kernel would
    need a fixed size.
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
    """[H, W, C], other in [0, 1], factor [] -> [H, W, C]; 0 is the other, above 1 away from it."""
    return from_unit(other + factor * (to_unit(image) - other), image.dtype)


def to_gray(unit: jax.Array) -> jax.Array:
    """[H, W, C] -> [H, W, 1], the luma of red, green, blue; one channel stays.

    Errors: ValueError where C is neither 1 nor 3.
    """
    if not is_color(unit):
        return unit
    return jnp.sum(unit * jnp.array(LUMA).reshape(1, 1, 3), -1, keepdims=True)


def is_color(image: jax.Array) -> bool:
    """[H, W, C] -> whether C is 3; ValueError where it is neither 1 nor 3."""
    if image.shape[-1] not in (1, 3):
        raise ValueError(f"expected an image of 1 or 3 channels, got {image.shape[-1]}")
    return image.shape[-1] == 3


def smooth_kernel(unit: jax.Array) -> jax.Array:
    """[H, W, C] -> [H, W, C]: 3x3 neighbors weighed 1, the pixel 5; the outermost pixels stay.

    Source: Pillow's ImageFilter.SMOOTH.
    """
    rows = unit[:-2] + unit[1:-1] + unit[2:]
    nine = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    inner = (nine + 4 * unit[1:-1, 1:-1]) / 13
    return unit.at[1:-1, 1:-1].set(inner)
