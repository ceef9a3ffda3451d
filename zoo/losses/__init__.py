"""Losses that optax lacks, per example; the task sums them, the step divides."""

from zoo.losses.regression import absolute_error, huber, per_example, smooth_l1, squared_error

__all__ = ["absolute_error", "huber", "per_example", "smooth_l1", "squared_error"]
