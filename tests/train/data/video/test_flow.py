"""Optical flow of known motions, its levels, its memory on disk, and the hardwired maps."""

import numpy as np
import pytest
from scipy import ndimage

from tests.zoo.media.test_video_io import write
from train.data import eval_batches
from train.data.synthetic.moving_digits import CLASSES, open_moving_digits
from train.data.video import flow
from train.data.video.clip_files import VideoFiles
from train.data.video.open import clip_sampling, clips_from_files
from zoo.preprocess import Preprocessing

STEP = np.array([1.5, -0.75])  # x, y


@pytest.fixture(scope="module")
def moved():
    """A soft random picture [2, 48, 64, 1] that moves by STEP."""
    picture = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(80, 96)), 2.5)
    picture = 128 + 60 * picture / picture.std()
    frames = [ndimage.shift(picture, s * STEP[::-1])[16:64, 16:80] for s in (0, 1)]
    return np.stack(frames).clip(0, 255).astype(np.uint8)[..., None]


@pytest.mark.parametrize("method", ["tvl1", "farneback", "dis"])
def test_flow_is_how_far_the_picture_went(moved, method):
    found = flow.optical_flow(*moved[..., 0], method=method)
    assert found.shape == (48, 64, 2) and found.dtype == np.float32
    np.testing.assert_allclose(found[8:-8, 8:-8].mean((0, 1)), STEP, atol=0.1)
    levels = flow.flow_fields(np.repeat(moved, 3, -1), method=method)
    np.testing.assert_allclose(levels[0] - 128.0, found * 127 / 20, atol=1.5)
    fine = flow.flow_fields(moved, method=method, bound=2.0)
    np.testing.assert_allclose(fine[0, 8:-8, 8:-8].mean((0, 1)), 128 + STEP * 127 / 2, atol=7)


def test_the_hardwired_maps(moved):
    frames = np.concatenate([moved] * 4)[:7]
    maps = flow.hardwired_maps(frames, bound=4.0)
    assert maps.shape == (48, 64, 33) and maps.dtype == np.uint8
    np.testing.assert_array_equal(maps[..., :7], np.moveaxis(frames[..., 0], 0, -1))
    gray = frames[3, ..., 0].astype(float)
    across = (gray[:, 2:] - gray[:, :-2]) / 2
    np.testing.assert_allclose(maps[:, 1:-1, 10], 128 + across.clip(-127, 127), atol=0.5)
    down = (gray[2:] - gray[:-2]) / 2
    np.testing.assert_allclose(maps[1:-1, :, 17], 128 + down.clip(-127, 127), atol=0.5)
    expected = flow.flow_fields(frames, method="dis", bound=4.0)
    np.testing.assert_array_equal(maps[..., 21 + 2], expected[2, ..., 0])
    np.testing.assert_array_equal(maps[..., 27 + 2], expected[2, ..., 1])
    with pytest.raises(ValueError, match="of 7 frames, got 6"):
        flow.hardwired_maps(frames[:6])


def test_the_flow_of_moving_digits_points_where_they_go():
    source = flow.with_flow(open_moving_digits(frames=5)["val"], bound=4.0)
    for i in range(8):
        example = source[i]
        if example["label"] >= 8:
            continue
        angle = np.pi / 4 * example["label"]
        bright = example["video"][:-1, ..., 0] > 80
        mean = (example["flow"][bright] - 128.0).mean(0)
        cosine = mean @ [np.cos(angle), np.sin(angle)] / np.hypot(*mean)
        assert cosine > 0.9, CLASSES[example["label"]]


def test_flow_is_computed_once_and_kept_by_content(tmp_path, monkeypatch):
    plain = open_moving_digits(frames=3)["val"]
    source = flow.with_flow(plain, cache=tmp_path)
    first = source[3]["flow"]
    (file,) = tmp_path.rglob("*.npz")
    with monkeypatch.context() as patch:
        patch.setattr(flow, "optical_flow", None)
        np.testing.assert_array_equal(source[3]["flow"], first)
        np.testing.assert_array_equal(source.draw(3, number=0, seed=0)["flow"], first)
        with pytest.raises(TypeError):
            flow.with_flow(plain, cache=tmp_path, bound=5.0)[3]
    file.write_bytes(file.read_bytes()[:100])  # as a full disk leaves it
    np.testing.assert_array_equal(source[3]["flow"], first)
    assert [f.suffix for f in tmp_path.rglob("*.*")] == [".npz"]
    batch = next(eval_batches(source, batch_size=4))
    assert batch["flow"].shape == (4, 2, 32, 32, 2) and source.labels[3] == 3


def test_a_cache_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    source = flow.with_flow(open_moving_digits(frames=2)["val"], cache=tmp_path / "file")
    with pytest.raises(ValueError, match="flow cannot be kept in .*FLAX_ZOO_CACHE$") as caught:
        source[0]
    assert "\n" not in str(caught.value)


def test_flow_of_files_is_kept_as_jpeg_and_cut_as_frames_are(tmp_path, monkeypatch):
    file = write(tmp_path / "clip.mp4", 9, size=(32, 64))
    other = write(tmp_path / "other.mp4", 1, size=(32, 64))
    pre = Preprocessing((0.5,) * 3, (0.5,) * 3, size=(16, 32), frames=4, stride=2)
    parts = {"train": VideoFiles([file], [0]), "test": VideoFiles([file, other], [0, 1])}
    sources = clips_from_files(
        (parts, ("a", "b")), clip_sampling(pre, sides=None, views=(1, 1)), name="n", seed=0
    )
    flows = flow.flow_clips(sources["test"], cache=tmp_path / "cache", method="dis", bound=4.0)
    example = flows[0]
    assert example.keys() == {"flow", "label", "group"}
    assert example["flow"].shape == (4, 16, 32, 2) and example["flow"].dtype == np.uint8
    monkeypatch.setattr(flow, "optical_flow", None)
    np.testing.assert_array_equal(flows[0]["flow"], example["flow"])
    monkeypatch.undo()
    # Half as large, so half as fast: against the flow of the whole frames.
    from zoo.media.video_io import read_frames

    whole = flow.flow_fields(np.stack(list(read_frames(file, range(9)))), method="dis", bound=4.0)
    small = whole[[0, 2, 4, 6]].astype(float).reshape(4, 16, 2, 32, 2, 2).mean((2, 4))
    error = np.abs(example["flow"] - (128 + (small - 128) / 2))
    assert error.mean() < 3
    with pytest.raises(ValueError, match="class b has no readable video"):
        flows[1]
    assert "one frame has no flow" in flows.unreadable[other]


def test_an_unknown_method_is_one_line(moved):
    with pytest.raises(ValueError, match="flow is one of tvl1, farneback, dis; got 'brox'"):
        flow.optical_flow(*moved[..., 0], method="brox")
