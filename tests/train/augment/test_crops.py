"""Against Pillow, and the laws of the draws."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from train.augment import crops, geometry


def places(height: int, width: int) -> jax.Array:
    """[H, W, 2]: y and x of each pixel."""
    return jnp.asarray(np.stack(np.mgrid[:height, :width], -1), jnp.uint8)


def test_every_crop_is_as_likely():
    """Each cut is a window of the places, and each of the 3 x 5 corners is met."""
    keys = jax.random.split(jax.random.key(0), 1500)
    cut = jax.vmap(partial(crops.crop, image=places(6, 8), size=(4, 4)))(keys)
    corners = np.asarray(cut, int)[:, :1, :1]
    np.testing.assert_array_equal(cut, corners + np.asarray(places(4, 4)))
    counts = np.zeros((3, 5), int)
    np.add.at(counts, tuple(corners[:, 0, 0].T), 1)
    assert np.all(np.abs(counts - 100) < 5 * np.sqrt(100))


def test_a_crop_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match=r"cannot cut \(9, 4\) out of an image of \(6, 8\)"):
        crops.crop(jax.random.key(0), places(6, 8), size=(9, 4))


def test_pad_crop_pads_as_numpy_does(photograph):
    key = jax.random.key(3)
    zeros = crops.pad_crop(key, jnp.asarray(photograph), pixels=4)
    np.testing.assert_array_equal(zeros, geometry.shift(key, jnp.asarray(photograph), pixels=4))
    mirrored = crops.pad_crop(key, jnp.asarray(photograph), pixels=4, mode="reflect")
    padded = np.pad(photograph, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, photograph.shape)
    assert sum(np.array_equal(mirrored, window) for window in windows.reshape(-1, 24, 20, 3)) == 1


@pytest.mark.parametrize("size", [(8, 6), (24, 20), (31, 40)])
def test_resized_crop_is_pillows(photograph, size):
    """The same box through Pillow's resize, antialiased, within a level."""
    options = dict(area=(0.2, 0.9), ratio=(0.5, 2.0))
    cut = jax.jit(partial(crops.resized_crop, size=size, **options))
    for seed in range(4):
        key = jax.random.key(seed)
        y, x, height, width, _ = map(int, crops.sample_crop_box(key, 24, 20, **options))
        box = (x, y, x + width, y + height)
        theirs = Image.fromarray(photograph).resize(size[::-1], Image.Resampling.BILINEAR, box)
        difference = np.asarray(cut(key, jnp.asarray(photograph)), int) - np.asarray(theirs, int)
        assert np.abs(difference).max() <= 1


def test_boxes_keep_their_bounds_and_law():
    keys = jax.random.split(jax.random.key(0), 2000)
    draw = partial(crops.sample_crop_box, height=100, width=150, area=(0.1, 0.5), ratio=(0.5, 2.0))
    box = jax.tree.map(np.asarray, jax.jit(jax.vmap(draw))(keys))
    assert np.all(box.accepted)
    assert np.all((box.y >= 0) & (box.x >= 0))
    assert np.all((box.y + box.height <= 100) & (box.x + box.width <= 150))
    areas, ratios = box.height * box.width / 15_000, box.width / box.height
    assert 0.095 < areas.min() < 0.11 and 0.45 < areas.max() < 0.505
    assert 0.49 < ratios.min() < 0.53 and 1.9 < ratios.max() < 2.03
    assert abs(np.log(ratios).mean()) < 0.1
    free = (box.y / np.maximum(100 - box.height, 1), box.x / np.maximum(150 - box.width, 1))
    assert all(abs(place.mean() - 0.5) < 5 * np.sqrt(1 / 12 / 2000) + 0.01 for place in free)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((10, 100), (0, 44, 10, 13)), ((100, 10), (44, 0, 13, 10)), ((10, 10), (0, 0, 10, 10))],
)
def test_where_nothing_fits_the_middle_is_taken(shape, expected):
    """A box of more than the whole image fits nowhere."""
    box = crops.sample_crop_box(jax.random.key(0), *shape, area=(2.0, 2.0), ratio=(3 / 4, 4 / 3))
    assert not box.accepted
    y, x, height, width = expected
    assert (int(box.height), int(box.width)) == (height, width)
    assert abs(int(box.y) - y) <= 1 and abs(int(box.x) - x) <= 1
