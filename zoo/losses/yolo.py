"""The loss of YOLO's first version, as darknet has it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from zoo.ops.boxes import box_iou, from_center_form, to_center_form
from zoo.ops.yolo_grid import GridOutputs, split_grid


class GridTargets(NamedTuple):
    """`-> [H, W], [H, W, K], [H, W, 4]`: whether a cell has an object, its class, its place.

    Source: fill_truth_region of darknet's data.c.

    >>> GridTargets(jnp.zeros((7, 7), bool), jnp.zeros((7, 7, 20)), jnp.zeros((7, 7, 4))).offsets.shape
    (7, 7, 4)
    """

    object: jax.Array
    classes: jax.Array
    offsets: jax.Array


def grid_targets(
    boxes: jax.Array, labels: jax.Array, valid: jax.Array, *, grid: Sequence[int], classes: int
) -> GridTargets:
    """`[N, 4], [N], [N] -> [H, W], [H, W, K], [H, W, 4]`: each object to the cell of its center.

    `boxes` are (x0, y0, x1, y1) in a unit square. Of several objects in a cell the first row is
    kept, as in darknet, which shuffles them before. Rows without an area, or whose center lies
    outside, are in no cell; a label that is no class leaves an object of no class.

    Source: fill_truth_region of darknet's data.c.

    >>> two = jnp.array([[0.0, 0.0, 0.5, 1.0], [0.25, 0.0, 0.5, 1.0]])
    >>> made = grid_targets(two, jnp.array([1, 0]), jnp.array([True, True]), grid=(1, 2), classes=2)
    >>> made.classes.tolist(), made.offsets[0, 0].round(2).tolist()
    ([[[0.0, 1.0], [0.0, 0.0]]], [0.5, 0.5, 0.7099999785423279, 1.0])
    """
    height, width = grid
    centers = to_center_form(boxes)
    inside = (centers[:, :2] >= 0).all(1) & (centers[:, :2] <= 1).all(1)
    kept = valid & inside & (centers[:, 2:] > 0).all(1) & jnp.isfinite(centers).all(1)
    centers = jnp.where(kept[:, None], centers, jnp.zeros_like(centers))
    scale = jnp.array([[width, height]], centers.dtype)
    corner = jnp.clip(jnp.floor(centers[:, :2] * scale), jnp.zeros_like(scale), scale - 1)
    places = jnp.concatenate([centers[:, :2] * scale - corner, jnp.sqrt(centers[:, 2:])], 1)

    corner = corner.astype(jnp.int32)
    cell = jnp.where(kept, corner[:, 1] * width + corner[:, 0], height * width)
    rows = jnp.arange(len(boxes), dtype=jnp.int32)
    first = jnp.full(height * width + 1, len(boxes), jnp.int32).at[cell].min(rows)[:-1]
    present = (first < len(boxes)).reshape(grid)
    row = jnp.minimum(first, len(boxes) - 1).reshape(grid)
    onehot = jax.nn.one_hot(labels, classes, dtype=centers.dtype)

    def of_cells(values: jax.Array) -> jax.Array:
        return jnp.where(present[..., None], values[row], jnp.zeros_like(values[row]))

    return GridTargets(present, of_cells(onehot), of_cells(places))


def responsible_boxes(predicted: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`[H, W, P, 4], [H, W, 4] -> [H, W, P], [H, W]`: which box answers for an object, and its IoU.

    The one of the largest IoU; where all are 0 the one that is nearest, by the root mean square of
    the differences of center and sides. No gradient goes through it.

    Source: forward_detection_layer of darknet's detection_layer.c.

    >>> places = jnp.array([[[[0.5, 0.5, 0.1, 0.1], [0.5, 0.5, 1.0, 0.9]]]])
    >>> mine, iou = responsible_boxes(places, jnp.array([[[0.5, 0.5, 1.0, 1.0]]]))
    >>> mine.tolist(), iou.round(2).tolist()
    ([[[False, True]]], [[0.8100000023841858]])
    """
    height, width, count, _ = predicted.shape
    predicted = jax.lax.stop_gradient(predicted)
    # within a cell, as darknet compares them: the cell's own corner moves both alike
    scale = jnp.array([width, height, 1, 1], predicted.dtype).reshape(1, 1, 1, 4)

    def centerd(values: jax.Array) -> jax.Array:
        return jnp.concatenate([values[..., :2], jnp.square(values[..., 2:])], -1) / scale

    ours, truth = centerd(predicted), centerd(target[:, :, None])
    across = jax.vmap(jax.vmap(box_iou))
    iou = across(from_center_form(ours), from_center_form(truth))[..., 0]
    far = jnp.square(ours - truth).sum(-1)
    best = jnp.where((iou > 0).any(-1), iou.argmax(-1), far.argmin(-1))
    mine = jax.nn.one_hot(best, count, dtype=bool)
    return mine, jnp.where(mine, iou, jnp.zeros_like(iou)).sum(-1)


