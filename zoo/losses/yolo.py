"""The loss of YOLO v1, as in darknet."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from zoo.ops.boxes import box_iou, from_center_form, to_center_form
from zoo.ops.yolo_grid import GridOutputs, split_grid


class GridTargets(NamedTuple):
    """Ground truth of a YOLO grid.

    Attributes:
        object: whether a cell contains the center of an object [H, W] bool.
        classes: one-hot classes [H, W, K].
        offsets: box center in the cell and square roots of the sides [H, W, 4].

    Source: fill_truth_region of darknet's data.c.

    >>> objects, classes = jnp.zeros((7, 7), bool), jnp.zeros((7, 7, 20))
    >>> GridTargets(objects, classes, offsets=jnp.zeros((7, 7, 4))).offsets.shape
    (7, 7, 4)
    """

    object: jax.Array
    classes: jax.Array
    offsets: jax.Array


def grid_targets(
    boxes: jax.Array, labels: jax.Array, valid: jax.Array, *, grid: Sequence[int], classes: int
) -> GridTargets:
    """Assigns each object to the grid cell that contains its center.

    If several objects fall into a cell the first row is used, as in darknet, which shuffles the
    rows before. Boxes without area, or with a center outside of the image, are assigned to no cell.
    A label outside of the classes leaves an object without class.

    Args:
        boxes: boxes (x0, y0, x1, y1) in a unit square [N, 4].
        labels: labels [N] int.
        valid: rows that are not padding [N] bool.
        grid: height and width (H, W) of the grid.
        classes: number of classes K.

    Returns:
        Grid targets.

    Source: fill_truth_region of darknet's data.c.

    >>> two = jnp.array([[0.0, 0.0, 0.5, 1.0], [0.25, 0.0, 0.5, 1.0]])
    >>> made = grid_targets(two, jnp.array([1, 0]), jnp.array([True, True]), grid=(1, 2), classes=2)
    >>> made.classes.tolist(), made.offsets[0, 0].round(2).tolist()
    ([[[0.0, 1.0], [0.0, 0.0]]], [0.5, 0.5, 0.7099999785423279, 1.0])
    """
    height, width = grid
    centers = to_center_form(boxes)
    is_inside = (centers[:, :2] >= 0).all(1) & (centers[:, :2] <= 1).all(1)
    is_used = valid & is_inside & (centers[:, 2:] > 0).all(1) & jnp.isfinite(centers).all(1)
    centers = jnp.where(is_used[:, None], centers, jnp.zeros_like(centers))
    scale = jnp.array([[width, height]], centers.dtype)
    corner = jnp.clip(jnp.floor(centers[:, :2] * scale), jnp.zeros_like(scale), scale - 1)
    offsets = jnp.concatenate([centers[:, :2] * scale - corner, jnp.sqrt(centers[:, 2:])], 1)

    corner = corner.astype(jnp.int32)
    cell = jnp.where(is_used, corner[:, 1] * width + corner[:, 0], height * width)
    rows = jnp.arange(len(boxes), dtype=jnp.int32)
    first = jnp.full(height * width + 1, len(boxes), jnp.int32).at[cell].min(rows)[:-1]
    has_object = (first < len(boxes)).reshape(grid)
    row = jnp.minimum(first, len(boxes) - 1).reshape(grid)
    onehot = jax.nn.one_hot(labels, classes, dtype=centers.dtype)

    def gather(values: jax.Array) -> jax.Array:
        return jnp.where(has_object[..., None], values[row], jnp.zeros_like(values[row]))

    return GridTargets(has_object, gather(onehot), gather(offsets))


def responsible_boxes(predicted: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Selects the predicted box of each cell that is responsible for the object.

    It is the box of largest IoU, or if all are 0, the box with the smallest root mean square
    difference of center and sides. No gradient flows through the selection.

    Args:
        predicted: predicted boxes [H, W, P, 4], see `zoo.ops.yolo_grid.GridOutputs`.
        target: encoded ground truth [H, W, 4].

    Returns:
        One-hot selection [H, W, P] bool and the IoU of the selected box [H, W].

    Source: forward_detection_layer of darknet's detection_layer.c.

    >>> predicted = jnp.array([[[[0.5, 0.5, 0.1, 0.1], [0.5, 0.5, 1.0, 0.9]]]])
    >>> selected, iou = responsible_boxes(predicted, jnp.array([[[0.5, 0.5, 1.0, 1.0]]]))
    >>> selected.tolist(), iou.round(2).tolist()
    ([[[False, True]]], [[0.8100000023841858]])
    """
    height, width, count, _ = predicted.shape
    predicted = jax.lax.stop_gradient(predicted)
    # relative to the cell, as in darknet: the corner of the cell shifts both boxes equally
    scale = jnp.array([width, height, 1, 1], predicted.dtype).reshape(1, 1, 1, 4)

    def to_cell_units(values: jax.Array) -> jax.Array:
        return jnp.concatenate([values[..., :2], jnp.square(values[..., 2:])], -1) / scale

    ours, ground_truth = to_cell_units(predicted), to_cell_units(target[:, :, None])
    pairwise_iou = jax.vmap(jax.vmap(box_iou))
    iou = pairwise_iou(from_center_form(ours), from_center_form(ground_truth))[..., 0]
    distance = jnp.square(ours - ground_truth).sum(-1)
    best = jnp.where((iou > 0).any(-1), iou.argmax(-1), distance.argmin(-1))
    is_responsible = jax.nn.one_hot(best, count, dtype=bool)
    return is_responsible, jnp.where(is_responsible, iou, jnp.zeros_like(iou)).sum(-1)


