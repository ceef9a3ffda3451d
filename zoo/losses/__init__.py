"""Losses that optax lacks, per example; the task sums them, the step divides."""
