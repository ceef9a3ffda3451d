"""The description of a training run that a recipe passes to the loop."""

from collections.abc import Mapping, Sequence, Sized
from typing import Any, Literal, NamedTuple

import optax
from flax import linen as nn

from train.task import Task
from zoo.preprocess import Preprocessing


class Run(NamedTuple):
    """One reproducible training run.

    A source has a length, returns a dict of numpy arrays for `source[i]`, and has `name` and
    `classes`.

    Attributes:
        model: the model.
        task: the learning problem.
        train: the training source.
        evaluate: evaluation sources by name.
        optimizer: the optax transformation.
        epochs: number of epochs.
        batch_size: examples per step over all devices.
        seed: seed of the order, the augmentation and the initialization.
        monitor: (metric, "max" or "min") that selects the best snapshot, with the metric named as
            in metrics.jsonl, e.g. "val/accuracy".
        patience: evaluations without a better monitor after which the run stops; None to never stop
            early.
        accumulation_steps: micro-batches per step. The memory is that of one micro-batch, the
            gradient that of the whole batch.
        ema: decay of the averaged parameters and statistics that are evaluated and exported; None
            for no average.
        variables: initial variables in place of `model.init`, for fine-tuning.
        frozen_norms: patterns of parameter paths. Matching normalization layers run in evaluation
            mode and keep their statistics.
        precise_bn_batches: number of training batches whose statistics replace the running ones at
            the end; 0 to keep the running ones.
        name: model name in the registry, with which `zoo.load_model` reads the work directory.
            Without a name, no model.safetensors is written.
        preprocessing: preprocessing stored with the weights; None for that of the model.
    """

    model: nn.Module
    task: Task
    train: Any
    evaluate: Mapping[str, Any]
    optimizer: optax.GradientTransformation
    epochs: int
    batch_size: int
    seed: int = 0
    monitor: tuple[str, str] | None = None
    patience: int | None = None
    accumulation_steps: int = 1
    ema: float | None = None
    variables: Mapping[str, Any] | None = None
    frozen_norms: Sequence[str] = ()
    precise_bn_batches: int = 0
    name: str | None = None
    preprocessing: Preprocessing | None = None


def plan_steps(source: Sized, *, batch_size: int | Literal["all"], epochs: int) -> tuple[int, int]:
    """Computes the batch size and the number of steps of a run.

    Args:
        source: the training source.
        batch_size: examples per step, or "all" for one step per epoch.
        epochs: number of epochs.

    Returns:
        The batch size and the total number of steps.

    Raises:
        ValueError: if `epochs` is below 1, or the batch size is not from 1 to the number of
            examples.

    >>> plan_steps(range(1257), batch_size=64, epochs=40)
    (64, 760)
    """
    size = len(source) if batch_size == "all" else batch_size
    if epochs < 1:
        raise ValueError(f"epochs must be 1 or more; got {epochs}")
    if not 1 <= size <= len(source):
        raise ValueError(
            f"batch_size must be 1 to {len(source)}, the number of training examples, or all; "
            f"got {batch_size}"
        )
    return size, epochs * (len(source) // size)
