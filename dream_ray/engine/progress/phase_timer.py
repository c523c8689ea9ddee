"""The seconds that a worker spends in each phase of its loop.

On a GPU the host only queues the work of a phase, and a later phase waits for it. So the device measures the time: each
phase puts an event before and after its work into the stream, and the time between both is read when both have passed.
The host never waits for an event.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Protocol

import torch


class Mark(Protocol):
    """A point in the work of a device."""

    def is_reached(self) -> bool:
        """Tells whether the device has passed the point, without waiting."""

    def seconds_until(self, later: "Mark") -> float:
        """Returns the seconds from this point to a later one of the same kind; both are reached."""


class ClockMark:
    """The present time of the host, for a CPU."""

    def __init__(self) -> None:
        self.at_s = monotonic()

    def is_reached(self) -> bool:
        """See `Mark.is_reached`."""
        return True

    def seconds_until(self, later: Mark) -> float:
        """See `Mark.seconds_until`."""
        assert isinstance(later, ClockMark)
        return later.at_s - self.at_s


class StreamMark:
    """The end of the work in the current stream of the current GPU (CUDA)."""

    def __init__(self) -> None:
        self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._event.record()

    def is_reached(self) -> bool:
        """See `Mark.is_reached`."""
        return bool(self._event.query())  # type: ignore[no-untyped-call]

    def seconds_until(self, later: Mark) -> float:
        """See `Mark.seconds_until`."""
        assert isinstance(later, StreamMark)
        return float(self._event.elapsed_time(later._event)) / 1000


MARKS: dict[str, Callable[[], Mark]] = {"cpu": ClockMark, "cuda": StreamMark}
"""Makes a mark, by type of the device."""


class PhaseTimer:
    """Adds up the seconds of phases. Other threads than that of the phases may read them, one at a time.

    Args:
        phases: Their names.
        mark: Makes a mark, see `MARKS`.
    """

    def __init__(self, phases: Collection[str], mark: Callable[[], Mark]) -> None:
        self._seconds = dict.fromkeys(phases, 0.0)
        self._mark = mark
        self._ended: deque[tuple[str, Mark, Mark]] = deque()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times the block, or every call of a decorated function."""
        begin = self._mark()
        try:
            yield
        finally:
            self._ended.append((name, begin, self._mark()))

    def read(self) -> dict[str, float]:
        """Returns the seconds of each phase so far, without the blocks that the device has not finished."""
        while self._ended and self._ended[0][2].is_reached():
            name, begin, end = self._ended.popleft()
            self._seconds[name] += begin.seconds_until(end)
        return dict(self._seconds)
