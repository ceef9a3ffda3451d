"""Every schedule against its closed form: at the start, at its joints, at the end and past it."""

import math

import jax
import jax.numpy as jnp
import pytest

from train.optim import schedules

RATE = 0.4
MAIN = {
    "constant": (schedules.constant(RATE), lambda t: RATE),
    "step": (
        schedules.step_decay(RATE, boundaries=[30, 60]),
        lambda t: RATE * (1 if t < 30 else 0.1 if t < 60 else 0.01),
    ),
    "step by a half": (
        schedules.step_decay(RATE, boundaries=[30], factor=0.5),
        lambda t: RATE if t < 30 else RATE / 2,
    ),
    "drops": (
        schedules.decay_every(RATE, steps=90, after=(1 / 3, 2 / 3)),
        lambda t: RATE * (1 if t < 30 else 0.1 if t < 60 else 0.01),
    ),
    "cosine": (
        schedules.cosine(RATE, steps=90),
        lambda t: RATE * (1 + math.cos(math.pi * min(t, 90) / 90)) / 2,
    ),
    "linear": (schedules.linear(RATE, steps=90), lambda t: RATE * (1 - min(t, 90) / 90)),
    "linear to an end": (
        schedules.linear(RATE, steps=90, end=0.1),
        lambda t: RATE + (0.1 - RATE) * min(t, 90) / 90,
    ),
    "inverse_sqrt": (
        schedules.inverse_sqrt(RATE, hold=20),
        lambda t: RATE if t < 20 else RATE * math.sqrt(20 / t),
    ),
}
STEPS = [0, 1, 9, 10, 11, 19, 20, 21, 29, 30, 31, 45, 59, 60, 61, 89, 90, 91, 10_000]


def values(schedule) -> list[float]:
    """As the optimizer calls it: traced, with an int32 count."""
    at = jax.jit(lambda count: jnp.asarray(schedule(count), jnp.float32))
    return [float(at(jnp.int32(t))) for t in STEPS]


@pytest.mark.parametrize("name", MAIN)
def test_closed_form(name):
    schedule, formula = MAIN[name]
    assert values(schedule) == pytest.approx([formula(t) for t in STEPS], rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("start", [0.0, 0.05])
@pytest.mark.parametrize("name", MAIN)
def test_warmup_is_a_line_to_the_main_schedule_which_goes_on_at_its_own_step(name, start):
    schedule, formula = MAIN[name]
    expected = [start + (formula(10) - start) * t / 10 if t < 10 else formula(t) for t in STEPS]
    warmed = schedules.warmup(schedule, 10, start=start)
    assert values(warmed) == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_no_warmup_is_the_main_schedule():
    assert schedules.warmup(MAIN["cosine"][0], 0) is MAIN["cosine"][0]


def test_inverse_sqrt_with_warmup_is_the_transformer_schedule():
    width, n = 512, 20
    schedule = schedules.warmup(schedules.inverse_sqrt((width * n) ** -0.5, hold=n), n)
    expected = [width**-0.5 * min(t**-0.5, t * n**-1.5) for t in STEPS[1:]]
    assert values(schedule)[1:] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "batch_size, reference, expected", [(256, 256, 0.1), (8192, 256, 3.2), (32, 128, 0.025)]
)
def test_scaled_rate(batch_size, reference, expected):
    rate = schedules.scaled_rate(0.1, batch_size=batch_size, reference=reference)
    assert rate == pytest.approx(expected)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: schedules.step_decay(0.1, boundaries=[60, 30]), "expected rising steps.*60, 30"),
        (lambda: schedules.step_decay(0.1, boundaries=[30, 30]), "expected rising steps.*30, 30"),
        (lambda: schedules.step_decay(0.1, boundaries=[0]), "expected rising steps"),
        (lambda: schedules.cosine(0.1, steps=0), "steps: expected at least 1, got 0"),
        (lambda: schedules.linear(0.1, steps=-1), "steps: expected at least 1, got -1"),
        (lambda: schedules.inverse_sqrt(0.1, hold=0), "hold: expected at least 1, got 0"),
        (lambda: schedules.decay_every(RATE, steps=90, after=(0.3, 30)), "shares of the steps"),
        (lambda: schedules.warmup(MAIN["step"][0], -1), "warm-up: expected at least 0"),
        (lambda: schedules.scaled_rate(0.1, batch_size=0), "batch_size: expected at least 1"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
