"""The functions that define a learning problem for the training loop."""

from collections.abc import Callable
from typing import NamedTuple


class Task(NamedTuple):
    """Six pure functions that define a learning problem.

    The training step and the training loop use nothing else, so they serve every problem. A batch
    is a dict of arrays with leading axis B. `index` [B] int32 numbers each example in the run
    during training, and in the source during evaluation. `valid` [B] bool is False for the padding
    of the last batch.

    Attributes:
        augment: function of keys [B] and a batch that returns a batch. It runs on the device inside
            the compiled step, with one key per example.
        inputs: function of a batch and `train` that returns the arguments of the model.
        loss: function of outputs and a batch that returns (total, weight, {name: total}), sums over
            the examples of the batch. The step divides by the summed weight, so that means over
            devices and micro-batches are exact.
        measure: function of `apply` and a batch that returns a pytree of sums, confusion counts or
            rows without padding. `apply(*inputs)` evaluates the model.
        summarize: function of a list of such pytrees that returns {name: float}. It runs on the
            host in numpy.
        render: function of a batch, outputs and a list of pytrees that returns {file name:
            matplotlib Figure or text}, with a few examples and the measures of the whole source.
    """

    augment: Callable
    inputs: Callable
    loss: Callable
    measure: Callable
    summarize: Callable
    render: Callable
