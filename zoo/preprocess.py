"""Images as files and data sets hold them to what a model takes: the one place."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

TINY = 1e-6  # what a quotient of floats may fall short of a whole number


class Preprocessing(NamedTuple):
    """What a model was trained on: pixels in [0, 1] less `mean`, over `std`, both per channel.

    `size` is (height, width) in pixels, `crop` the part of the resized short side that is kept.

    Source: the evaluation protocol of torchvision and timm.

    >>> Preprocessing(mean=(0.5,), std=(0.5,), size=(32, 32)).crop
    1.0
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]
    crop: float = 1.0
    interpolation: str = "bilinear"


def uncropped(preprocessing: Preprocessing) -> tuple[int, int, int]:
    """-> (height, width, channels) of the images that `preprocess` crops but need not resize.

    >>> uncropped(Preprocessing((0.5,), (0.5,), size=(224, 224), crop=0.875))
    (256, 256, 1)
    """
    height, width = (int(side / preprocessing.crop + TINY) for side in preprocessing.size)
    return height, width, len(preprocessing.mean)


def resize(image: jax.Array, preprocessing: Preprocessing) -> jax.Array:
    """`[B, H, W, C] -> [B, h, w, C]`, keeping the aspect, so that `size` is `crop` of it or less.

    Source: torchvision's Resize (antialiased) as its evaluation presets use it; the long side is
    rounded down as there.

    >>> small = Preprocessing((0.5,), (0.5,), size=(28, 28), crop=0.875)
    >>> resize(jnp.zeros((1, 64, 128, 1)), small).shape
    (1, 32, 64, 1)
    """
    old_height, old_width = image.shape[1:3]
    height, width, _ = uncropped(preprocessing)
    if height / old_height > width / old_width:
        width = int(height * old_width / old_height + TINY)
    else:
        height = int(width * old_height / old_width + TINY)
    if (height, width) == (old_height, old_width):
        return image
    shape = (image.shape[0], height, width, image.shape[3])
    method = {"bicubic": "cubic", "bilinear": "linear"}
    return jax.image.resize(
        image, shape, method.get(preprocessing.interpolation, preprocessing.interpolation)
    )


def preprocess(image: jax.Array, preprocessing: Preprocessing) -> jax.Array:
    """`[B, H, W, C] -> [B, h, w, C]` float32, resized, cropped in the centre and normalised.

    `image` is uint8, or float in [0, 1]. Pure and jit-able; an image that has the size is not
    resized. A ValueError tells of a wrong rank, kind of number or number of channels.

    Source: torchvision's evaluation presets (Resize, CenterCrop, Normalize).

    >>> card = Preprocessing(mean=(0.5,), std=(0.25,), size=(2, 2))
    >>> preprocess(jnp.full((1, 2, 2, 1), 255, jnp.uint8), card).tolist()
    [[[[2.0], [2.0]], [[2.0], [2.0]]]]
    """
    channels = len(preprocessing.mean)
    if image.ndim != 4 or image.shape[3] != channels:
        raise ValueError(f"expected images [B, H, W, {channels}], got shape {image.shape}")
    if image.dtype == jnp.uint8:
        image = image.astype(jnp.float32) / 255
    elif not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(f"expected images of uint8, or float in [0, 1], got {image.dtype}")
    image = resize(image.astype(jnp.float32), preprocessing)
    height, width = preprocessing.size
    top = round((image.shape[1] - height) / 2)
    left = round((image.shape[2] - width) / 2)
    image = image[:, top : top + height, left : left + width]
    mean = jnp.asarray(preprocessing.mean, jnp.float32).reshape(1, 1, 1, channels)
    std = jnp.asarray(preprocessing.std, jnp.float32).reshape(1, 1, 1, channels)
    return (image - mean) / std
