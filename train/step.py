"""The training state, and the functions that initialize, train and evaluate.

All of them are pure functions of the state or variables and a batch.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from train.task import Task


class State(NamedTuple):
    """The arrays that training changes.

    Attributes:
        step: number of finished steps [] int32.
        params: parameters.
        collections: all other variable collections, e.g. {"batch_stats": ...}.
        opt_state: state of the optimizer.
        ema: averaged variables, or None if the run keeps no average.
        key: random key []. It never changes; each step uses `fold_in(key, step)`, so that a resumed
            run draws the same numbers.
    """

    step: jax.Array
    params: Any
    collections: Any
    opt_state: Any
    ema: Any
    key: jax.Array


def init_state(
    key: jax.Array,
    batch: Any,
    *,
    model: nn.Module,
    task: Task,
    optimizer: optax.GradientTransformation,
    ema: bool = False,
    variables: Any = None,
) -> State:
    """Initializes the training state.

    Args:
        key: random key [].
        batch: example batch [B, ...].
        model: the model.
        task: the learning problem.
        optimizer: the optax transformation.
        ema: keep an average of the variables.
        variables: initial variables in place of `model.init`.

    Returns:
        The state at step 0.
    """
    init_key, run_key = jax.random.split(key)
    if variables is None:
        arguments = task.inputs(jax.tree.map(lambda x: x[:1], batch), False)
        variables = model.init(init_key, *arguments)
    params = variables["params"]
    collections = {name: value for name, value in variables.items() if name != "params"}
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        collections=collections,
        opt_state=optimizer.init(params),
        ema=dict(variables) if ema else None,
        key=run_key,
    )


def variables_of(state: State) -> dict[str, Any]:
    """Returns the variables to evaluate and export: the average if the state has one."""
    return {"params": state.params, **state.collections} if state.ema is None else state.ema


def train_step(
    state: State,
    batch: Any,
    *,
    model: nn.Module,
    task: Task,
    optimizer: optax.GradientTransformation,
    accumulation_steps: int = 1,
    unroll: bool = False,
    ema: float | None = None,
    frozen_norms: Sequence[str] = (),
    axis: str | None = None,
) -> tuple[State, dict[str, jax.Array]]:
    """Computes one training step.

    Sums of losses, weights and gradients are added over devices and micro-batches before they are
    divided by the summed weight.

    Args:
        state: the training state.
        batch: batch [B, ...].
        model: the model.
        task: the learning problem.
        optimizer: the optax transformation.
        accumulation_steps: number of micro-batches.
        unroll: unroll the loop over micro-batches, which CPUs require: there, a step of ResNet-20
            in a loop took 24 times as long.
        ema: decay of the averaged variables, or None.
        frozen_norms: patterns of scale paths. Matching normalization layers run in evaluation mode.
        axis: name of the mapped axis under pmap; None under jit, where arrays are global.

    Returns:
        The next state, and scalar sums {"loss", "weight", ..., "gradient_norm"}.
    """
    chex.assert_equal_shape_prefix([batch["index"], batch["valid"]], 1)
    if axis is not None and "axis_name" in type(model).__dataclass_fields__:
        model = model.clone(axis_name=axis)  # pyright: ignore[reportCallIssue]
    key = jax.random.fold_in(state.key, state.step)
    augment_key, model_key = jax.random.split(key)
    keys = jax.vmap(partial(jax.random.fold_in, augment_key))(batch["index"])
    batch = task.augment(keys, batch)
    if axis is not None:
        model_key = jax.random.fold_in(model_key, jax.lax.axis_index(axis))

    with freeze_norm_statistics(frozen_norms):
        gradients, sums, collections = accumulated_gradients(
            state,
            batch,
            model_key,
            model=model,
            task=task,
            accumulation_steps=accumulation_steps,
            unroll=unroll,
        )
    if axis is not None:
        gradients, sums = jax.lax.psum((gradients, sums), axis)
    gradients = jax.tree.map(lambda g: g / sums["weight"].astype(g.dtype), gradients)

    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    variables = {"params": params, **collections}
    new = State(
        step=state.step + 1,
        params=params,
        collections=collections,
        opt_state=opt_state,
        ema=None if ema is None else update_ema(state.ema, variables, decay=ema, step=state.step),
        key=state.key,
    )
    return new, {**sums, "gradient_norm": optax.tree.norm(gradients)}


def freeze_norm_statistics(patterns: Sequence[str]) -> AbstractContextManager:
    """Returns a context in which matching normalization layers run in evaluation mode.

    Args:
        patterns: regular expressions that match the path of the layer's `scale`, as in
            train.optim.param_groups.

    Returns:
        The context manager.
    """

    def hold(call: Callable, arguments: tuple, keywords: dict, context: Any) -> Any:
        module = context.module
        if keywords.get("train") and module.has_variable("batch_stats", "mean"):
            path = "/".join((*module.path, "scale"))
            if any(re.fullmatch(pattern, path) for pattern in patterns):
                keywords = {**keywords, "train": False}
        return call(*arguments, **keywords)

    return nn.intercept_methods(hold) if patterns else nullcontext()


def accumulated_gradients(
    state: State,
    batch: Any,
    key: jax.Array,
    *,
    model: nn.Module,
    task: Task,
    accumulation_steps: int,
    unroll: bool = False,
) -> tuple[Any, dict[str, jax.Array], Any]:
    """Computes the gradients of the summed loss over micro-batches.

    Args:
        state: the training state.
        batch: batch [B, ...].
        key: random key [].
        model: the model.
        task: the learning problem.
        accumulation_steps: number of micro-batches.
        unroll: unroll the loop over micro-batches.

    Returns:
        Gradients, sums of the loss and its parts, and the new collections.
    """
    names = list(state.collections)

    def loss(params, collections, micro, key):
        dropout, sample = jax.random.split(key)
        outputs, new = model.apply(
            {"params": params, **collections},
            *task.inputs(micro, True),
            train=True,
            rngs={"dropout": dropout, "sample": sample},
            mutable=names,
        )
        total, weight, parts = task.loss(outputs, micro)
        return total, ({"loss": total, "weight": weight, **parts}, new)

    gradients, (sums, collections) = micro_batches(
        jax.grad(loss, has_aux=True),
        state.params,
        state.collections,
        batch,
        key,
        accumulation_steps=accumulation_steps,
        unroll=unroll,
    )
    return gradients, sums, collections


def micro_batches(
    gradient: Callable,
    params: Any,
    collections: Any,
    batch: Any,
    key: jax.Array,
    *,
    accumulation_steps: int,
    unroll: bool = False,
) -> tuple[Any, tuple[Any, Any]]:
    """Adds the gradients of micro-batches.

    Micro-batch m consists of rows m, m + accumulation_steps, ... Each is a slice of the rows of
    every device, so no data moves between devices. Batch normalization uses one micro-batch at a
    time.

    Args:
        gradient: function of params, collections, a batch [B, ...] and a key that returns
            (gradients, (sums, collections)).
        params: parameters.
        collections: other variable collections.
        batch: batch [B, ...].
        key: random key [].
        accumulation_steps: number of micro-batches.
        unroll: unroll the loop.

    Returns:
        Gradients, and sums with the new collections.
    """
    if accumulation_steps == 1:
        return gradient(params, collections, batch, key)
    micros = jax.tree.map(
        lambda x: x.reshape(-1, accumulation_steps, *x.shape[1:]).swapaxes(0, 1), batch
    )

    def add(carry, micro_and_key):
        gradients, sums, collections = carry
        micro, key = micro_and_key
        micro = order_after(gradients, micro) if unroll else micro
        more, (more_sums, collections) = gradient(params, collections, micro, key)
        gradients, sums = jax.tree.map(jnp.add, (gradients, sums), (more, more_sums))
        return (gradients, sums, collections), None

    first = jax.tree.map(lambda x: x[0], micros)
    shapes = jax.eval_shape(gradient, params, collections, first, key)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (shapes[0], shapes[1][0]))
    carry = (*zeros, collections)
    (gradients, sums, collections), _ = jax.lax.scan(
        add, carry, (micros, jax.random.split(key, accumulation_steps)), unroll=unroll
    )
    return gradients, (sums, collections)


def order_after(gradients: Any, micro_batch: Any) -> Any:
    """Makes a micro-batch depend on the gradients before it.

    Otherwise XLA computes all forward passes first and keeps their feature maps, which needs the
    memory of the whole batch. XLA:CPU removes `optimization_barrier`. It cannot remove this test
    for an infinite gradient, which does not change a finite run.

    Args:
        gradients: gradients of the micro-batches before.
        micro_batch: the micro-batch.

    Returns:
        The micro-batch.
    """
    some = sum(leaf.ravel()[0] for leaf in jax.tree.leaves(gradients))
    return jax.tree.map(lambda x: jnp.where(jnp.isinf(some), jnp.zeros_like(x), x), micro_batch)


def update_ema(ema: Any, variables: Any, *, decay: float, step: jax.Array) -> Any:
    """Updates the averaged variables.

    The decay rises from 0.1 as (1 + step) / (10 + step). With a constant decay, the first thousands
    of steps would mostly average the random initialization.

    Args:
        ema: averaged variables.
        variables: current variables.
        decay: largest decay.
        step: number of finished steps [].

    Returns:
        The new averaged variables.
    """
    rate = 1 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: old + rate.astype(old.dtype) * (new - old), ema, variables)


def eval_step(variables: Any, batch: Any, *, model: nn.Module, task: Task) -> Any:
    """Returns `task.measure` of a batch [B, ...]."""
    return task.measure(partial(model.apply, variables), batch)


def predict_step(variables: Any, batch: Any, *, model: nn.Module, task: Task) -> dict[str, Any]:
    """Returns the outputs of the model for a batch [B, ...], without the stages of the backbone."""
    outputs: Any = model.apply(variables, *task.inputs(batch, False))
    return {name: value for name, value in outputs.items() if "stage" not in name}
