"""Several crops of one image in evaluation."""

import jax
import jax.numpy as jnp

from zoo.preprocess import Preprocessing, preprocess, resize


def ten_crops(image: jax.Array, preprocessing: Preprocessing) -> list[jax.Array]:
    """Returns the four corners and the center of images, and their mirror images.

    Images are resized as in `preprocess`, which does not resize if the data has the size / crop.

    Args:
        image: images [B, H, W, C] uint8, or floats in [0, 1].
        preprocessing: preprocessing of the model.

    Returns:
        Ten arrays [B, h, w, C], normalized for the model.

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
