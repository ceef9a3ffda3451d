"""What a learning problem is to the loop: six pure functions."""

from collections.abc import Callable
from typing import NamedTuple


class Task(NamedTuple):
    """Six pure functions; the one loop and the one step serve every learning problem.

    A batch is a dict of arrays with leading axis B. `index` [B] int32 numbers the example in the
    run (in evaluation: in the source), `valid` [B] bool is False on the padding of a last batch.

    augment: keys [B], batch -> batch. On the device, inside the jitted step, one key per example.
    inputs: batch, train -> (argument, ...). What the model is called with.
    loss: outputs, batch -> (total, weight, {name: total}). Sums over the examples at hand; the step
        divides by the summed weight, so that a mean over devices and micro-batches is exact.
    measure: apply, batch -> pytree. `apply(*inputs)` is the model in evaluation; gives sums,
        confusion counts or rows, padding left out.
    summarize: [pytree, ...] -> {name: float}. On the host, in numpy.
    render: batch, outputs, [pytree, ...] -> {file: matplotlib Figure, or text}. What a person looks
        at: some examples as the model sees them, and what `measure` gave for the whole source.
    """

    augment: Callable
    inputs: Callable
    loss: Callable
    measure: Callable
    summarize: Callable
    render: Callable
