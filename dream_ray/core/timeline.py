"""A clock for processes that compute, pause and wait for each other: discrete events, no real time.

A process is a generator that yields what it does next: `Work` (computing, which shares the cores with all others that
compute), `Pause` (time that passes whatever the others do) or a `Signal` (waits until it is given). Equal inputs give
equal times: what falls on the same moment happens in the order in which it was asked for.
"""

import math
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import TypeAlias


@dataclass(frozen=True)
class Work:
    """Computing that takes `seconds` on a core of its own, longer where cores are shared."""

    seconds: float


@dataclass(frozen=True)
class Pause:
    """A wait of `seconds`."""

    seconds: float


@dataclass
class Signal:
    """Something that happens once; `Timeline.give` makes it happen."""

    given: bool = False
    waiting: list["Process"] = field(default_factory=list)


Process: TypeAlias = Generator[Work | Pause | Signal, None, None]


class Timeline:
    """Runs processes side by side on a number of cores that they share evenly.

    While more processes compute than there are cores, each of them runs at cores / processes of its speed. All that
    compute have the same speed, so one clock of computing time serves them all, and whoever would be done first by
    that clock is done first.

    Args:
        cores: How many may compute at full speed.
    """

    def __init__(self, cores: float = math.inf) -> None:
        self.now = 0.0
        self._cores = cores
        self._computed = 0.0
        self._computing: list[tuple[float, int, Process]] = []
        self._pausing: list[tuple[float, int, Process]] = []
        self._ready: deque[Process] = deque()
        self._number = count()
        self._unfinished = 0

    def start(self, process: Process) -> None:
        """Lets a process begin now."""
        self._unfinished += 1
        self._ready.append(process)

    def give(self, signal: Signal) -> None:
        """Makes a signal happen now; those that wait for it go on."""
        signal.given = True
        self._ready.extend(signal.waiting)
        signal.waiting.clear()

    def run(self) -> None:
        """Runs until every process has ended."""
        while self._ready or self._computing or self._pausing:
            if self._ready:
                self._advance(self._ready.popleft())
            else:
                self._pass_time()
        assert self._unfinished == 0, "processes wait for each other"

    def _advance(self, process: Process) -> None:
        for request in process:
            if isinstance(request, Work):
                heappush(self._computing, (self._computed + request.seconds, next(self._number), process))
                return
            if isinstance(request, Pause):
                heappush(self._pausing, (self.now + request.seconds, next(self._number), process))
                return
            if not request.given:
                request.waiting.append(process)
                return
        self._unfinished -= 1

    def _pass_time(self) -> None:
        speed = min(1.0, self._cores / max(1, len(self._computing)))
        computed = self.now + (self._computing[0][0] - self._computed) / speed if self._computing else math.inf
        paused = self._pausing[0][0] if self._pausing else math.inf
        if computed <= paused:
            self._computed, _, process = heappop(self._computing)
        else:
            self._computed += (paused - self.now) * speed
            _, _, process = heappop(self._pausing)
        self.now = min(computed, paused)
        self._ready.append(process)
