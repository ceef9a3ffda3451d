"""What the loop itself remembers between steps, and what it makes of a step's sums."""

import dataclasses
import math
from collections.abc import Mapping

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
