"""Four examples in one picture, each box where its pixels are."""

import functools

import jax
import numpy as np
import pytest

from train import augment

B, H, W, N = 8, 40, 48, 3
SIZES = np.array([[40, 48], [30, 48], [40, 20], [24, 24]] * 2, np.int32)


def batch():
    """Example i: an object, white in channel i % 4, on a gray image; the rest of the canvas is white."""
    image = np.ones((B, H, W, 4), np.float32)
    boxes = np.zeros((B, N, 4), np.float32)
    for i, (height, width) in enumerate(SIZES):
        image[i, :height, :width] = 0.2
        boxes[i, 0] = [4, 6, 18, 22]
        image[i, 6:22, 4:18, i % 4] = 1
    labels = np.zeros((B, N), np.int32)
    labels[:, 0] = np.arange(B)
    rows = {"boxes": boxes, "labels": labels, "box_valid": labels * 0 + [1, 0, 0] > 0}
    rows |= {"crowd": np.zeros((B, N), bool), "scale": np.ones((B, 2), np.float32)}
    return {"image": image, "size": SIZES, **rows, "index": np.arange(B, dtype=np.int32)}


@functools.cache
def compiled(**knobs):
    return jax.jit(functools.partial(augment.mosaic, **knobs))


def drawn(known, seed=0, **knobs):
    out = compiled(**knobs)(jax.random.split(jax.random.key(seed), B), known)
    assert {k: (v.shape, v.dtype) for k, v in out.items()} == {
        k: (v.shape, v.dtype) for k, v in known.items()
    }
    return {name: np.asarray(value) for name, value in out.items()}


def test_boxes_hold_their_pixels():
    checked, alone, known = set(), 0, batch()
    for seed in range(3):
        out = drawn(known, seed, visible=0.0, probability=0.7)
        np.testing.assert_array_equal(out["index"], np.arange(B))
        for i in range(B):
            if (out["image"][i] == known["image"][i]).all():
                assert all((out[name][i] == known[name][i]).all() for name in known)
                alone += 1
                continue
            assert (out["size"][i] == (H, W)).all() and out["image"][i].min() > 0.19, "no gaps"
            valid = out["box_valid"][i]
            assert not out["boxes"][i][~valid].any() and not out["labels"][i][~valid].any()
            for box, label in zip(out["boxes"][i][valid], out["labels"][i][valid], strict=True):
                rows, columns = np.nonzero(out["image"][i, ..., label % 4] > 0.6)
                if not len(rows):
                    assert min(box[2:] - box[:2]) < 1
                    continue
                pixels = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                np.testing.assert_allclose(box, pixels, atol=1.01)
                checked.add((i - label) % B)
    assert checked == {0, 1, 2, 3} and 0 < alone < 2 * B


def test_more_rows():
    more = functools.partial(augment.mosaic, objects=4 * N)
    out = jax.eval_shape(more, jax.random.split(jax.random.key(0), B), batch())
    assert out["boxes"].shape == (B, 4 * N, 4) and out["crowd"].shape == (B, 4 * N)
    with pytest.raises(ValueError, match="of 3 rows of boxes has as many or more, got 2"):
        augment.mosaic(jax.random.split(jax.random.key(0), B), batch(), objects=2)


def test_the_largest_rows_stay_and_crowds_go_first():
    known = batch()
    known["boxes"][:] = [[0, 0, 20, 20], [0, 0, 12, 12], [0, 0, 6, 20]]
    known["box_valid"][:] = True
    known["labels"][:] = [0, 1, 2]
    known["crowd"][:, 0] = True
    known["size"] = np.array([[H, W]] * B, np.int32)
    out = drawn(known, visible=0.99, center=(0.5, 0.5))
    # In a quarter of 20 x 24 of a picture half as large: 10 x 10, 6 x 6, 3 x 10, four times.
    assert 0 < out["crowd"].sum() < out["box_valid"].sum() or not out["crowd"].any()
    areas = (out["boxes"][..., 2:] - out["boxes"][..., :2]).prod(-1)
    learnt = np.where(out["box_valid"] & ~out["crowd"], areas, 0)
    assert (np.diff(learnt, axis=1) <= 1e-3).all(), "largest first, crowds behind"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"mask": np.zeros((B, H, W), np.uint8)}, "it cannot tell the mask of four scenes"),
        ({"label": np.zeros(B, np.int32)}, "it cannot tell the label of four scenes"),
        ({"boxes": None}, "a mosaic is of scenes with boxes and box_valid"),
    ],
)
def test_mistakes(more, message):
    known = {name: value for name, value in (batch() | more).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        augment.mosaic(jax.random.split(jax.random.key(0), B), known)
