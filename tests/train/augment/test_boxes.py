"""Boxes move with the pixels they hold; against the pixels themselves and by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import augment
from train.augment import boxes, scene, zoom

HEIGHT, WIDTH = 60, 76
PICTURE = (44, 52)  # of the canvas, where it is not filled
BOXES = np.array([[6, 8, 20, 16], [24, 20, 50, 30], [30, 4, 36, 40], [0, 0, 0, 0]], np.float32)
KEYS = 12
FUNCTIONS = {
    "flip": scene.flip,
    "flip vertical": partial(scene.flip, vertical=True),
    "translate": partial(scene.translate, share=0.3, visible=0.0),
    "scale": partial(scene.scale, factors=(0.6, 1.6), visible=0.0),
    "elastic": partial(scene.elastic, deviation=3.0, visible=0.0),
    "crop": partial(scene.crop, size=(40, 80), visible=0.0),
    "scaled_crop": partial(scene.scaled_crop, size=(50, 40), visible=0.0),
    "jitter": partial(zoom.jitter_crop, visible=0.0),
    "patch": zoom.random_patch,
}


def rectangles(*, canvas: bool, outside: float = 0.0) -> dict[str, np.ndarray]:
    """Three white rectangles, each in a channel of its own; with `canvas` a part of it is picture."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    if canvas:
        image[PICTURE[0] :] = image[:, PICTURE[1] :] = outside
    for channel, (x0, y0, x1, y1) in enumerate(BOXES[:3].astype(int)):
        image[y0:y1, x0:x1, channel] = 1
    known = {"image": image, "boxes": BOXES, "box_valid": np.arange(4) < 3}
    known |= {"labels": np.array([7, 5, 3, 0], np.int32), "crowd": np.zeros(4, bool)}
    return known | ({"size": np.array(PICTURE, np.int32)} if canvas else {})


def moved(function, known, count=KEYS):
    batch = {name: jnp.stack([jnp.asarray(value)] * count) for name, value in known.items()}
    keys = jax.random.split(jax.random.key(3), count)
    out = jax.jit(augment.scenes(function))(keys, batch)
    assert {name: value.dtype for name, value in out.items()} == {
        name: value.dtype for name, value in batch.items()
    }
    return {name: np.asarray(value) for name, value in out.items()}


@pytest.mark.parametrize(
    ("name", "canvas"), [*((name, True) for name in FUNCTIONS), ("flip", False), ("crop", False)]
)
def test_a_box_holds_its_pixels(name, canvas):
    """And nothing comes from beside the picture, where all is white: it stays beside, or is black."""
    out = moved(FUNCTIONS[name], rectangles(canvas=canvas, outside=1.0))
    sizes = out.get("size", [out["image"].shape[1:3]] * KEYS)
    checked = 0
    for image, found, valid, (height, width) in zip(
        out["image"], out["boxes"], out["box_valid"], sizes, strict=True
    ):
        assert (found[~valid] == 0).all() and not valid[3]
        if name not in ("flip", "flip vertical", "crop"):
            assert not image[height:].any() and not image[:, width:].any()
        for channel in range(3):
            rows, columns = np.nonzero(image[:height, :width, channel] > 0.5)
            if not valid[channel]:  # for `visible` 0 no area remains; a patch needs the center
                assert not len(rows) or name == "patch"
                continue
            if len(rows) == 0:
                assert min(found[channel, 2:] - found[channel, :2]) < 1.0  # less than a pixel
                continue
            pixels = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(found[channel], pixels, atol=1.01)
            checked += 1
    assert checked > KEYS, "most are there"
    np.testing.assert_array_equal(out["labels"], [[7, 5, 3, 0]] * KEYS)
    if canvas and name != "crop":
        expected = [50, 40] if name == "scaled_crop" else PICTURE
        np.testing.assert_array_equal(sizes, [expected] * KEYS)


def test_a_turned_box_is_the_hull_of_its_corners():
    turn = partial(scene.rotate, degrees=40.0, visible=0.0)
    small = rectangles(canvas=False)
    small["boxes"] = np.array([[30, 24, 44, 34]] * 4, np.float32)
    small["image"] = np.zeros_like(small["image"])
    small["image"][24:34, 30:44] = 1
    out = moved(turn, small)
    for image, found in zip(out["image"], out["boxes"], strict=True):
        rows, columns = np.nonzero(image[..., 0] > 0.25)
        pixels = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(found[0], pixels, atol=1.5)
    areas = (out["boxes"][:, 0, 2:] - out["boxes"][:, 0, :2]).prod(1)
    assert areas.max() > 1.5 * 140, "a hull is larger than what it holds"


