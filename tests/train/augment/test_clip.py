"""One draw for all frames of a clip; labels, flow and frames of a mirrored clip agree."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.augment.conftest import wavy
from train import augment
from train.augment import clip

KEYS = jax.random.split(jax.random.key(3), 40)


@pytest.fixture(scope="module")
def one():
    """The same wavy picture at five times, and a flow."""
    flow = np.random.default_rng(0).integers(1, 256, (4, 24, 20, 2), dtype=np.uint8)
    video = np.stack([wavy(24, 20)] * 5)
    return {"video": jnp.asarray(video), "flow": jnp.asarray(flow), "label": jnp.int32(2)}


COLORS = {
    "brightness": partial(augment.brightness, amount=0.5),
    "hue": partial(augment.hue, amount=0.5),
    "pca": augment.pca_color,
    "noise": partial(augment.noise, deviation=0.1),
}
FRAMEWISE = {
    **{name: clip.same_for_all_frames(function) for name, function in COLORS.items()},
    "crop": partial(clip.crop, size=(16, 12)),
    "scaled_crop": partial(clip.scaled_crop, sides=(22, 40), size=(16, 16)),
    "flip": clip.flip,
}


@pytest.mark.parametrize("name", FRAMEWISE)
def test_all_frames_have_one_draw_and_clips_their_own(one, name):
    batch = {key: jnp.stack([value] * 8) for key, value in one.items()}
    video = np.asarray(jax.jit(augment.clips(FRAMEWISE[name]))(KEYS[:8], batch)["video"])
    assert video.dtype == np.uint8
    np.testing.assert_array_equal(video, np.repeat(video[:, :1], 5, 1))
    assert len({frame.tobytes() for frame in video[:, 0]}) > (1 if name == "flip" else 5)


@pytest.mark.parametrize("name", COLORS)
def test_colors_are_those_of_images_and_leave_flow(one, name):
    key = KEYS[0]
    drawn = clip.same_for_all_frames(COLORS[name])(key, one)
    np.testing.assert_array_equal(drawn["video"][3], COLORS[name](key, one["video"][3]))
    np.testing.assert_array_equal(drawn["flow"], one["flow"])


def test_a_mirrored_clip_goes_the_other_way(one):
    table = (0, 3, 4, 1, 2)
    both = jax.vmap(partial(clip.flip, mirrored=table), in_axes=(0, None))(KEYS, one)
    turned = np.asarray(both["label"]) == 4
    assert 8 < turned.sum() < 32 and set(np.asarray(both["label"])) == {2, 4}
    video, flow = (np.asarray(one[name]) for name in ("video", "flow"))
    for n, yes in enumerate(turned):
        np.testing.assert_array_equal(both["video"][n], video[:, :, ::-1] if yes else video)
        x, y = np.moveaxis(np.asarray(both["flow"][n], int) - 128, -1, 0)
        way = -1 if yes else 1
        own = np.asarray(flow[:, :, ::way], int) - 128
        np.testing.assert_array_equal(x, np.minimum(way * own[..., 0], 127))
        np.testing.assert_array_equal(y, own[..., 1])


def test_flipping_twice_is_nothing(one):
    twice = partial(clip.flip, mirrored=(0, 1, 3, 2), probability=1.0)
    again = twice(KEYS[1], twice(KEYS[0], one))
    for name in one:
        np.testing.assert_array_equal(again[name], one[name])


def test_without_a_table_labels_stay(one):
    assert int(clip.flip(KEYS[0], one, probability=1.0)["label"]) == 2


def test_video_and_flow_are_cut_at_one_place(one):
    """A flow that tells its own column and row."""
    row, column = np.mgrid[:24, :20]
    place = jnp.asarray(np.stack([column, row], -1)[None].astype(np.uint8))
    video = jnp.asarray(np.repeat(row[None, ..., None], 5, 0).astype(np.uint8))
    corners = set()
    draw = jax.jit(partial(clip.crop, size=(20, 18)))
    for key in KEYS:
        cut = draw(key, {"video": video, "flow": place})
        np.testing.assert_array_equal(cut["video"][2, ..., 0], cut["flow"][0, ..., 1])
        corners.add(tuple(np.asarray(cut["flow"][0, 0, 0]).tolist()))
    assert {x for x, _ in corners} == {0, 1, 2} and {y for _, y in corners} == {0, 1, 2, 3, 4}


def test_scaled_crop_of_one_scale_is_jax_s_resize_and_scales_flow(one):
    draw = jax.jit(partial(clip.scaled_crop, sides=(40, 40), size=(40, 40)))
    assert draw(KEYS[0], one)["video"].shape == (5, 40, 40, 3)
    small = {name: value[..., 2:22, :, :] for name, value in one.items() if name != "label"}
    whole = clip.scaled_crop(
        KEYS[0], small, sides=(40, 40), size=(40, 40)
    )  # 20 x 20: no place left
    expected = jax.image.resize(small["video"].astype(jnp.float32), (5, 40, 40, 3), "linear")
    inner = np.s_[:, 2:-2, 2:-2]
    np.testing.assert_allclose(whole["video"][inner], expected[inner], atol=1.0)
    flow = jax.image.resize(small["flow"].astype(jnp.float32), (4, 40, 40, 2), "linear")
    levels = np.clip(128 + 2 * (np.asarray(flow) - 128), 0, 255)
    np.testing.assert_allclose(np.asarray(whole["flow"])[inner], levels[inner], atol=1.0)


def test_the_short_side_is_uniform_in_its_range():
    """A ramp's slope tells the scale."""
    ramp = jnp.asarray(np.broadcast_to(np.arange(40) * 6, (1, 30, 40))[..., None].astype(np.uint8))
    keys = jax.random.split(jax.random.key(0), 300)
    draw = partial(clip.scaled_crop, sides=(30, 60), size=(20, 20))
    drawn = np.asarray(jax.jit(jax.vmap(draw, in_axes=(0, None)))(keys, {"video": ramp})["video"])
    row = drawn[:, 0, 10, 2:-2, 0].astype(float)
    sides = 30 * 6 / ((row[:, -1] - row[:, 0]) / 15)
    assert 29.5 < sides.min() < 32 and 58 < sides.max() < 62
    assert 43.5 < np.median(sides) < 46.5


def test_what_cannot_be_cut_is_one_line(one):
    with pytest.raises(ValueError, match=r"cannot cut \(30, 30\) out of frames of \(24, 20\)"):
        clip.crop(KEYS[0], one, size=(30, 30))
    with pytest.raises(ValueError, match="whose short side is 10"):
        clip.scaled_crop(KEYS[0], one, sides=(10, 20), size=(12, 12))
    with pytest.raises(ValueError, match="one height and width"):
        clip.flip(KEYS[0], {**one, "flow": one["flow"][:, 1:]})
