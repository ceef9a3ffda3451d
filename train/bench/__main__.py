"""python -m train.bench MODEL ... [--against torch] [--pipeline folder:PATH]"""

import ast
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro

from train.bench import clock, report
from train.bench.model import Mode, Settings, bench_model
from train.bench.pipeline import measure_pipeline
from train.malloc import keep_freed_memory

MEASURED_BATCHES = 40


def parse_fields(words: Sequence[str]) -> dict[str, Any]:
    """("scan=True", "norm=group") -> fields; ValueError where a word is no assignment.

    >>> parse_fields(["scan=True", "norm=group", "depths=(2, 2)"])
    {'scan': True, 'norm': 'group', 'depths': (2, 2)}
    """
    fields = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"--fields takes words like scan=True, got {word!r}")
        try:
            fields[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            fields[name] = value
    return fields


def add_rows(output: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Rows go behind those that the JSON file holds already."""
    known = json.loads(output.read_text()) if output.exists() else []
    output.write_text(json.dumps([*known, *rows], indent=1))


def describe_machine(dtype: str, rate: float | None) -> str:
    """Where and with what was measured, in words."""
    where = f"{jax.devices()[0].device_kind}, {dtype}, jax {jax.__version__}"
    return where + (f"; a product of two matrices: {rate / 1e9:.0f} GMAC/s" if rate else "")


def run_bench(
    models: tyro.conf.Positional[tuple[str, ...]] = (),
    *,
    batch: int = 8,
    size: int | None = None,
    frames: int | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    modes: tuple[Mode, ...] = ("forward", "train"),
    rounds: int = 10,
    against: Literal["torch"] | None = None,
    fields: tuple[str, ...] = (),
    accumulation_steps: int = 1,
    pipeline: str | None = None,
    output: Path = Path("bench.json"),
) -> None:
    """Times models: images a second (median, the middle half's spread), compile seconds, memory.

    Of detectors the way from pixels to boxes, and the share of it that non-maximum suppression takes
    (what it takes less where it leaves out nothing, with weights that are drawn).

    Memory is what XLA plans for arguments, results and what lies between, and the most that the whole
    process held in a run where the platform tells. Compiled without any cache, without dropout.

    Args:
        models: names of `python -m zoo list`
        batch: images at a time
        size: side of the images in pixels [each model's own]
        frames: of the clips [each model's own]
        dtype: of the arithmetic
        modes: forward, folded (forward without BatchNorm), train (a step of momentum; not of detectors)
        rounds: samples of each, taken by turns: 2 or more; 0 only compiles
        against: torch times torchvision's model, timm's or pytorchvideo's in the same process, outputs compared first
        fields: of the models, like scan=True remat=True
        accumulation_steps: micro-batches of a training step
        pipeline: a source of photographs: how many a second are decoded, cropped and delivered; clips:SOURCE: clips
        output: where the figures go as JSON, rows added to those that it holds
    """
    if batch % accumulation_steps:
        raise ValueError(f"--batch {batch} does not divide into {accumulation_steps} micro-batches")
    if rounds == 1 or rounds < 0:
        raise ValueError(
            f"--rounds {rounds}: a median and its spread take 2 or more, 0 only compiles"
        )
    keep_freed_memory()
    jax.config.update("jax_enable_compilation_cache", False)
    rate = clock.matmul_rate(jnp.dtype(dtype)) if rounds else None
    kinds = (batch, size, dtype, modes, rounds, against == "torch")
    settings = Settings(*kinds, parse_fields(fields), rate, accumulation_steps, frames)
    rows = []
    if pipeline is not None:
        rows = measure_pipeline(pipeline, size=size or 224, batch=batch, batches=MEASURED_BATCHES)
    for name in models:
        own = bench_model(name, settings)
        print(report.format_table(own), flush=True)
        rows += own
    where = describe_machine(dtype, rate)
    print(f"\n{where}\n\n{report.format_table(rows)}")
    add_rows(output, [{**row, "where": where} for row in rows])


def main(arguments: Sequence[str]) -> int:
    """Words of the command line -> exit code: 0, or 2 after one line that says what is wrong."""
    try:
        tyro.cli(run_bench, args=list(arguments), prog="python -m train.bench")
    except (ValueError, OSError) as error:
        print(f"train.bench: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
