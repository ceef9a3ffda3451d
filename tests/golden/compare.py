"""How far a model of ours is from its reference's golden file, through the project's converter."""

import contextlib
import functools
import math
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

import zoo
from tests.golden.cases import GRID, Case
from tests.golden.fill import clip, fill, image, targets
from zoo.weights.publishers import rename_tensors

LARGE = 10_000_000  # elements
FOLDER = pathlib.Path(__file__).parent

# What runs once compiles in half of the time, and is exact: from level 1 on the inverse square root
# of float64 is an approximation of 1e-9, of which gradients that are to vanish show the rest.
QUICKLY = dict(xla_backend_optimization_level=0, xla_llvm_disable_expensive_passes=True)


SCORES = ("logits", "auxiliary_logits")


class Tensor(NamedTuple):
    name: str
    shape: tuple[int, ...]
    parameter: bool


def read(case: Case, folder: pathlib.Path = FOLDER) -> tuple[list[Tensor], dict[str, np.ndarray]]:
    """The reference's state dict, in its order, and what the reference made of it."""
    with np.load(folder / f"{case.title}.npz") as file:
        golden = dict(file)
    tensors = []
    for line in golden.pop("names").tobytes().decode().split("\n"):
        name, shape, kind = line.split(" ")
        sides = tuple(int(side) for side in shape.split(",") if side)
        tensors.append(Tensor(name, sides, kind == "p"))
    return tensors, golden


def error(ours: Any, theirs: Any, *, floor: float = 0.0) -> float:
    """max |a - b| / max |b|, and not a number where a is none."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, f"{ours.shape} is not {theirs.shape}"
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), floor))


def moments(x: jax.Array) -> list[float]:
    x = np.asarray(x, np.float64)
    return [x.mean(), x.std()]


@functools.lru_cache(maxsize=2)
def fill_large(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Kept, for all of torchvision's VGGs have the same two: 120 of their 140 M parameters."""
    return fill(name, shape)


def fill_all(tensors: list[Tensor]) -> dict[str, np.ndarray]:
    """The reference's state dict, as its golden file was made with."""
    return {
        t.name: (fill_large if math.prod(t.shape) > LARGE else fill)(t.name, t.shape)
        for t in tensors
    }


def shapes(case: Case, model: nn.Module) -> dict[str, Any]:
    """The model's variables by path, as shapes."""
    frames = (case.frames,) if case.frames else ()
    shape = jax.ShapeDtypeStruct((1, *frames, case.size, case.size, 3), jnp.float32)
    expected = jax.eval_shape(model.init, jax.random.key(0), shape)
    return traverse_util.flatten_dict(expected, sep="/")


