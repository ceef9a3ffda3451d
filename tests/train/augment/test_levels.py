"""Tables of levels against Pillow's ImageOps: to the level, where Pillow does not cut off."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageOps

from train.augment import levels

CASES = {
    **{f"posterize {bits}": ("posterize", dict(bits=bits)) for bits in (1, 2, 4, 7, 8)},
    **{f"solarize {t}": ("solarize", dict(threshold=t)) for t in (0, 77, 128.5, 256)},
    "invert": ("invert", {}),
    "equalize": ("equalize", {}),
    "autocontrast": ("autocontrast", {}),
}


def images() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "every level": np.resize(np.arange(256), (40, 30, 3)),
        "faint": generator.integers(90, 141, (40, 30, 3)),
        "dark with a few lights": np.square(generator.integers(0, 16, (40, 30, 3))),
        "a constant channel": generator.integers(0, 256, (40, 30, 3)) * [1, 0, 1] + [0, 9, 0],
        "few pixels": generator.integers(0, 256, (4, 3, 3)),
        "one channel": generator.integers(30, 200, (40, 30, 1)),
    }


@pytest.mark.parametrize("case", CASES)
def test_is_pillows(case):
    name, options = CASES[case]
    function = jax.jit(partial(getattr(levels, name), **options))
    pointwise = name not in ("equalize", "autocontrast")
    for kind, image in list(images().items())[: 1 if pointwise else None]:
        image = image.astype(np.uint8)
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        theirs = np.asarray(getattr(ImageOps, name)(picture, *options.values()), int)
        ours = function(jnp.asarray(image))
        assert ours.dtype == jnp.uint8
        difference = np.abs(np.asarray(ours, int) - theirs.reshape(image.shape)).max()
        assert difference <= (1 if name == "autocontrast" else 0), kind


def test_floats_go_through_the_nearest_level():
    image = jnp.asarray(images()["faint"], jnp.uint8)
    near = image.astype(jnp.float32) / 255 + 0.3 / 255
    for name, options in CASES.values():
        function = getattr(levels, name)
        floats = function(near, **options)
        assert floats.dtype == jnp.float32
        np.testing.assert_allclose(floats * 255, function(image, **options), atol=1e-3)


def test_bits_and_threshold_may_be_drawn():
    image = jnp.asarray(images()["every level"], jnp.uint8)
    many = jax.jit(jax.vmap(lambda bits: levels.posterize(image, bits=bits)))(jnp.arange(1, 9))
    assert [len(np.unique(one)) for one in many] == [2, 4, 8, 16, 32, 64, 128, 256]
