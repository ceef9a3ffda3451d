"""Image, mask, weight and instances move together; against numpy and scipy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from train import augment
from train.augment import geometry, sampling, scene

HEIGHT, WIDTH = 24, 20
Y, X = np.mgrid[:HEIGHT, :WIDTH]
KEYS = 5
FUNCTIONS = {
    "flip": scene.flip,
    "flip vertical": partial(scene.flip, vertical=True),
    "translate": partial(scene.translate, share=0.3),
    "rotate reflect": partial(scene.rotate, degrees=40.0, mode="reflect"),
    "scale": partial(scene.scale, factors=(0.5, 2.0)),
    "affine": partial(scene.affine, degrees=40.0, translation=0.2, shear=20.0),
    "elastic": partial(scene.elastic, deviation=3.0),
    "elastic reflect": partial(scene.elastic, deviation=3.0, points=4, mode="reflect"),
    "crop": partial(scene.crop, size=(16, 26)),
    "crop reflect": partial(scene.crop, size=(30, 12), mode="reflect"),
    "scaled_crop": partial(scene.scaled_crop, size=(18, 22)),
}
FULL = {"flip", "flip vertical"}  # nothing comes from outside


def keys(count: int = KEYS) -> jax.Array:
    return jax.random.split(jax.random.key(3), count)


def known_scene() -> dict[str, np.ndarray]:
    """Every entry tells where its pixels came from: (x, y) in the image, the number of the pixel."""
    ramps = np.stack([(X + 0.5) / WIDTH, (Y + 0.5) / HEIGHT, np.ones_like(X)], -1)
    return {
        "image": ramps.astype(np.float32),
        "mask": ((3 * X + 5 * Y) % 200).astype(np.uint8),
        "weight": (2 + X + 100 * Y).astype(np.float32),  # above 1: it is no image
        "instances": (1 + X + WIDTH * Y).astype(np.int32),
    }


def batch_of(one: dict, count: int = KEYS) -> dict:
    return {name: jnp.stack([jnp.asarray(value)] * count) for name, value in one.items()}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_of_a_scene_moves_by_the_same_points(name):
    batch = {**batch_of(known_scene()), "index": jnp.arange(KEYS)}
    moved = jax.jit(augment.scenes(FUNCTIONS[name]))(keys(), batch)
    moved = {entry: np.asarray(value) for entry, value in moved.items()}
    assert {entry: value.dtype for entry, value in moved.items()} == {
        entry: value.dtype for entry, value in batch.items()
    }
    np.testing.assert_array_equal(moved["index"], np.arange(KEYS))
    inside = moved["instances"] > 0
    assert inside.all() == (name in FULL) and inside.mean() > 0.25
    assert (moved["mask"][~inside] == 255).all() and (moved["weight"][~inside] == 0).all()
    assert moved["image"][~inside].any() == ("reflect" in name)

    row, column = np.divmod(moved["instances"] - 1, WIDTH)
    np.testing.assert_array_equal(moved["mask"][inside], ((3 * column + 5 * row) % 200)[inside])
    x, y = moved["image"][..., 0] * WIDTH, moved["image"][..., 1] * HEIGHT
    # In the outer half of the outermost pixels the border is repeated, or mirrored.
    inner = inside & (column > 0) & (column < WIDTH - 1) & (row > 0) & (row < HEIGHT - 1)
    near = [np.abs(place - pixel - 0.5)[inner].max() for place, pixel in ((x, column), (y, row))]
    assert max(near) < 0.501
    weight = 2 + (x - 0.5) + 100 * (y - 0.5)
    np.testing.assert_allclose(moved["weight"][inner], weight[inner], atol=0.02)
    assert len(np.unique(moved["weight"].reshape(KEYS, -1), axis=0)) > 1, "keys matter"


@pytest.mark.parametrize("mode", sampling.MODES)
def test_elastic_is_scipys(photograph, mode):
    key, known = keys()[0], known_scene()
    bent = scene.elastic(
        key, {"image": photograph, "mask": known["mask"]}, deviation=3.0, mode=mode
    )
    grid = 3.0 * np.asarray(jax.random.normal(key, (2, 3, 3)), np.float64)
    places = np.stack(
        np.meshgrid(np.linspace(0, 2, HEIGHT), np.linspace(0, 2, WIDTH), indexing="ij")
    )
    down, right = (ndimage.map_coordinates(g, places, order=3, mode="mirror") for g in grid)
    assert np.std(down) > 1
    points = np.stack([Y + down, X + right])
    inside = np.all([p > -0.49 for p in points], 0)
    inside &= (points[0] < HEIGHT - 0.51) & (points[1] < WIDTH - 0.51)
    beyond = {"constant": "nearest", "reflect": "mirror"}[mode]
    for channel in range(3):
        layer = photograph[..., channel].astype(float)
        expected = ndimage.map_coordinates(layer, points, order=1, mode=beyond)
        ours = np.asarray(bent["image"][..., channel], float)
        seen = inside if mode == "constant" else np.ones_like(inside)
        assert np.abs(ours - expected)[seen].max() < 0.51
    expected = ndimage.map_coordinates(known["mask"], points, order=0, mode="nearest")
    close = np.abs(points - np.floor(points) - 0.5).min(0) > 1e-3  # no tie between two pixels
    np.testing.assert_array_equal(
        np.asarray(bent["mask"])[inside & close], expected[inside & close]
    )
    assert (np.asarray(bent["mask"]) == 255).mean() > 0.02


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_are_exact(quarters):
    known = {name: value[:WIDTH] for name, value in known_scene().items()}
    known["image"] = (255 * known["image"]).astype(np.uint8)
    turn = geometry.rotation_matrix(jnp.asarray(quarters * jnp.pi / 2))
    matrix = geometry.inverse_about_center(turn, jnp.zeros(2), height=WIDTH, width=WIDTH)
    scene_of = {name: jnp.asarray(value) for name, value in known.items()}
    turned = scene.sample_scene(
        scene_of, *geometry.source_points(matrix, (WIDTH, WIDTH)), mode="constant"
    )
    for name, value in known.items():
        expected = np.rot90(value, quarters)
        np.testing.assert_allclose(turned[name], expected, atol=0.01 if name == "weight" else 0)


def test_flips_are_exact():
    known = {name: jnp.asarray(value) for name, value in known_scene().items()}
    for vertical, axis in ((False, 1), (True, 0)):
        flipped = scene.flip(keys()[0], known, vertical=vertical, probability=1.0)
        for name, value in known.items():
            np.testing.assert_array_equal(flipped[name], np.flip(value, axis))


def test_crop_pads_what_is_missing():
    """Every place as likely; the whole of a smaller image is there, the rest is ignored."""
    known = {name: jnp.asarray(value) for name, value in known_scene().items()}
    crop = partial(scene.crop, size=(27, 16))
    cut = jax.jit(jax.vmap(crop, in_axes=(0, None)))(keys(400), known)
    instances = np.asarray(cut["instances"])
    rows = (instances > 0).any(2)
    tops, counts = np.unique(rows.argmax(1), return_counts=True)
    assert tops.tolist() == [0, 1, 2, 3] and np.all(np.abs(counts - 100) < 5 * np.sqrt(75))
    assert (rows.sum(1) == HEIGHT).all()
    lefts = np.unique(instances.max((1, 2)), return_counts=True)[1]
    assert len(lefts) == 5 and np.all(np.abs(lefts - 80) < 5 * np.sqrt(64))
    reflected = scene.crop(keys()[0], known, size=(30, 24), mode="reflect")
    top, left = np.argwhere(np.asarray(reflected["mask"]) != 255)[0]
    around = ((top, 6 - top), (left, 4 - left), (0, 0))
    np.testing.assert_array_equal(
        reflected["image"], np.pad(known["image"], around, mode="reflect")
    )


def test_scaled_crop_draws_factors_and_places():
    known = {name: jnp.asarray(value) for name, value in known_scene().items()}
    cut = jax.jit(jax.vmap(partial(scene.scaled_crop, size=(12, 10)), in_axes=(0, None)))(
        keys(300), {"image": known["image"], "mask": known["mask"]}
    )
    x = np.asarray(cut["image"])[:, 6, :, 0] * WIDTH
    factors = 1 / np.median(np.diff(x, axis=1), axis=1)
    assert factors.min() > 0.49 and factors.max() < 2.01
    assert np.all(np.abs(np.histogram(np.log2(factors), 4, (-1, 1))[0] - 75) < 5 * np.sqrt(56))
    assert (np.asarray(cut["mask"]) != 255).all(), "no factor makes the image too small"
    assert x.min() < 2 and x.max() > WIDTH - 2, "every part of the image is seen"
    half = partial(scene.scaled_crop, size=(48, 48), factors=(0.5, 0.5))
    small = jax.jit(half)(keys()[0], {name: known[name] for name in ("image", "mask")})
    assert abs((np.asarray(small["mask"]) != 255).sum() - 12 * 10) <= 22


def test_colors_change_the_image_alone(photograph):
    batch = {**batch_of({**known_scene(), "image": photograph}), "label": jnp.arange(KEYS)}
    dark = partial(augment.brightness, amount=0.5)
    through = augment.scenes(scene.image_only(dark))(keys(), batch)
    directly = augment.images(dark)(keys(), batch)
    for name in batch:
        np.testing.assert_array_equal(through[name], directly[name])
    assert (np.asarray(through["image"]) != np.asarray(batch["image"])).any()


def test_a_part_of_the_batch_draws_as_the_whole():
    both = jax.jit(augment.scenes(scene.flip, partial(scene.translate, share=0.3)))
    batch = batch_of(known_scene())
    whole = both(keys(), batch)
    part = both(keys()[2:4], jax.tree.map(lambda value: value[2:4], batch))
    for name in batch:
        np.testing.assert_array_equal(part[name], whole[name][2:4])


def test_mistakes():
    batch = batch_of(known_scene())
    with pytest.raises(ValueError, match=r"expected mask of \(5, 24, 20\), as the image, got"):
        augment.scenes(scene.flip)(keys(), {**batch, "mask": batch["mask"][:, 1:]})
    with pytest.raises(ValueError, match="mode is one of constant, reflect, got 'edge'"):
        scene.rotate(keys()[0], known_scene(), degrees=1.0, mode="edge")
    with pytest.raises(ValueError, match="2 points or more along each side, got 1"):
        scene.elastic(keys()[0], known_scene(), points=1)
