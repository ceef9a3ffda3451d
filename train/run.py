"""What a recipe gives to the loop."""

from collections.abc import Mapping, Sequence, Sized
from typing import Any, Literal, NamedTuple

import optax
from flax import linen as nn

from train.task import Task
from zoo.preprocess import Preprocessing


class Run(NamedTuple):
    """One reproducible training, closed over by the loop and never stored.

    A source is anything with `len`, `source[i] -> dict of numpy arrays`, `name` and `classes`.
    monitor: (metric, "max" | "min"), the metric named as in metrics.jsonl: "val/accuracy".
    patience: epochs without a better monitor before the run stops early; None: never.
    accumulate: micro-batches per step; memory of one, gradient of all.
    ema: decay of the averaged parameters and statistics that are evaluated and exported.
    variables: where to start from instead of `model.init` (fine-tuning).
    held: patterns of parameters' paths; norms that match stay as in evaluation, statistics too.
    precise: batches of the training data whose statistics replace the norms' running ones in the end.
    name: the model's name in the registry, under which `zoo.load_model` finds it in the workdir;
        without one (a module of your own) no model.safetensors is written.
    preprocessing: what the weights' card shall say, where it is not the model's own.
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
    """A training set and two knobs -> batch size, steps of the whole run ("all": one an epoch).

    Errors: less than one epoch; a batch of none, or of more examples than there are.

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
