"""Stops a run on SIGTERM, SIGINT or preemption."""

import signal
import threading
from typing import Any, Self

import jax


class SignalHandler:
    """Records SIGTERM and SIGINT inside its context, so that the loop saves and stops.

    A second SIGINT ends the process immediately. With several processes, the preemption service of
    jax agrees on the step at which all stop.
    """

    def __init__(self, checkpoints: Any):
        self.checkpoints = checkpoints
        self.came = False
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread() and jax.process_count() == 1:
            for number in (signal.SIGTERM, signal.SIGINT):
                self.previous[number] = signal.signal(number, self.receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def receive(self, number: int, _: object) -> None:
        """Records a signal and restores the previous handler."""
        self.came = True
        signal.signal(number, self.previous[number])

    def asked(self, at: int) -> bool:
        """Returns whether the run must stop before step `at`."""
        if jax.process_count() > 1:
            return self.checkpoints.reached_preemption(at)
        return self.came