def convert(
    case: Case, expected: dict[str, Any], filled: dict[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """The reference's tensors to variables, all of them and none besides."""
    paths = rename_tensors(case.name, filled, expected)
    assert paths.keys() == expected.keys(), paths.keys() ^ expected.keys()
    return traverse_util.unflatten_dict(paths, sep="/")


def pictures(case: Case, dtype: Any) -> jax.Array:
    x = clip(case.size, case.frames) if case.frames else image(case.size)
    return jnp.asarray(np.moveaxis(x, 1, -1), dtype)


def evaluation(case: Case, folder: pathlib.Path = FOLDER) -> dict[str, float]:
    """The error of the logits, auxiliary ones too, and of each stage's moments, in float32."""
    tensors, golden = read(case, folder)
    model = zoo.create_model(case.name, **case.fields)
    variables = convert(case, shapes(case, model), fill_all(tensors))
    # jax 0.7.2 computes wrong values, now and then, from numpy's arrays outside jit
    variables = jax.tree.map(jnp.asarray, variables)
    # not jitted, a layer that occurs a hundred times, or in ten variants, is compiled once
    apply = jax.jit(model.apply, compiler_options=QUICKLY) if case.jitted else model.apply
    outputs = apply(variables, pictures(case, jnp.float32))
    errors = {
        name: error(
            outputs[name][:, ::GRID, ::GRID] if outputs[name].ndim == 4 else outputs[name],
            golden[name],
        )
        for name in SCORES
        if name in outputs
    }
    assert errors.keys() == golden.keys() & set(SCORES)
    for stage, theirs in zip(case.stages, golden["stages"], strict=True):
        errors[stage] = error([moments(x) for x in outputs[stage]], theirs)
    return errors


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """64 bits while it lasts; a switch, because jax's own context manager has moved."""
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", False)


def loss(params: Any, collections: Any, x: jax.Array, *, model: nn.Module) -> tuple[jax.Array, Any]:
    variables = {"params": params, **collections}
    outputs, collections = model.apply(variables, x, train=True, mutable=list(collections))
    logits = outputs["logits"]
    if logits.ndim == 2:
        return cross_entropy(logits, np.arange(len(x))), collections
    wanted = targets(x.shape[1], logits.shape[-1])
    auxiliary = cross_entropy(outputs["auxiliary_logits"], wanted)
    return cross_entropy(logits, wanted) + 0.5 * auxiliary, collections


def cross_entropy(logits: jax.Array, wanted: np.ndarray) -> jax.Array:
    right = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.asarray(wanted)[..., None], -1)
    return -right.mean()


def sums(owners: Any, values: Any, count: int) -> np.ndarray:
    """Leaves of ours to sums for each tensor of theirs; `owners` holds whose each element is."""
    total = np.zeros(count)
    for owner, value in zip(jax.tree.leaves(owners), jax.tree.leaves(values), strict=True):
        owner, value = np.asarray(owner, np.int64).ravel(), np.asarray(value).ravel()
        total += np.bincount(owner, value, count)
    return total


def training(case: Case, folder: pathlib.Path = FOLDER) -> dict[str, float]:
    """The error of a step's loss, of each gradient's norm and each statistic, in float64."""
    tensors, golden = read(case, folder)
    with double_precision():
        fields = {**case.fields, **(case.training or {}), "dtype": jnp.float64}
        model = zoo.create_model(case.name, **fields)
        # neither this nor `numbers` is kept: of VGG, each is a gigabyte
        filled = {t.name: fill(t.name, t.shape).astype(np.float64) for t in tensors}
        expected = shapes(case, model)
        params, collections = split(convert(case, expected, filled))
        del filled
        step = jax.value_and_grad(lambda *arguments: loss(*arguments, model=model), has_aux=True)
        (value, new), grads = jax.jit(step, compiler_options=QUICKLY)(
            params, collections, pictures(case, jnp.float64)
        )
        # the converter may transpose, cut and join: what it makes of each tensor's own number
        # tells whose every element is
        del params, collections
        numbers = {t.name: np.full(t.shape, k, np.float64) for k, t in enumerate(tensors)}
        owners, stored = split(convert(case, expected, numbers))
        del numbers
    count = len(tensors)
    norms = np.sqrt(sums(owners, jax.tree.map(jnp.square, grads), count))
    errors = {"loss": error(value, golden["loss"])}
    ours = norms[[t.parameter for t in tensors]]
    floor = 1e-6 * golden["gradients"].max()  # a bias before a norm has a gradient of rounding
    pairs = zip(ours, golden["gradients"], strict=True)
    errors["gradients"] = max(error(a, b, floor=floor) for a, b in pairs)
    kept = [k for k, t in enumerate(tensors) if not t.parameter and t.shape]
    if kept:
        size = np.array([np.prod(tensors[k].shape) for k in kept])
        mean = sums(stored, new, count)[kept] / size
        square = sums(stored, jax.tree.map(jnp.square, new), count)[kept] / size
        ours = np.stack([mean, np.sqrt(square - mean**2)], 1)
        pairs = zip(ours, golden["statistics"], strict=True)
        errors["statistics"] = max(error(a, b) for a, b in pairs)
    return errors


def split(variables: Any) -> tuple[Any, Any]:
    return variables["params"], {k: v for k, v in variables.items() if k != "params"}
