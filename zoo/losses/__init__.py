"""Losses that optax lacks, one value per example; the task sums them, the step divides."""

from zoo.losses.classification import binary_cross_entropy, distillation_loss, multiclass_svm
from zoo.losses.rcnn import rcnn_losses
from zoo.losses.regression import absolute_error, huber, mean_per_example, smooth_l1, squared_error
from zoo.losses.segmentation import (
    IGNORE_LABEL,
    dice_loss,
    focal_loss,
    lovasz_softmax,
    pixel_cross_entropy,
    pixel_weights,
)
from zoo.losses.yolo import yolo_v1_loss

__all__ = [
    "IGNORE_LABEL",
    "absolute_error",
    "binary_cross_entropy",
    "dice_loss",
    "distillation_loss",
    "focal_loss",
    "huber",
    "lovasz_softmax",
    "mean_per_example",
    "multiclass_svm",
    "pixel_cross_entropy",
    "pixel_weights",
    "rcnn_losses",
    "smooth_l1",
    "squared_error",
    "yolo_v1_loss",
]