@pytest.mark.parametrize(("visible", "valid"), [(0.0, 3), (0.24, 2), (0.26, 1), (1.0, 1)])
def test_what_is_hardly_seen_is_no_longer_valid(visible, valid):
    found = np.array([[2, 2, 6, 6], [-3, 0, 1, 4], [9.9, 0, 19.9, 1], [30, 30, 40, 40]], np.float32)
    known = {"image": jnp.zeros((8, 10, 1)), "box_valid": jnp.array([True] * 4)}
    out = boxes.keep_visible_boxes(known, jnp.asarray(found), (8, 10), visible=visible)
    assert np.asarray(out["box_valid"]).sum() == valid
    expected = np.array([[2, 2, 6, 6], [0, 0, 1, 4], [9.9, 0, 10, 1], [0, 0, 0, 0]], np.float32)
    expected[~np.asarray(out["box_valid"])] = 0
    np.testing.assert_allclose(out["boxes"], expected)


def ramps():
    """Pixels tell where they come from."""
    y, x = (np.mgrid[:HEIGHT, :WIDTH] + 0.5) / [[[HEIGHT]], [[WIDTH]]]
    return rectangles(canvas=False) | {"image": np.stack([x, y, x], -1).astype(np.float32)}


@pytest.mark.parametrize("overlap", [0.1, 0.7])
def test_patches_overlap_an_object(overlap):
    out = moved(partial(zoom.random_patch, overlaps=(overlap,), probability=1.0), ramps(), count=40)
    whole = 0
    for image, found, valid in zip(out["image"], out["boxes"], out["box_valid"], strict=True):
        inner = image[5:-5, 5:-5]  # the border's pixels are repeated
        wide = (inner[0, -1, 0] - inner[0, 0, 0]) * WIDTH / (WIDTH - 11)
        high = (inner[-1, 0, 1] - inner[0, 0, 1]) * HEIGHT / (HEIGHT - 11)
        x0, y0 = inner[0, 0, 0] * WIDTH - 5.5 * wide, inner[0, 0, 1] * HEIGHT - 5.5 * high
        part = np.array([x0, y0, x0 + wide * WIDTH, y0 + high * HEIGHT])
        whole += np.allclose(part, [0, 0, WIDTH, HEIGHT], atol=0.01)
        assert 0.29 < wide < 1.01 and 0.29 < high < 1.01 and 0.49 < wide / high < 2.01
        low, upper = np.maximum(part[:2], BOXES[:3, :2]), np.minimum(part[2:], BOXES[:3, 2:])
        shared = np.maximum(upper - low, 0).prod(1)
        area = (BOXES[:3, 2:] - BOXES[:3, :2]).prod(1)
        iou = shared / (area + (part[2:] - part[:2]).prod() - shared)
        assert iou.max() >= overlap - 1e-3 or np.allclose(part, [0, 0, WIDTH, HEIGHT], atol=0.01)
        center = (BOXES[:3, :2] + BOXES[:3, 2:]) / 2
        inside = ((center > part[:2]) & (center < part[2:])).all(1)
        np.testing.assert_array_equal(valid[:3], inside)
        assert valid.any()
        scale = np.array([1 / wide, 1 / high] * 2)
        expected = (BOXES[:3] - part[[0, 1, 0, 1]]) * scale
        expected = expected.clip(0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
        np.testing.assert_allclose(found[:3][inside], expected[inside], atol=0.05)
    # No part has 0.7 in common with one of these rectangles, whose ratios are too long.
    assert whole < 20 if overlap < 0.5 else whole > 30


def test_a_patch_needs_no_objects_but_boxes():
    empty = ramps() | {"box_valid": np.zeros(4, bool)}
    out = moved(partial(zoom.random_patch, probability=1.0), empty)
    assert (out["image"][:, 30, 38, 0] != empty["image"][30, 38, 0]).all()
    assert not out["box_valid"].any()
    with pytest.raises(ValueError, match="a patch is chosen by its overlap with boxes"):
        zoom.random_patch(jax.random.key(0), {"image": jnp.zeros((4, 4, 1))})
    with pytest.raises(ValueError, match=r"expected box_valid \[B, N\] beside boxes, got none"):
        moved(scene.flip, {name: v for name, v in ramps().items() if name != "box_valid"})


def test_jitter_is_yolos():
    """Scaled and moved by up to a fifth of the picture along each axis."""
    out = moved(zoom.jitter_crop, ramps(), count=100)
    row = out["image"][:, HEIGHT // 2, 30:40, 0] * WIDTH
    zooms = np.diff(row, axis=1).mean(1)
    assert 0.6 <= zooms.min() < 0.75 and 1.25 < zooms.max() <= 1.4
    lefts = row[:, 0] - 30.5 * zooms
    assert np.abs(lefts).max() <= 0.2 * WIDTH + 0.01 and np.abs(lefts).max() > 0.15 * WIDTH
