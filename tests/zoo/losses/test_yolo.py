"""YOLO's loss against darknet's detection layer, transcribed cell by cell in plain numpy."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.losses import yolo_v1_loss

H, W, P, K, N = 3, 4, 2, 3, 7
HIGH, WIDE = 96, 160  # pixels of the canvas
PARTS = ("background", "box", "class", "object")


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def iou(a, b):
    """Of boxes (center x, center y, width, height)."""
    sides = [
        min(a[k] + a[k + 2] / 2, b[k] + b[k + 2] / 2)
        - max(a[k] - a[k + 2] / 2, b[k] - b[k + 2] / 2)
        for k in (0, 1)
    ]
    if min(sides) < 0:
        return 0.0
    shared = sides[0] * sides[1]
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def slots(boxes, labels, kept):
    """What fill_truth_region leaves in each cell: (class, x, y, w, h), the first object's."""
    truth = {}
    for (x0, y0, x1, y1), label, own in zip(boxes, labels, kept, strict=True):
        w, h = (x1 - x0) / WIDE, (y1 - y0) / HIGH
        if not own or w <= 0 or h <= 0:
            continue
        x, y = (x0 + x1) / 2 / WIDE * W, (y0 + y1) / 2 / HIGH * H
        cell = min(int(y), H - 1), min(int(x), W - 1)
        truth.setdefault(cell, (label, x - cell[1], y - cell[0], w, h))
    return truth


def darknet(grid, truth):
    """The paper's cost in its parts, and darknet's delta, for one image's grid [H, W, 5 P + K]."""
    cost, delta = dict.fromkeys(PARTS, 0.0), np.zeros_like(grid)
    for row in range(H):
        for column in range(W):
            out, own = grid[row, column], delta[row, column]
            for j in range(P):
                own[K + j] = 0.5 * (0 - out[K + j])
                cost["background"] += 0.5 * out[K + j] ** 2
            if (row, column) not in truth:
                continue
            label, x, y, w, h = truth[row, column]
            for k in range(K):
                own[k] = (label == k) - out[k]
                cost["class"] += own[k] ** 2
            best, best_iou, best_rmse = None, 0.0, 20.0
            for j in range(P):
                at = K + P + 4 * j
                mine = out[at] / W, out[at + 1] / H, out[at + 2] ** 2, out[at + 3] ** 2
                target = x / W, y / H, w, h
                overlap, far = iou(mine, target), math.dist(mine, target)
                if best_iou > 0 or overlap > 0:
                    if overlap > best_iou:
                        best, best_iou = j, overlap
                elif far < best_rmse:
                    best, best_rmse = j, far
            assert best is not None
            cost["background"] -= 0.5 * out[K + best] ** 2
            own[K + best] = best_iou - out[K + best]
            cost["object"] += own[K + best] ** 2
            at = K + P + 4 * best
            own[at : at + 4] = np.array([x, y, w**0.5, h**0.5]) - out[at : at + 4]
            cost["box"] += 5 * (own[at : at + 4] ** 2).sum()
            own[at : at + 4] *= 5
    return cost, delta


def draw(seed=0, images=4) -> tuple[Any, ...]:
    """Grids and objects: some cells have two, some rows are crowds, padding, without an area."""
    random = np.random.default_rng(seed)
    grid = random.normal(0.3, 0.5, (images, H, W, 5 * P + K))
    grid[1, ..., K + P :: 4] += 9  # all far from their cells: every IoU is 0
    first = random.uniform(0, [WIDE, HIGH], (images, N, 2)) * 0.8
    last = np.minimum(first + random.uniform(5, 60, (images, N, 2)), [WIDE, HIGH])
    boxes = np.concatenate([first, last], -1)
    boxes[:, 1] = boxes[:, 0] + [1, 0, -1, 0]  # a second of the same cell
    boxes[:, 2, 2] = boxes[:, 2, 0]  # no width
    boxes[:, 3] = [WIDE - 8, HIGH - 4, WIDE, HIGH]
    boxes[0, 4] = [WIDE, HIGH - 9, WIDE, HIGH]  # its center on the edge, and no width
    boxes[2, 5] = [WIDE - 2, 10, WIDE + 2, 20]  # its center on the edge
    labels = random.integers(0, K, (images, N))
    labels[2, 0] = K  # no class: darknet's object without one
    valid = random.uniform(size=(images, N)) < 0.8
    valid[:, 0] = valid[2, 5] = True
    crowd = np.zeros((images, N), bool)
    crowd[:, 3] = [True, False, True, False]
    valid[3] = False  # an image without objects
    return grid, boxes, labels.astype(np.int32), valid, crowd


