"""Learning rate by step: functions `step -> rate`, counted in optimizer steps from 0, that optax takes as they are.

A number of epochs becomes steps where the recipe knows them: `epochs * (len(source) // batch_size)`.
Every schedule holds its last value past its end. `warmup` goes before any of them.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import optax


def constant(rate: float) -> optax.Schedule:
    """The same rate at every step.

    >>> constant(0.1)(1000)
    0.1
    """
    return optax.constant_schedule(_finite(rate))


def step_decay(rate: float, *, boundaries: Sequence[int], factor: float = 0.1) -> optax.Schedule:
    """`rate`, multiplied by `factor` once more from each of the boundaries (in steps) on.

    Errors: boundaries that do not rise, or lie below step 1.

    Source: He et al. 2016 (ResNet), section 3.4: divided by 10 where the error plateaus.

    >>> print(f"{step_decay(0.1, boundaries=[300, 600])(300):.3f}")
    0.010
    """
    boundaries = list(boundaries)
    if boundaries != sorted(set(boundaries)) or any(boundary < 1 for boundary in boundaries):
        raise ValueError(f"boundaries: expected rising steps of at least 1, got {boundaries}")
    return optax.piecewise_constant_schedule(
        _finite(rate), {boundary: factor for boundary in boundaries}
    )


def decay_every(
    rate: float, *, steps: int, after: Sequence[float], factor: float = 0.1
) -> optax.Schedule:
    """`rate`, multiplied by `factor` once more after each of these shares of `steps`.

    For drops that are published in epochs of a whole training, `after=(30 / 90, 60 / 90)`: they
    keep their places in a shorter one.

    Errors: a share outside of 0 to 1.

    >>> print(f"{decay_every(0.1, steps=900, after=(1 / 3, 2 / 3))(300):.3f}")
    0.010
    """
    if not all(0 <= share <= 1 for share in after):
        raise ValueError(f"after: expected shares of the steps from 0 to 1, got {after}")
    _finite(rate)
    boundaries = [round(share * _at_least_one("steps", steps)) for share in after]

    def dropped(count):
        return rate * factor ** sum(
            jnp.where(count >= boundary, 1.0, 0.0) for boundary in boundaries
        )

    return dropped


def cosine(rate: float, *, steps: int) -> optax.Schedule:
    """Half a cosine from `rate` at step 0 to zero at step `steps`.

    Source: Loshchilov and Hutter 2017 (SGDR), equation 5, without restarts.

    >>> print(f"{cosine(0.1, steps=100)(50):.3f}")
    0.050
    """
    return optax.cosine_decay_schedule(_finite(rate), _at_least_one("steps", steps))


def linear(rate: float, *, steps: int, end: float = 0.0) -> optax.Schedule:
    """A straight line from `rate` at step 0 to `end` at step `steps`.

    >>> print(f"{linear(0.1, steps=100)(75):.3f}")
    0.025
    """
    return optax.linear_schedule(_finite(rate), end, _at_least_one("steps", steps))


def inverse_sqrt(rate: float, *, hold: int) -> optax.Schedule:
    """`rate` for the first `hold` steps, then `rate * sqrt(hold / step)`, without an end.

    `warmup(inverse_sqrt(rate, hold=n), n)` is the published schedule, with rate = 1 / sqrt(width * n).

    Source: Vaswani et al. 2017, equation 3.

    >>> print(f"{inverse_sqrt(0.1, hold=100)(400):.3f}")
    0.050
    """
    _at_least_one("hold", hold)
    _finite(rate)
    return lambda count: rate * jnp.sqrt(hold / jnp.maximum(count, hold))


def warmup(schedule: optax.Schedule, steps: int, *, start: float = 0.0) -> optax.Schedule:
    """A straight line from `start` at step 0 to `schedule(steps)` at step `steps`, then `schedule`.

    The main schedule goes on at its own step, not at its 0: its boundaries and its end stay where
    they are published, counted from the start of training, and the joint has no jump.

    Errors: a negative number of steps (0 means no warm-up).

    Source: Goyal et al. 2017, section 2.2, gradual warm-up; the line ends on the main schedule's
    value as in SlowFast's `lr_policy`, also where that has begun to fall.

    >>> rate = warmup(cosine(0.1, steps=100), 10)
    >>> print(f"{rate(0):.3f} {rate(5):.3f} {rate(10):.3f} {rate(100):.3f}")
    0.000 0.049 0.098 0.000
    """
    if steps < 0:
        raise ValueError(f"warm-up: expected at least 0 steps, got {steps}")
    if steps == 0:
        return schedule

    def warmed(count):
        ramp = start + (schedule(steps) - start) * count / steps
        return jnp.where(count < steps, ramp, schedule(count))

    return warmed


def scaled_rate(rate: float, *, batch_size: int, reference: int = 256) -> float:
    """The linear batch-size rule: a rate published for batches of `reference`, for `batch_size`.

    Source: Goyal et al. 2017, section 2.1.

    >>> scaled_rate(0.1, batch_size=1024)
    0.4
    """
    return rate * _at_least_one("batch_size", batch_size) / _at_least_one("reference", reference)


def _finite(rate: float) -> float:
    if not 0 <= rate < math.inf:
        raise ValueError(f"learning_rate: expected a finite number of at least 0, got {rate}")
    return rate


def _at_least_one(name: str, number: int) -> int:
    if number < 1:
        raise ValueError(f"{name}: expected at least 1, got {number}")
    return number