def yolo_v1_loss(
    outputs: Mapping[str, Any],
    batch: Mapping[str, Any],
    *,
    classes: int,
    coordinate_weight: float = 5.0,
    no_object_weight: float = 0.5,
) -> dict[str, jax.Array]:
    """Computes the sum-of-squares loss of YOLO v1, in its four terms.

    The terms are summed over the cells of an image: coordinates of the responsible boxes, times
    `coordinate_weight`; their confidence, whose target is their IoU; the confidence of all other
    boxes, whose target is 0, times `no_object_weight`; and the class probabilities of cells with an
    object. No gradient flows through the IoU. darknet follows half of this gradient and prints a
    different cost.

    Args:
        outputs: outputs of a YOLO model; only `grid` [B, H, W, 5 P + K] is used.
        batch: `image` [B, h, w, C]; `boxes` [B, N, 4] in pixels of it; `labels` [B, N] from 0 to K
            - 1; `box_valid` [B, N] bool; optionally `crowd` [B, N] bool, rows that are ignored.
        classes: number of classes K.
        coordinate_weight: weight of the coordinate term.
        no_object_weight: weight of the confidence of boxes without an object.

    Returns:
        `box`, `object`, `background` and `class`, each [B].

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

    def image_losses(
        ours: GridOutputs, boxes: jax.Array, labels: jax.Array, valid: jax.Array
    ) -> dict:
        sides = ours.classes.shape[:2]
        ground_truth = grid_targets(boxes, labels, valid, grid=sides, classes=classes)
        is_responsible, iou = responsible_boxes(ours.boxes, ground_truth.offsets)
        is_responsible = is_responsible & ground_truth.object[..., None]

        def squares(error: jax.Array, mask: jax.Array) -> jax.Array:
            return jnp.square(jnp.where(mask, error, jnp.zeros_like(error))).sum()

        return {
            "box": coordinate_weight
            * squares(ours.boxes - ground_truth.offsets[:, :, None], is_responsible[..., None]),
            "object": squares(ours.confidence - iou[..., None], is_responsible),
            "background": no_object_weight * squares(ours.confidence, ~is_responsible),
            "class": squares(ours.classes - ground_truth.classes, ground_truth.object[..., None]),
        }

    return jax.vmap(image_losses)(ours, boxes, jnp.asarray(batch["labels"]), jnp.asarray(valid))
