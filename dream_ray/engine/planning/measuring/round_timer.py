"""A timer of phases that are repeated in rounds."""

import statistics
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter, process_time

import torch

# The first round warms up: memory is allocated, GPU kernels are chosen. Short rounds are repeated for ENOUGH_S seconds.
FEWEST_ROUNDS, MOST_ROUNDS, ENOUGH_S = 3, 12, 3.0


class RoundTimer:
    """Times named phases, once per round.

    With one thread on a CPU it measures CPU seconds, which other processes do not change.
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
        """Returns the median seconds of a phase without its first round."""
        return statistics.median(self._seconds[name][1:])

    def is_enough(self, rounds: int) -> bool:
        """Returns whether `rounds` rounds are enough for a median."""
        return rounds >= FEWEST_ROUNDS and sum(sum(seconds[1:]) for seconds in self._seconds.values()) > ENOUGH_S

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
