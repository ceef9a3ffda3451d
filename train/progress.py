"""The state of the training loop between steps, and the rows of metrics that it computes."""

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
    """The loss or its gradient is not finite."""


@dataclasses.dataclass
class Progress:
    """The state of the loop, which is stored beside the training state as JSON values.

    Attributes:
        best: highest monitor so far, negated for "min".
        best_step: step of the best monitor.
        evaluations_since_best: evaluations since the best one.
        sums: training sums since the last row of metrics.
        steps: steps since the last row of metrics.
    """

    best: float | None = None
    best_step: int | None = None
    evaluations_since_best: int = 0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    steps: int = 0


@dataclasses.dataclass
class Clock:
    """Measures the wall time of the steps since the last row of metrics, in seconds.

    Attributes:
        started: start of the first of these steps.
        wait_seconds: time spent waiting for batches.
        compile_seconds: time of the first call of the step, which traces and compiles, or reads the
            compilation cache.
        is_compile_reported: whether a row contains the compilation time.
    """

    started: float = 0.0
    wait_seconds: float = 0.0
    compile_seconds: float | None = None
    is_compile_reported: bool = False

    def start(self) -> None:
        """Starts the measurement of a row."""
        self.started, self.wait_seconds = time.perf_counter(), 0.0

    def next(self, batches: Iterator[Any]) -> Any:
        """Returns the next batch and measures the time until it is available."""
        asked = time.perf_counter()
        batch = next(batches)
        self.wait_seconds += time.perf_counter() - asked
        return batch

    def row(self, examples: int) -> dict[str, float]:
        """Returns the timing values of a row of metrics.

        The values are the only ones that differ between two equal runs. The rate and the share of
        waiting exclude the compilation, which the first row reports.

        Args:
            examples: number of examples since `start`.

        Returns:
            `time/images_per_second`, `time/data_wait` and, once, `time/compile_seconds`.
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
    """Adds the sums of one step to the progress.

    Args:
        progress: the progress, which is updated.
        sums: sums of the step; None before the first step.
        step: number of the step.

    Raises:
        DivergedError: if a sum is not finite.
    """
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
    """Returns the training means since the last row, and resets the sums."""
    sums, count = dict(progress.sums), progress.steps
    progress.sums, progress.steps = {}, 0
    weight, norm = sums.pop("weight"), sums.pop("gradient_norm")
    means = {f"train/{name}": total / weight for name, total in sums.items()}
    return means | {"train/gradient_norm": norm / count}


def update_best(
    progress: Progress, row: Mapping[str, float], monitor: tuple[str, str] | None
) -> bool:
    """Updates the best monitor with a row of metrics.

    Args:
        progress: the progress, which is updated.
        row: the row of metrics.
        monitor: (metric, "max" or "min"), or None.

    Returns:
        Whether the row is better than all before.

    Raises:
        ValueError: if the row does not contain the metric.
    """
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
