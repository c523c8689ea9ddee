"""Seconds of named parts of a work, and whether a part was repeated often enough."""

import statistics
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter, process_time

import torch

# The first round warms up: memory is fetched, kernels are chosen. Small steps are repeated for so many seconds.
FEWEST_ROUNDS, MOST_ROUNDS, ENOUGH_S = 3, 12, 3.0


class PartsWatch:
    """Seconds of named parts, all rounds apart.

    With one thread on a CPU they are seconds of computing: what a core of one's own takes, whatever else keeps the
    machine busy now.
    """

    def __init__(self, device: torch.device, threads: int) -> None:
        self._device = device
        self._clock = process_time if device.type == "cpu" and threads == 1 else perf_counter
        self._seconds: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Times what is inside."""
        self._wait()
        started = self._clock()
        yield
        self._wait()
        self._seconds[part].append(self._clock() - started)

    def median(self, part: str) -> float:
        """Returns the median of all rounds but the first."""
        return statistics.median(self._seconds[part][1:])

    def is_enough(self, rounds: int) -> bool:
        """Tells whether so many rounds, counted from 0, took long enough to be believed."""
        return rounds >= FEWEST_ROUNDS and sum(sum(seconds[1:]) for seconds in self._seconds.values()) > ENOUGH_S

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
