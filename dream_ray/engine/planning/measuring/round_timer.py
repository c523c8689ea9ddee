"""Seconds of named phases, and whether they were repeated often enough."""

import statistics
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter, process_time

import torch

# The first round warms up: memory is fetched, GPU kernels are chosen. Small steps are repeated for so many seconds.
FEWEST_ROUNDS, MOST_ROUNDS, ENOUGH_S = 3, 12, 3.0


class RoundTimer:
    """Times named phases, each round apart.

    With one thread on a CPU it counts CPU seconds, so other work on the machine does not change them.
    """

    def __init__(self, device: torch.device, threads: int) -> None:
        self._device = device
        self._clock = process_time if device.type == "cpu" and threads == 1 else perf_counter
        self._seconds: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times the block."""
        self._wait()
        started = self._clock()
        yield
        self._wait()
        self._seconds[name].append(self._clock() - started)

    def median(self, name: str) -> float:
        """Returns the median of all rounds of a phase but the first."""
        return statistics.median(self._seconds[name][1:])

    def is_enough(self, rounds: int) -> bool:
        """Tells whether so many rounds are enough for a median."""
        return rounds >= FEWEST_ROUNDS and sum(sum(seconds[1:]) for seconds in self._seconds.values()) > ENOUGH_S

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
