"""Time of a worker by phase: waiting for networks and selecting; the rest is matching."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic

from dream_ray.engine.distill import AnyInput
from dream_ray.engine.networks.sources import NetworkState, Source


class PhaseTimer:
    """Adds up the seconds of phases.

    Attributes:
        seconds: networks_s (waiting for networks, or training them in this process) and selecting_s (selecting real
            images, or waiting for a prefetched selection), since the worker began.
    """

    def __init__(self) -> None:
        self.seconds = {"networks_s": 0.0, "selecting_s": 0.0}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times the block, or every call of a decorated function."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] += time.monotonic() - started


@dataclass(frozen=True)
class TimedSource(Generic[AnyInput]):
    """A source whose time is added to networks_s."""

    source: Source[AnyInput]
    timer: PhaseTimer

    def trajectory(self, outer: int, start: int = 0, state: NetworkState | None = None) -> Iterator[AnyInput]:
        """See `Source.trajectory`."""
        inputs = self.source.trajectory(outer, start, state)
        while True:
            with self.timer.phase("networks_s"):
                step_input = next(inputs, None)
            if step_input is None:
                return
            yield step_input
