"""A model's forward pass and training step, compiled ahead, as things to time."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from train.step import micro_batches
from zoo.ops import nms

RATE, MOMENTUM = 1e-3, 0.9
DETECTION_KEYS = ("boxes", "scores", "labels", "valid")  # what detectors give


class Program(NamedTuple):
    """`run` computes once and waits; `first` is what its first call gave, to be compared.

    compile_seconds: from the Python function to the machine's code, without any cache.
    memory: bytes of the arguments, the result and what lies between; None where XLA does not tell.
    """

    run: Callable[[], Any]
    first: Any
    compile_seconds: float
    memory: int | None


def compile_program(function: Callable, *arguments: Any, donate: tuple[int, ...] = ()) -> Any:
    """A function and its arguments -> the compiled program, seconds, bytes."""
    began = time.perf_counter()
    program = jax.jit(function, donate_argnums=donate).lower(*arguments).compile()
    seconds = time.perf_counter() - began
    told = program.memory_analysis()
    kinds = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
    memory = None if told is None else sum(getattr(told, kind) for kind in kinds)
    if told is not None:
        memory -= told.alias_size_in_bytes
    return program, seconds, memory


def forward_program(
    model: nn.Module, variables: Any, image: jax.Array, *, run: bool = True
) -> Program:
    """Variables, image [B, H, W, C] -> the evaluation of the logits [B, K], or of boxes."""

    def result(variables: Any, image: jax.Array) -> Any:
        outputs: Any = model.apply(variables, image)
        return {k: outputs[k] for k in DETECTION_KEYS} if "boxes" in outputs else outputs["logits"]

    program, seconds, memory = compile_program(result, variables, image)
    first = program(variables, image) if run else None
    wait = lambda: jax.block_until_ready(program(variables, image))
    return Program(wait, first, seconds, memory)


@contextlib.contextmanager
def without_suppression() -> Iterator[None]:
    """Within it, programs are made whose non-maximum suppression keeps the best boxes as they are."""

    def best(
        boxes: Any, scores: Any, valid: Any, threshold: float, count: int, pixel_offset: float
    ) -> Any:
        del boxes, threshold, pixel_offset
        order = jnp.argsort(jnp.where(valid, -scores, jnp.inf))[:count].astype(jnp.int32)
        order = jnp.pad(order, (0, count - len(order)))
        return order, jnp.arange(count) < jnp.sum(valid)

    with mock.patch.object(nms, "_suppress", best):
        yield


def train_program(
    model: nn.Module,
    variables: Any,
    image: jax.Array,
    label: jax.Array,
    *,
    accumulation_steps: int = 1,
    run: bool = True,
) -> Program:
    """Variables, image [B, H, W, C], label [B] -> one step of momentum on the cross-entropy.

    By `accumulation_steps` micro-batches, as in training: on a CPU without a loop. The state's memory is
    given to the step, as in training. `first` is the loss of the first step.
    """
    optimizer = optax.sgd(RATE, MOMENTUM)

    def loss(params: Any, collections: Any, batch: Any, key: Any) -> tuple[jax.Array, Any]:
        image, label = batch
        variables = {"params": params, **collections}
        outputs: Any
        outputs, new = model.apply(variables, image, train=True, mutable=list(collections))
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs["logits"], label)
        return losses.sum(), (losses.sum(), new)

    def step(state: Any, image: jax.Array) -> tuple[Any, jax.Array]:
        params, collections, velocity = state
        slopes, (total, collections) = micro_batches(
            jax.grad(loss, has_aux=True),
            params,
            collections,
            (image, label),
            jax.random.key(0),
            accumulation_steps=accumulation_steps,
            unroll=jax.default_backend() == "cpu",
        )
        slopes, value = jax.tree.map(lambda x: x / len(label), (slopes, total))
        updates, velocity = optimizer.update(slopes, velocity, params)
        return (optax.apply_updates(params, updates), collections, velocity), value

    params = variables["params"]
    collections = {name: value for name, value in variables.items() if name != "params"}
    state = params, collections, jax.eval_shape(optimizer.init, params)
    program, seconds, memory = compile_program(step, state, image, donate=(0,))
    if not run:
        return Program(lambda: None, None, seconds, memory)
    copied = jax.tree.map(jnp.copy, (params, collections))
    held = [(*copied, optimizer.init(params))]

    def once() -> jax.Array:
        held[0], value = program(held[0], image)
        return value.block_until_ready()

    return Program(once, once(), seconds, memory)
