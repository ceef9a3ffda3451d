"""Against Pillow, numpy and the laws of flips, turns and draws."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from train.augment import geometry

PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
}
MATRICES = {
    "identity": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "moved": (1.0, 0.0, 3.0, 0.0, 1.0, -2.0),
    "moved by parts": (1.0, 0.0, 0.3, 0.0, 1.0, -1.4),
    "sheared": (1.0, 0.31, 0.0, 0.0, 1.0, 0.0),
    "enlarged": (0.61, 0.0, 2.2, 0.0, 0.61, 3.1),
    "reduced": (1.43, 0.0, -3.3, 0.0, 1.43, -4.1),
    "all of it": (0.8137, 0.3719, -1.31, -0.2913, 1.1731, 2.93),
}
warp = {method: jax.jit(partial(geometry.warp, method=method)) for method in PILLOW}


@pytest.mark.parametrize("method", PILLOW)
@pytest.mark.parametrize("name", MATRICES)
def test_warp_is_pillows(photograph, method, name):
    """Pillow samples in fixed point: a point on the border of two pixels may go either way."""
    matrix = MATRICES[name]
    height, width, _ = photograph.shape
    theirs = Image.fromarray(photograph).transform(
        (width, height), Image.Transform.AFFINE, matrix, PILLOW[method]
    )
    ours = warp[method](photograph, jnp.array(matrix).reshape(2, 3))
    difference = np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max(-1)
    assert np.mean(difference > 1) < 0.01
    assert np.asarray(ours).std() > 20


@pytest.mark.parametrize("degrees", [-135.0, -20.0, 7.0, 90.0])
def test_turns_are_pillows(photograph, degrees):
    height, width, _ = photograph.shape
    matrix = geometry.inverse_about_center(
        geometry.rotation_matrix(jnp.deg2rad(degrees)), jnp.zeros(2), height=height, width=width
    )
    theirs = np.asarray(Image.fromarray(photograph).rotate(degrees, PILLOW["bilinear"]), int)
    difference = np.abs(np.asarray(warp["bilinear"](photograph, matrix), int) - theirs).max(-1)
    assert np.mean(difference > 1) < 0.01


def test_inverse_about_center_undoes():
    linear, move = jnp.array([[1.1, 0.3], [-0.2, 0.7]]), jnp.array([3.0, -2.0])
    matrix = geometry.inverse_about_center(linear, move, height=24, width=20)
    center, point = np.array([10.0, 12.0]), np.array([4.0, 7.0])
    moved = np.asarray(linear) @ (point - center) + center + np.asarray(move)
    np.testing.assert_allclose(matrix @ jnp.array([*moved, 1.0]), point, atol=1e-5)


def test_fill_stands_in_the_units_of_the_image(photograph):
    far = jnp.array([[1.0, 0.0, 100.0], [0.0, 1.0, 0.0]])
    for method in PILLOW:
        filled = geometry.warp(jnp.asarray(photograph), far, method=method, fill=0.5)
        assert filled.dtype == jnp.uint8 and np.unique(filled).tolist() == [128]
        filled = geometry.warp(jnp.asarray(photograph / 255, jnp.float32), far, fill=0.5)
        assert np.unique(filled).tolist() == [0.5]


def test_warp_says_its_methods(photograph):
    with pytest.raises(ValueError, match="'bilinear' or 'nearest', got 'cubic'"):
        geometry.warp(photograph, jnp.zeros((2, 3)), method="cubic")


def test_flip(photograph):
    key = jax.random.key(0)
    for vertical, expected in ((False, photograph[:, ::-1]), (True, photograph[::-1])):
        flip = partial(geometry.flip, key, vertical=vertical, probability=1.0)
        once = flip(jnp.asarray(photograph))
        np.testing.assert_array_equal(once, expected)
        np.testing.assert_array_equal(flip(once), photograph)


def test_half_of_the_draws_flip():
    keys = jax.random.split(jax.random.key(0), 1000)
    flipped = jax.vmap(partial(geometry.flip, image=jnp.array([[[0.0], [1.0]]])))(keys)[:, 0, 0, 0]
    assert abs(np.mean(flipped) - 0.5) < 5 * np.sqrt(0.25 / 1000)


def test_every_shift_is_as_likely():
    """One white pixel in the middle lands on each of 5 x 5 places, zeros around it."""
    keys = jax.random.split(jax.random.key(0), 2500)
    image = jnp.zeros((5, 5, 1), jnp.uint8).at[2, 2].set(255)
    shifted = jax.vmap(partial(geometry.shift, image=image, pixels=2))(keys)
    counts = np.sum(np.asarray(shifted)[..., 0] == 255, 0)
    assert counts.sum() == 2500
    assert np.all(np.abs(counts - 100) < 5 * np.sqrt(100))


def draws(function, *, image, count=400):
    keys = jax.random.split(jax.random.key(1), count)
    return np.asarray(jax.jit(jax.vmap(partial(function, image=image)))(keys))


def ramps(size: int) -> jax.Array:
    """[size, size, 2] floats: x and y of each pixel's center over the size."""
    y, x = np.mgrid[:size, :size]
    return jnp.asarray((np.stack([x, y], -1) + 0.5) / size, jnp.float32)


