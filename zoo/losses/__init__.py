"""Losses that optax lacks, per example; the task sums them, the step divides."""

from zoo.losses.classification import binary_cross_entropy, distillation, multiclass_svm
from zoo.losses.regression import absolute_error, huber, per_example, smooth_l1, squared_error

__all__ = [
    "absolute_error",
    "binary_cross_entropy",
    "distillation",
    "huber",
    "multiclass_svm",
    "per_example",
    "smooth_l1",
    "squared_error",
]
