"""Moving digits: the motion is what the label says, and one frame has one law for all classes."""

import pickle

import numpy as np
import pytest
from scipy import ndimage, stats

from train.data.permutation import uniform_draws
from train.data.synthetic import moving_digits
from train.data.synthetic.moving_digits import (
    CLASSES,
    DRAW_STREAMS,
    motion_path,
    open_moving_digits,
)
from train.data.video.mirror_labels import mirror_label_map

SIZE = (32, 32, 1)


@pytest.fixture(scope="module")
def digits():
    return open_moving_digits()


def circles(label, count=500, frames=16):
    """Place, size and angle at all times: [count, T, 4], each as a share of its circle."""
    rows = []
    for i in range(count):
        places, sides, angles = motion_path(
            label, uniform_draws(DRAW_STREAMS, 3, label, i), frames=frames, size=SIZE
        )
        low, high = moving_digits.SIDES
        shares = [places / 32, (sides / 32 - low)[:, None] / (high - low)]
        rows.append(np.concatenate([*shares, angles[:, None] / (2 * np.pi)], 1))
    return np.stack(rows)


@pytest.mark.parametrize("label", range(10))
def test_at_every_time_all_is_uniform_and_independent(label):
    found = circles(label)
    for time in (0, 7, 15):
        for share in found[:, time].T:
            assert stats.kstest(share, "uniform").pvalue > 1e-4
        # What is uniform on a torus of four circles has no correlation of any two phases.
        phases = np.exp(2j * np.pi * found[:, time])
        for sign in (phases, phases.conj()):
            pairs = np.abs(phases.T @ sign / len(phases) - np.eye(4) * (sign is not phases))
            assert pairs.max() < 4 / np.sqrt(len(phases))


def test_the_law_of_a_frame_s_pixels_is_that_of_every_class(digits):
    """Brightness, extent and where it lies: of the first and the last frame, class against class."""
    train = digits["train"]
    clips = [train[i] for i in range(1500)]
    label = np.array([clip["label"] for clip in clips])
    for time in (0, 15):
        frame = np.stack([clip["video"][time, ..., 0] for clip in clips]).astype(float)
        figures = {
            "mean": frame.mean((1, 2)),
            "deviation": frame.std((1, 2)),
            "area": (frame > 100).mean((1, 2)),
            "rows": frame[:, :16].mean((1, 2)),
            "columns": frame[..., :16].mean((1, 2)),
            "edges": np.abs(np.diff(frame, axis=1)).mean((1, 2)),
        }
        for name, figure in figures.items():
            groups = [figure[label == k] for k in range(10)]
            assert stats.kruskal(*groups).pvalue > 1e-3, (name, time)


def test_the_clip_moves_as_its_label_says(digits):
    """Against the shift that correlates two frames best, on the torus."""
    heading = {
        "right": (0, 1), "right down": (1, 1), "down": (1, 0), "left down": (1, -1),
        "left": (0, -1), "left up": (-1, -1), "up": (-1, 0), "right up": (-1, 1),
    }  # fmt: skip
    still = []
    for i in range(80):
        clip = digits["val"][i]
        name = CLASSES[clip["label"]]
        first, last = (
            clip["video"][t, ..., 0].astype(float) for t in (0, 4 if name in heading else 1)
        )
        spectrum = np.fft.fft2(last - last.mean()) * np.conj(np.fft.fft2(first - first.mean()))
        score = np.fft.ifft2(spectrum).real
        place = np.array(np.unravel_index(score.argmax(), score.shape))
        step = (place + 16) % 32 - 16
        if name in heading:
            assert np.sign(np.round(step / np.abs(step).max())).tolist() == list(heading[name])
            assert 2 <= np.hypot(*step) <= 12
        else:
            still.append(np.abs(step).max())
    assert np.median(still) <= 1  # a stroke that turns may fit itself better elsewhere


