"""Being asked to stop: SIGTERM, SIGINT, preemption."""

import signal
import threading
from typing import Any, Self

import jax


class SignalHandler:
    """While open, SIGTERM and SIGINT ask the loop to save and stop; a second SIGINT ends at once.

    Among several processes jax's own preemption service agrees on the step at which all stop.
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
        self.came = True
        signal.signal(number, self.previous[number])

    def asked(self, at: int) -> bool:
        if jax.process_count() > 1:
            return self.checkpoints.reached_preemption(at)
        return self.came