def yolo_v1_loss(
    outputs: Mapping[str, Any],
    batch: Mapping[str, Any],
    *,
    classes: int,
    coordinate_weight: float = 5.0,
    no_object_weight: float = 0.5,
) -> dict[str, jax.Array]:
    """`{grid [B, H, W, 5 P + K]}, {boxes [B, N, 4], ...} -> {box, object, background, class [B]}`.

    The paper's sum of squares in its parts, summed over the cells of an image: the place of the box
    that is responsible for an object, times `coordinate_weight`; its confidence, which shall be its IoU;
    the confidences of all other boxes, which shall be 0, times `no_object_weight`; the classes of cells
    with an object. One object a cell, see `grid_targets`; no gradient through the IoU.

    `batch` has the "image" [B, h, w, C] whose pixels "boxes" are in, "labels" [B, N] from 0 to
    K - 1, "box_valid" [B, N] and, it may be, "crowd" [B, N], rows that are left out. In float32 or
    more. darknet follows half of this gradient, and prints another cost.

    Source: Redmon et al. 2016, You Only Look Once, equation 3; the responsible box is that of
    darknet's detection_layer.c with rescore=1, sqrt=1, and softmax=0.

    >>> batch = dict(image=jnp.zeros((1, 8, 8, 3)), boxes=jnp.array([[[0.0, 0.0, 8.0, 8.0]]]))
    >>> batch |= dict(labels=jnp.array([[1]]), box_valid=jnp.array([[True]]))
    >>> grid = jnp.array([0.0, 1.0, 0.5, 0.5, 0.5, 1.0, 1.0]).reshape(1, 1, 1, 7)
    >>> parts = yolo_v1_loss(dict(grid=grid), batch, classes=2)
    >>> {name: float(part[0]) for name, part in sorted(parts.items())}
    {'background': 0.0, 'box': 0.0, 'class': 0.0, 'object': 0.25}
    """
    grid = outputs["grid"]
    chex.assert_rank([grid, batch["boxes"], batch["labels"]], [4, 3, 2])
    grid = grid.astype(jnp.float32) if jnp.finfo(grid.dtype).bits < 32 else grid
    ours = split_grid(grid, classes=classes)
    high, wide = batch["image"].shape[1:3]
    sides = jnp.array([wide, high, wide, high], grid.dtype).reshape(1, 1, 4)
    boxes = jnp.asarray(batch["boxes"], grid.dtype) / sides
    valid = batch["box_valid"]
    if "crowd" in batch:
        valid = valid & ~batch["crowd"]

    def parts(ours: GridOutputs, boxes: jax.Array, labels: jax.Array, valid: jax.Array) -> dict:
        sides = ours.classes.shape[:2]
        truth = grid_targets(boxes, labels, valid, grid=sides, classes=classes)
        mine, iou = responsible_boxes(ours.boxes, truth.offsets)
        mine = mine & truth.object[..., None]

        def squares(error: jax.Array, where: jax.Array) -> jax.Array:
            return jnp.square(jnp.where(where, error, jnp.zeros_like(error))).sum()

        return {
            "box": coordinate_weight
            * squares(ours.boxes - truth.offsets[:, :, None], mine[..., None]),
            "object": squares(ours.confidence - iou[..., None], mine),
            "background": no_object_weight * squares(ours.confidence, ~mine),
            "class": squares(ours.classes - truth.classes, truth.object[..., None]),
        }

    return jax.vmap(parts)(ours, boxes, jnp.asarray(batch["labels"]), jnp.asarray(valid))
