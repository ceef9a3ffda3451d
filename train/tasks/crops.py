"""Several looks at one image in evaluation."""

import jax
import jax.numpy as jnp

from zoo.preprocess import Preprocessing, preprocess, resize


def ten_crops(image: jax.Array, preprocessing: Preprocessing) -> list[jax.Array]:
    """[B, H, W, C] uint8, or floats in [0, 1] -> ten times [B, h, w, C], ready for the model.

    Resized as `preprocess` does (not at all, where the data is opened at size / crop); then the
    four corners, the center that `preprocess` cuts, and the mirror images of the five.

    Source: Krizhevsky et al. 2012, section 4.1.

    >>> card = Preprocessing((0.5,), (0.5,), size=(28, 28), crop=0.875)
    >>> [part.shape for part in ten_crops(jnp.zeros((2, 32, 32, 1)), card)] == 10 * [(2, 28, 28, 1)]
    True
    """
    if image.dtype == jnp.uint8:
        image = image.astype(jnp.float32) / 255
    image = resize(image, preprocessing)
    height, width = preprocessing.size
    down, right = image.shape[1] - height, image.shape[2] - width
    corners = [(0, 0), (0, right), (down, 0), (down, right), (round(down / 2), round(right / 2))]
    exact = preprocessing._replace(crop=1.0)
    parts = [
        preprocess(image[:, top : top + height, left : left + width], exact)
        for top, left in corners
    ]
    return parts + [jnp.flip(part, 2) for part in parts]
