"""Timing on machines that others use too: by turns, medians, checked clocks; and peak memory."""

import re
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

MIN_SAMPLE_SECONDS = 0.1  # seconds of a sample: what is faster is run more than once for it
MATRIX_SIDE = 2048  # of the matrices whose product tells what the machine can do


class Timing(NamedTuple):
    """Seconds a run: the median of the samples, and a quarter of them above and below."""

    median: float
    lower: float
    upper: float

    @property
    def spread(self) -> float:
        """The middle half of the samples, as a share of the median."""
        return (self.upper - self.lower) / self.median


def summarize_timing(samples: list[float]) -> Timing:
    """Seconds, two or more -> their median and quartiles.

    >>> summarize_timing([1.0, 2.0, 3.0, 4.0, 5.0])
    Timing(median=3.0, lower=2.0, upper=4.0)
    """
    lower, median, upper = statistics.quantiles(samples, n=4, method="inclusive")
    return Timing(median, lower, upper)


def time_once(run: Callable[[], Any], times: int = 1) -> float:
    """Seconds of a run, the mean of `times`."""
    began = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - began) / times


def time_interleaved(runs: Mapping[str, Callable[[], Any]], *, rounds: int) -> dict[str, Timing]:
    """Runs, each of which waits for its end -> seconds of each, measured by turns: A B A B.

    What else the machine does falls on all of them alike.

    >>> sorted(time_interleaved({"a": lambda: None, "b": lambda: None}, rounds=2))
    ['a', 'b']
    """
    times = {}
    for name, run in runs.items():
        run()  # the first run allocates
        times[name] = max(1, round(MIN_SAMPLE_SECONDS / max(time_once(run), 1e-6)))
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            samples[name].append(time_once(run, times[name]))
    return {name: summarize_timing(seconds) for name, seconds in samples.items()}


def peak_resident(run: Callable[[], Any]) -> int | None:
    """Most bytes of physical memory that the process holds during a run, all that it held before
    included; None where the platform does not tell (it is Linux's VmHWM, set back before)."""
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    try:
        reset.write_text("5")
        run()
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None


def matmul_rate(dtype: jnp.dtype) -> float:
    """Multiply-adds a second of one product of two large square matrices, compiled by XLA."""
    matrix = jnp.ones((MATRIX_SIDE, MATRIX_SIDE), dtype)
    product = jax.jit(jnp.matmul)
    run = {"product": lambda: product(matrix, matrix).block_until_ready()}
    return MATRIX_SIDE**3 / time_interleaved(run, rounds=5)["product"].median
