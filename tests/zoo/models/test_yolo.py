"""YOLO: what a grid tells against loops in plain numpy; layers, sizes, and the grid on any backbone."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.golden.compare import QUICKLY
from zoo.losses import yolo_v1_loss
from zoo.models.resnet import ResNet
from zoo.models.yolo import YOLO, YOLOGrid, postprocess_detections
from zoo.ops.yolo_grid import decode_grid_boxes, split_grid
from zoo.profile import trace_macs

H, W, P, K = 3, 5, 2, 3
HIGH, WIDE = 96, 200
find = jax.jit(
    postprocess_detections,
    static_argnames=("canvas", "classes", "score_thresh", "nms_thresh", "detections_per_img"),
)
RULE: dict[str, Any] = dict(classes=K, score_thresh=0.05, nms_thresh=0.5)
SMALL: dict[str, Any] = dict(
    layers=((2, 3, 2), None, (3, 3, 1), None, (3, 1, 1)), hidden=4, num_classes=K
)


def drawn(seed=0):
    random = np.random.default_rng(seed)
    grid = random.uniform(0, 1, (H, W, 5 * P + K)).astype(np.float32)
    grid[..., K + P :] = random.uniform(0.2, 1, (H, W, 4 * P))
    return grid


def overlap(a, b):
    width, height = (min(a[k + 2], b[k + 2]) - max(a[k], b[k]) for k in (0, 1))
    shared = max(width, 0) * max(height, 0)
    return shared / (sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)) - shared)


def found_by_hand(grid, size):
    """Section 2.3: class by class the best first, without those that it overlaps by half."""
    kept = []
    for k in range(K):
        left = []
        for row in range(H):
            for column in range(W):
                out = grid[row, column].astype(np.float64)
                for j in range(P):
                    x, y, w, h = out[K + P + 4 * j : K + P + 4 * j + 4]
                    x, y = (x + column) / W * WIDE, (y + row) / H * HIGH
                    w, h = w**2 * WIDE, h**2 * HIGH
                    box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
                    score, meets = out[K + j] * out[k], box[0] < size[1] and box[1] < size[0]
                    left += [(score, box)] * bool(score > RULE["score_thresh"] and meets)
        left.sort(key=lambda pair: -pair[0])
        while left:
            kept.append((*left[0], k))
            left = [pair for pair in left[1:] if overlap(left[0][1], pair[1]) <= RULE["nms_thresh"]]
    kept = [
        (score, np.clip(box, 0, [size[1], size[0]] * 2), k)
        for score, box, k in sorted(kept, key=lambda one: -one[0])
    ]
    return kept


@pytest.mark.parametrize("count", [12, 200])
def test_detections(count):
    """On a grid and a canvas that are no squares; more places than boxes, and fewer."""
    grid, size = drawn(), (80, 150)
    expected = found_by_hand(grid, size)
    found = find(grid, jnp.array(size), canvas=(HIGH, WIDE), detections_per_img=count, **RULE)
    valid = np.asarray(found["valid"])
    assert 12 < len(expected) < 200 and valid.sum() == min(count, len(expected))
    expected = expected[:count]
    scores, boxes, labels = (np.array(part) for part in zip(*expected, strict=True))
    np.testing.assert_allclose(found["scores"][valid], scores, rtol=1e-5)
    np.testing.assert_allclose(found["boxes"][valid], boxes, rtol=1e-4, atol=1e-3)
    assert found["labels"].dtype == jnp.int32
    np.testing.assert_array_equal(found["labels"][valid], labels)
    assert not any(np.any(found[name][~valid]) for name in ("scores", "boxes", "labels"))


def test_a_box_is_found_where_the_loss_wants_it():
    """A grid whose loss is 0 tells the boxes that it was made of."""
    boxes = np.array([[10, 20, 50, 40], [100, 5, 190, 95], [60, 50, 90, 90]], np.float32)
    labels = np.array([2, 0, 1], np.int32)
    grid = np.zeros((1, H, W, 5 * P + K), np.float32)
    for (x0, y0, x1, y1), label in zip(boxes, labels, strict=True):
        x, y = (x0 + x1) / 2 / WIDE * W, (y0 + y1) / 2 / HIGH * H
        cell = grid[0, int(y), int(x)]
        cell[label] = cell[K + 1] = 1
        cell[K + P + 4 :] = x % 1, y % 1, ((x1 - x0) / WIDE) ** 0.5, ((y1 - y0) / HIGH) ** 0.5
    batch = dict(image=np.zeros((1, HIGH, WIDE, 3)), boxes=boxes[None], labels=labels[None])
    batch |= dict(box_valid=np.ones((1, 3), bool))
    loss = jax.jit(functools.partial(yolo_v1_loss, classes=K))({"grid": grid}, batch)
    assert sum(float(part[0]) for part in loss.values()) == pytest.approx(0, abs=1e-9)
    found = find(
        grid[0], jnp.array([HIGH, WIDE]), canvas=(HIGH, WIDE), detections_per_img=3, **RULE
    )
    order = np.argsort(found["labels"])
    np.testing.assert_allclose(found["boxes"][order], boxes[[1, 2, 0]], atol=1e-3)
    np.testing.assert_allclose(found["scores"], np.ones(3), rtol=1e-6)


@pytest.fixture(scope="module")
def net(draw):
    model = YOLO(**SMALL)
    return model, draw(model, (32, 48, 3))


def test_outputs(net):
    """Training returns the grid; evaluation also boxes, inside the image if its size is given."""
    model, variables = net
    image = np.random.default_rng(0).uniform(size=(2, 32, 48, 3)).astype(np.float32)
    size = jnp.array([[32, 48], [20, 9]])
    plain = jax.jit(model.apply)(variables, image)
    outputs = jax.jit(model.apply)(variables, image, {"size": size})
    learn = functools.partial(model.apply, train=True, rngs={"dropout": jax.random.key(0)})
    trained = jax.eval_shape(learn, variables, image, {"size": size})
    stages = {"stage1": (2, 8, 12, 3), "stage2": (2, 4, 6, 3)}
    shapes = {**stages, "grid": (2, 4, 6, 13)}
    assert {name: value.shape for name, value in trained.items()} == shapes
    shapes |= {"boxes": (2, 100, 4), "scores": (2, 100), "labels": (2, 100), "valid": (2, 100)}
    assert {name: value.shape for name, value in outputs.items()} == shapes
    np.testing.assert_array_equal(plain["boxes"][0], outputs["boxes"][0])
    corners = outputs["boxes"].reshape(2, -1, 2).max(1)
    assert (corners <= size[:, ::-1]).all() and (plain["boxes"][1].max() > 20)
    assert (np.diff(outputs["scores"]) <= 0).all() and outputs["valid"][:, 0].all()


def test_images_of_another_size_are_refused(net):
    model, variables = net
    with pytest.raises(ValueError, match=r"expected maps of .* for hidden, got") as caught:
        model.apply(variables, np.zeros((1, 32, 64, 3), np.float32))
    assert "\n" not in str(caught.value)
    local = model.clone(local=2)
    image = jax.ShapeDtypeStruct((1, 32, 48, 3), jnp.float32)
    other = jax.eval_shape(local.init, jax.random.key(0), image)
    with pytest.raises(ValueError, match=r"expected maps of \(4, 6\) for local, got \(4, 8, 3\)"):
        jax.eval_shape(local.apply, other, jax.ShapeDtypeStruct((1, 32, 64, 3), jnp.float32))


@pytest.mark.parametrize(
    ("backbone", "fields", "stride", "side"),
    [
        ("mobilenet_v1_025", {}, 32, 2),
        ("vgg11", dict(widths=(1, 1, 1, 1, 1)), 16, 4),
        ("resnet18", dict(output_stride=8), 8, 8),
        ("resnet20", dict(depths=(1, 1, 1)), 2, 32),
        ("densenet40_k12", dict(depths=(1, 1)), 2, 32),
    ],
)
def test_the_grid_on_any_backbone(backbone, fields, stride, side):
    if fields:
        backbone = zoo.create_model(backbone, num_classes=0, **fields)
    model = zoo.create_model("yolo_grid", backbone=backbone, num_classes=3, boxes=3, stride=stride)
    outputs, _, _ = trace_macs(model, (64, 96, 3))
    assert outputs["grid"].shape == (1, side, side * 3 // 2, 18)
    with pytest.raises(ValueError, match=r"expected a stride of the backbone \(.*\), got 64"):
        trace_macs(model.clone(stride=64), (64, 96, 3))


def test_the_grid_begins_in_the_middle_of_its_cells():
    model = YOLOGrid(ResNet((1,), block="basic", width=4), num_classes=2, stride=4, width=8)
    image = np.random.default_rng(0).uniform(size=(1, 32, 48, 3)).astype(np.float32)

    def start(x):
        return model.init_with_output(jax.random.key(0), x, train=True)[0]["grid"]

    ours = split_grid(jax.jit(start, compiler_options=QUICKLY)(image), classes=2)
    boxes = np.asarray(decode_grid_boxes(ours.boxes[0]))
    row, column = np.mgrid[:8, :12]
    middle = np.stack([(column + 0.5) / 12, (row + 0.5) / 8], -1)[:, :, None]
    np.testing.assert_allclose((boxes[..., :2] + boxes[..., 2:]) / 2 - middle, 0, atol=0.02)
    np.testing.assert_allclose(boxes[..., 2:] - boxes[..., :2], 0.25, atol=0.1)
    assert np.abs(ours.confidence).max() < 0.2


def test_the_layers_of_the_paper():
    """24 convolutions, of which 20 are pretrained: half-way through the stage of stride 32."""
    _, variables, macs = trace_macs(zoo.create_model("yolov1"), (448, 448, 3))
    names = [name for name in variables["params"] if name.startswith("conv")]
    assert len(names) == 24
    kernels = [variables["params"][f"conv{n}"]["conv"]["kernel"].shape for n in range(1, 25)]
    assert kernels[0] == (7, 7, 3, 64) and kernels[19] == (3, 3, 512, 1024)
    places = [224, 112, *[56] * 4, *[28] * 10, *[14] * 5, *[7] * 3]
    dense = 7 * 7 * 1024 * 4096 + 4096 * 1470
    assert macs == dense + sum(
        side**2 * math.prod(kernel) for side, kernel in zip(places, kernels, strict=True)
    )
