"""Learning rate schedules: functions of the step, from 0, for optax.

Recipes convert epochs to steps: `epochs * (len(source) // batch_size)`. After its end, a schedule
keeps its last value. `warmup` can precede any of them.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import optax


def constant(rate: float) -> optax.Schedule:
    """Returns a schedule with the same rate at every step.

    >>> constant(0.1)(1000)
    0.1
    """
    return optax.constant_schedule(_finite(rate))


def step_decay(rate: float, *, boundaries: Sequence[int], factor: float = 0.1) -> optax.Schedule:
    """Multiplies the rate by `factor` at each boundary.

    Args:
        rate: initial rate.
        boundaries: steps in ascending order.
        factor: factor at each boundary.

    Returns:
        The schedule.

    Raises:
        ValueError: if boundaries do not ascend or are below 1.

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
    """Multiplies the rate by `factor` after each of the given fractions of the training.

    Published drops in epochs, such as `after=(30 / 90, 60 / 90)`, keep their relative position in a
    shorter training.

    Args:
        rate: initial rate.
        steps: number of steps.
        after: fractions of `steps`.
        factor: factor of each drop.

    Returns:
        The schedule.

    Raises:
        ValueError: if a fraction is not from 0 to 1.

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
    """Decreases the rate along half a cosine to zero at step `steps`.

    Source: Loshchilov and Hutter 2017 (SGDR), equation 5, without restarts.

    >>> print(f"{cosine(0.1, steps=100)(50):.3f}")
    0.050
    """
    return optax.cosine_decay_schedule(_finite(rate), _at_least_one("steps", steps))


def linear(rate: float, *, steps: int, end: float = 0.0) -> optax.Schedule:
    """Changes the rate linearly from `rate` at step 0 to `end` at step `steps`.

    >>> print(f"{linear(0.1, steps=100)(75):.3f}")
    0.025
    """
    return optax.linear_schedule(_finite(rate), end, _at_least_one("steps", steps))


def inverse_sqrt(rate: float, *, hold: int) -> optax.Schedule:
    """Keeps the rate for `hold` steps, then multiplies it by sqrt(hold / step).

    `warmup(inverse_sqrt(rate, hold=n), n)` is the published schedule, with rate = 1 / sqrt(width *
    n).

    Args:
        rate: initial rate.
        hold: steps with the initial rate.

    Returns:
        The schedule, which does not end.

    Source: Vaswani et al. 2017, equation 3.

    >>> print(f"{inverse_sqrt(0.1, hold=100)(400):.3f}")
    0.050
    """
    _at_least_one("hold", hold)
    _finite(rate)
    return lambda count: rate * jnp.sqrt(hold / jnp.maximum(count, hold))


def warmup(schedule: optax.Schedule, steps: int, *, start: float = 0.0) -> optax.Schedule:
    """Increases the rate linearly from `start` to `schedule(steps)`, then follows `schedule`.

    The main schedule is not shifted: its boundaries and its end count from the start of the
    training. The rate does not jump.

    Args:
        schedule: the main schedule.
        steps: steps of the warm-up; 0 for none.
        start: initial rate.

    Returns:
        The schedule.

    Raises:
        ValueError: if `steps` is negative.

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
    """Scales a published rate linearly with the batch size.

    Args:
        rate: published rate.
        batch_size: batch size.
        reference: published batch size.

    Returns:
        The rate.

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
