"""What the loop itself remembers between steps, and what it makes of a step's sums."""

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax

LIKELY_CAUSES = (
    "likely the learning rate is too high (try a tenth of it, a warm-up, or clipping), "
    "an input or a target is not finite, or a number is too large for bfloat16"
)


class DivergedError(ArithmeticError):
    """The loss or its gradient is no number any more."""


@dataclasses.dataclass
class Progress:
    """What the loop itself remembers, stored beside the state: JSON values only.

    rank: the monitor, negated for "min", so that more is better; best: the highest and its step.
    waited: evaluations since the best. sums, steps: training sums since the last row.
    """

    best: float | None = None
    best_step: int | None = None
    evaluations_since_best: int = 0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    steps: int = 0


@dataclasses.dataclass
class Clock:
    """Where the wall time of the steps since the last row went, in seconds.

    began: the first of them; waiting: for batches; compiling: this process's first step, whose call
    returns when it is traced and compiled, or read from the cache, and is computed afterwards.
    """

    started: float = 0.0
    wait_seconds: float = 0.0
    compile_seconds: float | None = None
    is_compile_reported: bool = False

    def start(self) -> None:
        self.started, self.wait_seconds = time.perf_counter(), 0.0

    def next(self, batches: Iterator[Any]) -> Any:
        """The next batch; what passes until it is there counts as waiting."""
        asked = time.perf_counter()
        batch = next(batches)
        self.wait_seconds += time.perf_counter() - asked
        return batch

    def row(self, examples: int) -> dict[str, float]:
        """What `examples` took since `start`; two equal runs differ in nothing but these.

        Rate and share leave out the compilation, whose seconds the first row has.
        """
        seconds = time.perf_counter() - self.started
        row = {}
        if self.compile_seconds is not None and not self.is_compile_reported:
            row["time/compile_seconds"] = round(self.compile_seconds, 2)
            seconds -= self.compile_seconds
            self.is_compile_reported = True
        row["time/images_per_second"] = round(examples / seconds, 1)
        row["time/data_wait"] = round(self.wait_seconds / seconds, 4)
        return row


def accumulate_metrics(progress: Progress, sums: Mapping[str, jax.Array] | None, step: int) -> None:
    """Adds the sums of the step that led to `step`. Errors: Diverged where one is not finite."""
    if sums is None:
        return
    numbers = {name: float(value.addressable_data(0)) for name, value in sums.items()}
    broken = [name for name, number in numbers.items() if not math.isfinite(number)]
    if broken:
        raise DivergedError(f"{' and '.join(broken)} became {numbers[broken[0]]} at step {step}")
    for name, number in numbers.items():
        progress.sums[name] = progress.sums.get(name, 0.0) + number
    progress.steps += 1


def training_row(progress: Progress) -> dict[str, float]:
    """The means since the last row, which start anew."""
    sums, count = dict(progress.sums), progress.steps
    progress.sums, progress.steps = {}, 0
    weight, norm = sums.pop("weight"), sums.pop("gradient_norm")
    means = {f"train/{name}": total / weight for name, total in sums.items()}
    return means | {"train/gradient_norm": norm / count}


def update_best(
    progress: Progress, row: Mapping[str, float], monitor: tuple[str, str] | None
) -> bool:
    """Whether the row is better than all before; the position learns it."""
    if monitor is None:
        return False
    metric, direction = monitor
    if metric not in row:
        known = ", ".join(name for name in row if "/" in name)
        raise ValueError(f"the run monitors {metric!r}, which is none of: {known}")
    rank = row[metric] if direction == "max" else -row[metric]
    better = math.isfinite(rank) and (progress.best is None or rank > progress.best)
    if better:
        progress.best, progress.best_step, progress.evaluations_since_best = (
            rank,
            int(row["step"]),
            0,
        )
    else:
        progress.evaluations_since_best += 1
    return better