def batch_of(boxes, labels, valid, crowd, dtype: Any = np.float32) -> dict[str, Any]:
    image = np.zeros((len(boxes), HIGH, WIDE, 3), np.uint8)
    return dict(image=image, boxes=boxes.astype(dtype), labels=labels, box_valid=valid, crowd=crowd)


def total(grid, batch, **scales):
    parts = yolo_v1_loss({"grid": grid}, batch, classes=K, **scales)
    return sum(part.sum() for part in parts.values()), parts


learn = jax.jit(jax.value_and_grad(total, has_aux=True))


def test_values_and_gradient():
    grid, *truth = draw()
    boxes, labels, valid, crowd = truth
    expected = [
        darknet(one, slots(*rest))
        for one, *rest in zip(grid, boxes, labels, valid & ~crowd, strict=True)
    ]
    with jax.enable_x64(True):
        (_, parts), slope = learn(grid, batch_of(*truth, dtype=np.float64))
        parts, slope = jax.tree.map(np.asarray, (parts, slope))
    assert sorted(parts) == sorted(PARTS) and slope.dtype == np.float64
    for name in PARTS:
        np.testing.assert_allclose(parts[name], [cost[name] for cost, _ in expected], rtol=1e-12)
    deltas = np.stack([delta for _, delta in expected])
    np.testing.assert_allclose(slope, -2 * deltas, rtol=1e-12, atol=1e-13)
    nearest = deltas[1][..., K + P :].reshape(H, W, P, 4).any(-1)
    assert nearest.any((0, 1)).all(), "either box is the nearest of some, where every IoU is 0"
    assert parts["background"][3] > 0 and not parts["object"][3], "an image without objects"


def test_scales():
    grid, *truth = draw()
    scaled = jax.jit(lambda *given: total(*given, coordinate_weight=1.0, no_object_weight=1.5))
    given = grid.astype(np.float32), batch_of(*truth)
    usual, other = learn(*given)[0][1], scaled(*given)[1]
    for name, factor in dict(box=1 / 5, background=3.0, object=1.0).items():
        np.testing.assert_allclose(other[name], factor * usual[name], rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, -1e30])
def test_impossible_boxes_are_no_objects(value):
    """And their numbers never reach a gradient; half precision is computed in float32."""
    grid, boxes, labels, valid, crowd = draw()
    grid = jnp.asarray(grid, jnp.bfloat16)
    boxes[:, 5:] = value
    boxes[:, 6, :2] = 0
    valid[:3, 5:] = True
    (cost, _), slope = learn(grid, batch_of(boxes, labels, valid, crowd))
    gone = valid & (np.arange(N) < 5)
    (expected, _), other = learn(grid, batch_of(boxes, labels, gone, crowd))
    assert cost.dtype == jnp.float32 and cost == expected
    np.testing.assert_array_equal(slope.astype(jnp.float32), other.astype(jnp.float32))
    assert np.isfinite(slope.astype(jnp.float32)).all()


def test_channels_that_are_none():
    grid, *truth = draw()
    with pytest.raises(ValueError, match=r"expected 4 \+ 5 P channels for 4 classes .*, got 13"):
        yolo_v1_loss({"grid": jnp.zeros(grid.shape)}, batch_of(*truth), classes=K + 1)
