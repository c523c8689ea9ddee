"""Where the time of a worker goes: waiting for networks, selecting, and the rest, which is matching."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, ParamSpec, TypeVar

from dream_ray.engine.distill import AnyInput
from dream_ray.engine.networks.sources import NetworkState, Source

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Stopwatch:
    """Seconds since the worker began, by what they were spent on.

    Attributes:
        networks_s: Until the networks were there: waiting for them, or training them here.
        selecting_s: Choosing real images, or waiting for who does.
    """

    networks_s: float = field(default=0.0)
    selecting_s: float = field(default=0.0)

    def selecting(self, function: Callable[P, T]) -> Callable[P, T]:
        """Returns a selection that is timed."""

        def timed(*arguments: P.args, **keywords: P.kwargs) -> T:
            started = time.monotonic()
            try:
                return function(*arguments, **keywords)
            finally:
                self.selecting_s += time.monotonic() - started

        return timed

    def networks(self, source: Source[AnyInput]) -> Source[AnyInput]:
        """Returns a source that is timed."""
        return _TimedSource(source, self)


@dataclass(frozen=True)
class _TimedSource(Generic[AnyInput]):
    source: Source[AnyInput]
    stopwatch: Stopwatch

    def trajectory(self, outer: int, start: int = 0, state: NetworkState | None = None) -> Iterator[AnyInput]:
        """See `Source.trajectory`."""
        inputs = self.source.trajectory(outer, start, state)
        while True:
            started = time.monotonic()
            step_input = next(inputs, None)
            self.stopwatch.networks_s += time.monotonic() - started
            if step_input is None:
                return
            yield step_input
