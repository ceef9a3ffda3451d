"""What holds for every function of one key and one image."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import augment

FUNCTIONS = {
    "flip": augment.flip,
    "shift": partial(augment.shift, pixels=2),
    "crop": partial(augment.crop, size=(12, 12)),
    "pad_crop": augment.pad_crop,
    "resized_crop": partial(augment.resized_crop, size=(16, 16)),
    "rotate": partial(augment.rotate, degrees=30.0),
    "rotate nearest": partial(augment.rotate, degrees=30.0, method="nearest", fill=0.5),
    "translate": partial(augment.translate, share=0.2),
    "scale": partial(augment.scale, factors=(0.5, 2.0)),
    "affine": partial(augment.affine, degrees=20.0, translation=0.1, shear=10.0),
    "brightness": partial(augment.brightness, amount=0.8),
    "contrast": partial(augment.contrast, amount=0.8),
    "saturation": partial(augment.saturation, amount=0.8),
    "hue": partial(augment.hue, amount=0.5),
    "hsv": augment.hsv,
    "noise": partial(augment.noise, deviation=0.2),
    "pca_color": partial(augment.pca_color, deviation=1.0),
    "blur": augment.blur,
    "erase": augment.erase,
    "auto_augment": partial(augment.auto_augment, policy=augment.CIFAR10),
    "rand_augment": augment.rand_augment,
    "trivial_augment": augment.trivial_augment,
}
COLORED = {"pca_color"}
PLAIN = {"auto_augment": 1, "rand_augment": 1, "trivial_augment": 1}  # compiled for each call
KEYS = 6


def keys() -> jax.Array:
    return jax.random.split(jax.random.key(7), KEYS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_laws(photograph, name):
    """jit and vmap are a plain loop; dtype and range stay; keys matter; floats are levels / 255."""
    function = FUNCTIONS[name]
    image = jnp.asarray(photograph)
    many = np.asarray(jax.jit(jax.vmap(function, in_axes=(0, None)))(keys(), image))
    assert many.dtype == np.uint8 and len(np.unique(many.reshape(KEYS, -1), axis=0)) > 1
    plain = [function(key, image) for key in keys()[: PLAIN.get(name, 2)]]
    for one, own in zip(plain, many, strict=False):
        assert np.abs(np.asarray(one, int) - own).max() <= 1
    if name not in PLAIN:  # the policies' floats: test_policies
        floats = np.asarray(function(keys()[0], image.astype(jnp.float32) / 255))
        assert floats.dtype == np.float32 and 0 <= floats.min() and floats.max() <= 1
        assert np.abs(255 * floats - many[0]).max() < 1.01


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - COLORED))
def test_one_channel(photograph, name):
    gray = jax.ShapeDtypeStruct((24, 20, 1), jnp.uint8)
    result = jax.eval_shape(FUNCTIONS[name], jax.random.key(0), gray)
    assert result.dtype == jnp.uint8 and result.shape[-1] == 1
