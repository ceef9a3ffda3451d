"""One model's rows: its programs compiled, checked against torch's outputs, and timed by turns."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

import zoo
from train.bench import clock, programs
from train.bench.reference import Reference
from zoo.profile import trace_macs
from zoo.registry import variant_card
from zoo.weights.model_file import trace_shapes
from zoo.weights.publishers import rename_tensors

Mode = Literal["forward", "folded", "train"]
MAX_DIFFERENCE = {"float32": 1e-4, "bfloat16": 5e-2}  # of outputs, largest over largest
TRAINING_FACTOR = 3  # of a step, in forward passes: the map's and the kernel's gradients besides


class Settings(NamedTuple):
    """What is timed: `rounds` 0 compiles only, and asks for no memory. `rate` is the machine's."""

    batch: int
    size: int | None
    dtype: Literal["float32", "bfloat16"]
    modes: Sequence[Mode]
    rounds: int
    torch: bool
    fields: dict[str, Any]
    rate: float | None
    accumulation_steps: int = 1
    frames: int | None = None


def relative_difference(ours: Any, theirs: Any) -> float:
    """max |a - b| / max |b|.

    >>> relative_difference([1.0, 2.5], [1.0, 2.0])
    0.25
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def check_outputs(name: str, what: str, ours: Any, theirs: Any, *, dtype: str) -> None:
    """ValueError where outputs differ: a time of something else would mean nothing."""
    found = relative_difference(ours, theirs)
    if not found < MAX_DIFFERENCE[dtype]:
        raise ValueError(
            f"{name}, {what}: outputs differ from torch's by {found:.1e}, more than "
            f"{MAX_DIFFERENCE[dtype]:.0e}: not timed"
        )


def bench_model(name: str, settings: Settings) -> list[dict[str, Any]]:
    """A model's rows, keys as in report.COLUMNS; ValueError where its outputs are not torch's.

    A detector is not trained here, where no boxes are to be learned.
    """
    detects = variant_card(name)[0]["task"] == "detection"
    if detects and settings.torch:
        raise ValueError(f"{name} finds boxes: --against torch compares logits")
    *frames, height, width, channels = zoo.model_card(name).input
    if settings.frames is not None:
        if not frames:
            raise ValueError(f"--frames is for models of clips: {name} sees an image")
        frames = [settings.frames]
    if settings.size is not None:
        height = width = settings.size
    fields = dict(settings.fields)
    model = zoo.create_model(name, **fields)
    if hasattr(model, "image_size") and settings.size is not None:
        model = model.clone(image_size=settings.size)
    if hasattr(model, "dropout"):  # draws would differ from torch's
        model = model.clone(dropout=0.0)
    _, _, macs = trace_macs(model, (*frames, height, width, channels))
    model = model.clone(dtype=jnp.dtype(settings.dtype))
    image = (settings.batch, *frames, height, width, channels)
    reference = None
    if settings.torch:
        reference = Reference(
            name, classes=model.num_classes, half=settings.dtype == "bfloat16", side=height
        )
    variables = variables_for(name, model, image, reference, drawn=settings.rounds > 0)
    title = " ".join([name, *(f"{key}={value}" for key, value in fields.items())])
    if settings.accumulation_steps > 1:
        title += f" accumulate {settings.accumulation_steps}"
    rows = []
    for what in settings.modes:
        if detects and what == "train":
            continue
        row = bench_program(what, model, variables, image, reference, settings, title)
        cost = macs * (TRAINING_FACTOR if what == "train" else 1)
        if "images_per_second" in row and settings.rate is not None:
            row["macs_per_second"] = cost * row["images_per_second"]
            row["share"] = row["macs_per_second"] / settings.rate
        rows.append(row)
    return rows


def variables_for(
    name: str,
    model: nn.Module,
    image: tuple[int, ...],
    reference: Reference | None,
    *,
    drawn: bool,
) -> Any:
    """Weights for images [B, H, W, C], or clips: the reference's, or drawn; not `drawn`, their shapes."""
    example = jax.ShapeDtypeStruct((1, *image[1:]), jnp.float32)
    if reference is None:
        start = jax.jit(model.init) if drawn else lambda *given: jax.eval_shape(model.init, *given)
        return start(jax.random.key(0), jnp.zeros(example.shape) if drawn else example)
    expected = trace_shapes(model, image[1:])
    arrays = rename_tensors(name, reference.tensors(), expected)
    if arrays.keys() != expected.keys():
        odd = ", ".join(sorted(arrays.keys() ^ expected.keys())[:5])
        raise ValueError(f"{name}: torch's tensors are not ours, {odd} among them")
    return traverse_util.unflatten_dict({k: jnp.asarray(v) for k, v in arrays.items()}, sep="/")


def bench_program(
    what: Mode,
    model: nn.Module,
    variables: Any,
    image: tuple[int, ...],
    reference: Reference | None,
    settings: Settings,
    title: str,
) -> dict[str, Any]:
    """One program's row: compiled, compared, timed."""
    row: dict[str, Any] = {"model": title, "what": what, "batch": settings.batch}
    pixels = np.random.default_rng(0).normal(size=image).astype(np.float32)
    label = np.arange(settings.batch, dtype=np.int32) % model.num_classes
    if what == "folded":
        model, variables = zoo.fold_batchnorm(model, variables)
    timed = settings.rounds > 0
    x: Any = jnp.asarray(pixels) if timed else jax.ShapeDtypeStruct(image, jnp.float32)
    if what == "train":
        program = programs.train_program(
            model,
            variables,
            x,
            jnp.asarray(label),
            accumulation_steps=settings.accumulation_steps,
            run=timed,
        )
    else:
        program = programs.forward_program(model, variables, x, run=timed)
    row |= {"compile_seconds": program.compile_seconds, "memory": program.memory}
    if not timed:
        return row
    runs: dict[str, Callable[[], Any]] = {"ours": program.run}
    if isinstance(program.first, dict):
        with programs.without_suppression():
            runs["without"] = programs.forward_program(model, variables, x).run
    if reference is not None:
        theirs = reference.train(pixels, label) if what == "train" else reference.forward(pixels)
        check_outputs(title, what, program.first, theirs(), dtype=settings.dtype)
        runs["torch"] = theirs
    times = clock.time_interleaved(runs, rounds=settings.rounds)
    row["images_per_second"] = settings.batch / times["ours"].median
    row["spread"] = times["ours"].spread
    if "without" in times:
        row["nms_share"] = max(0.0, 1 - times["without"].median / times["ours"].median)
    if "torch" in times:
        row["torch_images_per_second"] = settings.batch / times["torch"].median
        row["ratio"] = times["torch"].median / times["ours"].median
        row["torch_resident"] = clock.peak_resident(runs["torch"])
    row["resident"] = clock.peak_resident(program.run)
    return row
