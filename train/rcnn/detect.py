"""Scores and boxes of all regions -> the detections of each picture."""

import jax
import jax.numpy as jnp
import numpy as np

from train.data.detection.selective_search import SourceWithProposals
from zoo.ops.boxes import clip_boxes
from zoo.ops.nms import batched_nms

NMS_IOU = 0.3  # IoU with a better one of its class, above which a detection is dropped
DETECTIONS = 100  # of a picture


def detections(
    source: SourceWithProposals, *, image: np.ndarray, scores: np.ndarray, boxes: np.ndarray
) -> dict[str, np.ndarray]:
    """Pictures [R] of regions, scores [R, K], boxes [R, K, 4] -> what detectors give, [I, 100, ...].

    "boxes", "scores", "labels", "valid", highest score first: of each class what is left after
    non-maximum suppression at 0.3, of all classes the best hundred.

    Source: Girshick et al. 2014, R-CNN, section 2.2; rcnn_test.m.
    """
    rows = source.count * scores.shape[1]
    found = []
    for i in range(len(source)):
        there = image == i
        part = {
            "boxes": boxes[there].reshape(-1, 4),
            "scores": scores[there].ravel(),
            "labels": np.tile(np.arange(scores.shape[1], dtype=np.int32), there.sum()),
            "valid": np.isfinite(scores[there]).ravel(),
        }
        padded = {
            name: np.pad(value, [(0, rows - len(value)), *[(0, 0)] * (value.ndim - 1)])
            for name, value in part.items()
        }
        found.append(jax.tree.map(np.asarray, best_per_class(**padded, size=source[i]["size"])))
    return {name: np.stack([each[name] for each in found]) for name in found[0]}


@jax.jit
def best_per_class(
    boxes: jax.Array, scores: jax.Array, labels: jax.Array, valid: jax.Array, size: jax.Array
) -> dict[str, jax.Array]:
    """Rows [N] of one picture -> its detections [100, ...]."""
    boxes = clip_boxes(boxes, size)
    chosen, there = batched_nms(
        boxes,
        jnp.where(valid, scores, 0.0),
        labels,
        valid=valid,
        iou_threshold=NMS_IOU,
        max_outputs=DETECTIONS,
    )
    return {
        "boxes": boxes[chosen],
        "scores": scores[chosen],
        "labels": labels[chosen],
        "valid": there,
    }
