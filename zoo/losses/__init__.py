"""Losses that optax lacks, per example; the task sums them, the step divides."""

from zoo.losses.classification import binary_cross_entropy, distillation, multiclass_svm
from zoo.losses.rcnn import rcnn
from zoo.losses.regression import absolute_error, huber, per_example, smooth_l1, squared_error
from zoo.losses.segmentation import (
    IGNORED,
    dice,
    focal,
    lovasz_softmax,
    pixel_cross_entropy,
    pixel_weight,
)
from zoo.losses.yolo import yolo_v1

__all__ = [
    "IGNORED",
    "absolute_error",
    "binary_cross_entropy",
    "dice",
    "distillation",
    "focal",
    "huber",
    "lovasz_softmax",
    "multiclass_svm",
    "per_example",
    "pixel_cross_entropy",
    "pixel_weight",
    "rcnn",
    "smooth_l1",
    "squared_error",
    "yolo_v1",
]
