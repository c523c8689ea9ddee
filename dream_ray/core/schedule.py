"""The schedule of a distillation as a model: who computes what, who waits for whom.

Workers match their classes step by step; the networks come from each worker itself (inline) or from producers ahead of
the workers. A producer makes the networks of one outer step in order and takes the next outer step that nobody has; it
hands a network over no earlier than `window` steps ahead of the slowest worker. A worker that needs a network fetches
it over its producer's link, which serves one after the other. Left out are start-up, checkpoints, reading and the
initial images. Sizes are in bytes, times in seconds.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from dream_ray.core.placement import Labels, place_classes
from dream_ray.core.timeline import Pause, Process, Signal, Timeline, Work
from dream_ray.errors import UsageError


@dataclass(frozen=True)
class StepCosts:
    """What the steps of a run take on a core or device of their own.

    Attributes:
        update_s: The training of a network between two inner steps.
        warm_up_s: The training of a network before an outer step.
        first_warm_up_s: The same for the first outer step.
        select_s: Selecting the real images of a class of size 1, see `Schedule.class_sizes`.
        target_s: Passing the real batch of a class through a network.
        move_s: Matching and moving the synthetic images of a class.
        snapshot_bytes: A network as it travels; a gradient has about the same size.
    """

    update_s: float
    warm_up_s: float
    first_warm_up_s: float
    select_s: float
    target_s: float
    move_s: float
    snapshot_bytes: float

    def __post_init__(self) -> None:
        """Raises UsageError where a cost is none."""
        for name, value in vars(self).items():
            if not 0 <= value < math.inf:
                raise UsageError(f"{name} must be a finite number >= 0; got {value}")

    @property
    def match_s(self) -> float:
        """Matching a class once."""
        return self.target_s + self.move_s


@dataclass(frozen=True)
class Schedule:
    """Who does what.

    Attributes:
        outer_steps: Outer steps of the run.
        inner_steps: Inner steps of each.
        interval: Inner steps between two selections.
        class_sizes: Size of every class, in units of the class that `StepCosts.select_s` is about.
        workers: Workers, at most one a class.
        warm_up_share: Share of the outer steps after the first whose network is warmed up; the others begin with one
            that is known.
        producers: Who trains the networks ahead; 0: every worker trains them itself.
        window: Steps that a network may be handed over ahead of the slowest worker, >= 1.
        selectors: Who selects ahead of the workers, needs producers; 0: every worker itself.
        cores: Cores that all of them share evenly; infinite: everybody has one.
        bandwidth: Bytes per second of a link.
        latency_s: Of a link.
    """

    outer_steps: int
    inner_steps: int
    interval: int
    class_sizes: tuple[float, ...]
    workers: int
    warm_up_share: float = 1.0
    producers: int = 0
    window: int = 1
    selectors: int = 0
    cores: float = math.inf
    bandwidth: float = math.inf
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        """Raises UsageError where a value breaks a rule."""
        for name in ("outer_steps", "inner_steps", "interval", "workers", "window"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be an int >= 1; got {getattr(self, name)}")
        for name in ("producers", "selectors", "latency_s"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must be >= 0; got {getattr(self, name)}")
        if not 0 <= self.warm_up_share <= 1:
            raise UsageError(f"warm_up_share must be a number from 0 to 1; got {self.warm_up_share}")
        for name in ("cores", "bandwidth"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be > 0; got {getattr(self, name)}")
        if not self.class_sizes or not all(0 <= size < math.inf for size in self.class_sizes):
            raise UsageError(f"class_sizes must be numbers >= 0, at least one; got {self.class_sizes}")
        if self.selectors and not self.producers:
            raise UsageError(f"selectors need producers, whose networks they see; got {self.selectors} without any")


class Usage(NamedTuple):
    """What a run used.

    Attributes:
        wall_s: From its start to the end of its last worker.
        worker_s: Computing of all workers together.
        producer_s: Computing of all producers together.
        selector_s: Computing of all selectors together.
        num_bytes: Sent over all links.
    """

    wall_s: float
    worker_s: float
    producer_s: float
    selector_s: float
    num_bytes: float


def simulate(costs: StepCosts, schedule: Schedule) -> Usage:
    """Plays a whole run, event by event: about 10 microseconds for each step of each worker."""
    return _Simulation(costs, schedule).run()


class _Simulation:
    """One run, event by event."""

    def __init__(self, costs: StepCosts, schedule: Schedule) -> None:
        self._costs, self._schedule = costs, schedule
        self._timeline = Timeline(schedule.cores)
        self._busy = dict.fromkeys(("worker", "producer", "selector"), 0.0)
        self._bytes = 0.0
        self._copy_s = costs.snapshot_bytes / schedule.bandwidth
        self._next_outer = 0
        self._asked: dict[int, int] = defaultdict(int)
        self._all_asked: dict[int, Signal] = defaultdict(Signal)
        self._made: dict[int, Signal] = defaultdict(Signal)
        self._selected: dict[tuple[int, int], Signal] = defaultdict(Signal)
        self._maker: dict[int, int] = {}
        self._link_free_at = [0.0] * schedule.producers

    def run(self) -> Usage:
        """Plays the run."""
        schedule = self._schedule
        selecting = place_classes(schedule.class_sizes, schedule.selectors) if schedule.selectors else ()
        for number in range(schedule.producers):
            self._timeline.start(self._producer(number))
        for number, labels in enumerate(selecting):
            self._timeline.start(self._selector(number, labels))
        for labels in place_classes(self._class_costs_s(), schedule.workers):
            needed = [number for number, others in enumerate(selecting) if set(others) & set(labels)]
            self._timeline.start(self._worker(labels, needed))
        self._timeline.run()
        return Usage(
            self._timeline.now, self._busy["worker"], self._busy["producer"], self._busy["selector"], self._bytes
        )

    def _class_costs_s(self) -> list[float]:
        """Returns what each class takes between two selections, by which classes are placed, as in a run."""
        costs, schedule = self._costs, self._schedule
        selecting_s = 0.0 if schedule.selectors else costs.select_s
        return [selecting_s * size + costs.match_s * schedule.interval for size in schedule.class_sizes]

    def _worker(self, labels: Labels, selectors: list[int]) -> Process:
        """A worker: gets each network, selects and matches."""
        schedule = self._schedule
        for step in range(schedule.outer_steps * schedule.inner_steps):
            seconds = self._costs.match_s * len(labels)
            if schedule.producers:
                yield from self._fetch(step)
            else:
                seconds += self._training_s(step)
            if step % schedule.inner_steps % schedule.interval == 0:
                if not selectors:
                    seconds += self._select_s(labels)
                for number in selectors:
                    yield self._selected[step, number]
            yield from self._work("worker", seconds)

    def _producer(self, number: int) -> Process:
        """A producer: takes outer steps, trains their networks and hands them over."""
        schedule = self._schedule
        while (outer := self._next_outer) < schedule.outer_steps:
            self._next_outer += 1
            first = outer * schedule.inner_steps
            for step in range(first, first + schedule.inner_steps):
                yield from self._work("producer", self._training_s(step))
                yield from self._room(step)
                self._maker[step] = number
                self._timeline.give(self._made[step])

    def _selector(self, number: int, labels: Labels) -> Process:
        """A selector: selects for its classes wherever it is due, as soon as the network is there."""
        schedule = self._schedule
        for outer in range(schedule.outer_steps):
            for inner in range(0, schedule.inner_steps, schedule.interval):
                step = outer * schedule.inner_steps + inner
                yield from self._receive(step)
                yield from self._work("selector", self._select_s(labels))
                self._timeline.give(self._selected[step, number])

    def _room(self, step: int) -> Iterator[Signal]:
        """Waits until a network may be handed over."""
        if (needed := step - self._schedule.window + 1) > 0:
            yield self._all_asked[needed]

    def _fetch(self, step: int) -> Iterator[Signal | Pause]:
        """A worker asks for a network, so needs no earlier one any more, and receives it."""
        self._asked[step] += 1
        if self._asked[step] == self._schedule.workers:
            self._timeline.give(self._all_asked[step])
        yield from self._receive(step)

    def _receive(self, step: int) -> Iterator[Signal | Pause]:
        yield self._made[step]
        maker, now = self._maker[step], self._timeline.now
        self._link_free_at[maker] = max(now, self._link_free_at[maker]) + self._copy_s
        self._bytes += self._costs.snapshot_bytes
        yield Pause(self._link_free_at[maker] - now + self._schedule.latency_s)

    def _work(self, role: str, seconds: float) -> Iterator[Work]:
        started = self._timeline.now
        yield Work(seconds)
        self._busy[role] += self._timeline.now - started

    def _training_s(self, step: int) -> float:
        """Returns what it takes to train the network of a step from the one before."""
        if step == 0:
            return self._costs.first_warm_up_s
        if step % self._schedule.inner_steps:
            return self._costs.update_s
        return self._schedule.warm_up_share * self._costs.warm_up_s

    def _select_s(self, labels: Labels) -> float:
        return self._costs.select_s * sum(self._schedule.class_sizes[label] for label in labels)
