"""What the loop itself remembers between steps, and what it makes of a step's sums."""

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax

LIKELY = (
    "likely the learning rate is too high (try a tenth of it, a warm-up, or clipping), "
    "an input or a target is not finite, or a number is too large for bfloat16"
)


class Diverged(ArithmeticError):
    """The loss or its gradient is no number any more."""


@dataclasses.dataclass
class Position:
    """What the loop itself remembers, stored beside the state: JSON values only.

    rank: the monitor, negated for "min", so that more is better; best: the highest and its step.
    waited: evaluations since the best. sums, steps: training sums since the last row.
    """

    best: float | None = None
    best_step: int | None = None
    waited: int = 0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    steps: int = 0


@dataclasses.dataclass
class Clock:
    """Where the wall time of the steps since the last row went, in seconds.

    began: the first of them; waiting: for batches; compiling: this process's first step, whose call
    returns when it is traced and compiled, or read from the cache, and is computed afterwards.
    """

    began: float = 0.0
    waiting: float = 0.0
    compiling: float | None = None
    told: bool = False

    def start(self) -> None:
        self.began, self.waiting = time.perf_counter(), 0.0

    def next(self, batches: Iterator[Any]) -> Any:
        """The next batch; what passes until it is there counts as waiting."""
        asked = time.perf_counter()
        batch = next(batches)
        self.waiting += time.perf_counter() - asked
        return batch

    def row(self, examples: int) -> dict[str, float]:
        """What `examples` took since `start`; two equal runs differ in nothing but these.

        Rate and share leave out the compilation, whose seconds the first row has.
        """
        seconds = time.perf_counter() - self.began
        row = {}
        if self.compiling is not None and not self.told:
            row["time/compile_seconds"] = round(self.compiling, 2)
            seconds -= self.compiling
            self.told = True
        row["time/images_per_second"] = round(examples / seconds, 1)
        row["time/data_wait"] = round(self.waiting / seconds, 4)
        return row


def absorb(position: Position, sums: Mapping[str, jax.Array] | None, at: int) -> None:
    """Adds the sums of the step that led to `at`. Errors: Diverged where one is not finite."""
    if sums is None:
        return
    numbers = {name: float(value.addressable_data(0)) for name, value in sums.items()}
    broken = [name for name, number in numbers.items() if not math.isfinite(number)]
    if broken:
        raise Diverged(f"{' and '.join(broken)} became {numbers[broken[0]]} at step {at}")
    for name, number in numbers.items():
        position.sums[name] = position.sums.get(name, 0.0) + number
    position.steps += 1


def training_row(position: Position) -> dict[str, float]:
    """The means since the last row, which start anew."""
    sums, count = dict(position.sums), position.steps
    position.sums, position.steps = {}, 0
    weight, norm = sums.pop("weight"), sums.pop("gradient_norm")
    means = {f"train/{name}": total / weight for name, total in sums.items()}
    return means | {"train/gradient_norm": norm / count}


def judge(position: Position, row: Mapping[str, float], monitor: tuple[str, str] | None) -> bool:
    """Whether the row is better than all before; the position learns it."""
    if monitor is None:
        return False
    metric, direction = monitor
    if metric not in row:
        known = ", ".join(name for name in row if "/" in name)
        raise ValueError(f"the run monitors {metric!r}, which is none of: {known}")
    rank = row[metric] if direction == "max" else -row[metric]
    better = math.isfinite(rank) and (position.best is None or rank > position.best)
    if better:
        position.best, position.best_step, position.waited = rank, int(row["step"]), 0
    else:
        position.waited += 1
    return better