def test_turning_turns_and_growing_grows():
    for label in (8, 9):
        moved = np.diff(circles(label), axis=1)
        assert np.all(moved[..., :2] == 0)
        turned, grown = (moved[..., k] - np.round(moved[..., k]) for k in (3, 2))
        if label == 8:
            assert np.all(grown == 0) and 0.4 < np.mean(turned > 0) < 0.6
            assert np.abs(turned).min() >= 0.015 - 1e-9 and np.abs(turned).max() <= 0.04 + 1e-9
        else:
            assert np.all(turned == 0)
            assert grown.min() >= 0.03 - 1e-9 and grown.max() <= 0.07 + 1e-9


def test_a_frame_is_the_digit_turned_and_resized():
    """Against scipy's rotation and zoom of a digit that lies in the middle."""
    digit = open_moving_digits()["train"].digits.images[3, ..., 0]
    one = moving_digits.render_digit(
        digit, np.array([[24.0, 24.0]]), np.array([32.0]), np.array([0.0]), (48, 48, 1)
    )[0]
    np.testing.assert_allclose(one[8:40, 8:40], digit, atol=1e-3)
    turned = moving_digits.render_digit(
        digit, np.array([[24.0, 24.0]]), np.array([32.0]), np.array([np.pi / 2]), (48, 48, 1)
    )[0]
    np.testing.assert_allclose(turned[8:40, 8:40], np.rot90(digit, -1), atol=1e-3)
    half = moving_digits.render_digit(
        digit, np.array([[24.0, 24.0]]), np.array([16.0]), np.array([0.0]), (48, 48, 1)
    )[0]
    blurred = ndimage.zoom(digit.astype(float), 0.5, order=1, grid_mode=True, mode="grid-constant")
    np.testing.assert_allclose(half[16:32, 16:32], blurred, atol=1.0)
    # Over the edge it comes in again on the other side.
    moved = moving_digits.render_digit(
        digit, np.array([[3.0, 46.0]]), np.array([32.0]), np.array([0.0]), (48, 48, 1)
    )[0]
    np.testing.assert_allclose(moved, np.roll(one, (22, -21), (0, 1)), atol=1e-3)


def test_the_source_meets_the_contract(digits):
    assert {part: len(source) for part, source in digits.items()} == moving_digits.SPLIT_SIZES
    train, val = digits["train"], digits["val"]
    clip = train[21]
    assert clip["video"].shape == (16, 32, 32, 1) and clip["video"].dtype == np.uint8
    assert clip["label"] == train.labels[21] == 1 and clip["label"].dtype == np.int32
    again = pickle.loads(pickle.dumps(train))[21]
    np.testing.assert_array_equal(again["video"], clip["video"])
    other = open_moving_digits(seed=1)
    assert (other["train"][21]["video"] != clip["video"]).any()
    np.testing.assert_array_equal(other["val"][5]["video"], val[5]["video"])
    with pytest.raises(IndexError, match="there are 400 clips"):
        val[400]
    small = open_moving_digits(frames=5, size=(24, 40, 1))["val"][9]["video"]
    assert small.shape == (5, 24, 40, 1) and small.max() > 100


@pytest.mark.parametrize("wrong", [dict(frames=1), dict(size=(8, 8, 1)), dict(size=(32, 32, 3))])
def test_what_cannot_be_is_one_line(wrong):
    with pytest.raises(ValueError, match="^moving_digits: expected 2 frames or more.*"):
        open_moving_digits(**wrong)


def test_a_mirror_exchanges_left_and_right():
    table = mirror_label_map(CLASSES)
    names = {CLASSES[k]: CLASSES[m] for k, m in enumerate(table)}
    assert names["left"] == "right" and names["right up"] == "left up"
    assert all(names[name] == name for name in ("up", "down", "turning", "growing"))
    assert table[table].tolist() == list(range(10))
    sided = ("Pushing from left to right", "Pushing from right to left", "Turn left")
    assert mirror_label_map(sided).tolist() == [1, 0, 2]