def middle(images: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Warped ramps -> where the center came from [N, 2] and the inverse's linear part [N, 2, 2]."""
    low, high = size // 2 - 1, size // 2
    block = images[:, low : high + 1, low : high + 1]
    along_x = (block[:, :, 1] - block[:, :, 0]).mean(1) * size
    along_y = (block[:, 1] - block[:, 0]).mean(1) * size
    return block.mean((1, 2)) * size, np.stack([along_x, along_y], -1)


def test_rotate_draws_uniform_angles():
    center, linear = middle(draws(partial(geometry.rotate, degrees=30.0), image=ramps(16)), 16)
    np.testing.assert_allclose(center, 8.0, atol=1e-3)
    np.testing.assert_allclose(np.linalg.det(linear), 1.0, atol=1e-3)
    degrees = np.rad2deg(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    assert np.all(np.abs(degrees) <= 30.01)
    assert np.all(np.abs(np.histogram(degrees, 4, (-30, 30))[0] - 100) < 5 * np.sqrt(75))


def test_translate_draws_uniform_moves():
    function = partial(geometry.translate, share=0.25)
    center, linear = middle(draws(function, image=ramps(16)), 16)
    np.testing.assert_allclose(linear, np.broadcast_to(np.eye(2), linear.shape), atol=1e-3)
    assert np.all(np.abs(center - 8) <= 4.01)
    for axis in (0, 1):
        counts = np.histogram(center[:, axis] - 8, 4, (-4, 4))[0]
        assert np.all(np.abs(counts - 100) < 5 * np.sqrt(75))


def test_scale_draws_uniform_logarithms():
    function = partial(geometry.scale, factors=(0.5, 2.0))
    center, linear = middle(draws(function, image=ramps(16)), 16)
    np.testing.assert_allclose(center, 8.0, atol=1e-3)
    logarithms = -np.log2(np.linalg.det(linear)) / 2
    assert np.all(np.abs(logarithms) <= 1.01)
    assert np.all(np.abs(np.histogram(logarithms, 4, (-1, 1))[0] - 100) < 5 * np.sqrt(75))


def test_affine_shears_within_its_bound():
    _, linear = middle(draws(partial(geometry.affine, shear=20.0), image=ramps(16)), 16)
    forward = np.linalg.inv(linear)
    np.testing.assert_allclose(forward[:, [0, 1], [0, 1]], 1.0, atol=2e-3)
    shears = np.rad2deg(np.arctan(forward[:, [0, 1], [1, 0]]))
    assert np.all(np.abs(shears) <= 20.1) and np.all(shears.std(0) > 8)


def test_affine_at_rest_changes_nothing(photograph):
    resting = geometry.affine(jax.random.key(0), jnp.asarray(photograph))
    np.testing.assert_array_equal(resting, photograph)
