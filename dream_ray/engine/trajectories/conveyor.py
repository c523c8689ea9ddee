"""Who makes which trajectory, how far ahead, and who has fetched what.

Networks are numbered by the step they serve, outer * inner_steps + inner. Producers ask for jobs and put networks in;
workers get them out, each in ascending order. A network is dropped when every worker is past it, and a producer that is
`window` networks ahead of the slowest worker waits with the next one in its hands. What is lost (a producer with all
that it handed over, an object, a worker group that starts again from its checkpoint) is made again: a network is a
function of its number.

All methods may be called by many threads at a time; `distributed.conveyor` makes an actor of it.
"""

import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

from dream_ray.errors import RunError

if TYPE_CHECKING:  # a process that holds nothing but a conveyor starts in half the time without torch
    from dream_ray.engine.network_source import NetworkState

Item = TypeVar("Item")


@dataclass(frozen=True)
class Job:
    """A part of a trajectory to make.

    Attributes:
        outer: Which trajectory.
        start: Inner step to train from.
        state: Network there; None for the start of the trajectory.
        first: First inner step that is wanted, >= start.
        stop: Inner step before which to stop.
    """

    outer: int
    start: int
    state: "NetworkState | None"
    first: int
    stop: int


class Conveyor(Generic[Item]):
    """Hands networks from producers to workers.

    Args:
        outer_steps: Trajectories of the run.
        inner_steps: Networks of each.
        window: Networks that may be handed over ahead of the slowest worker, >= 1.
    """

    def __init__(self, *, outer_steps: int, inner_steps: int, window: int) -> None:
        assert window >= 1
        self._outer_steps, self._inner_steps, self._window = outer_steps, inner_steps, window
        self._changed = threading.Condition()
        self._group: int | None = None
        self._is_lost = False
        self._positions: dict[int, int] = {}
        self._begun: set[int] = set()
        self._made: dict[int, Item] = {}
        self._makers: dict[int, int] = {}  # of all that were ever made: with a process go the references it handed over
        self._known: tuple[int, NetworkState] | None = None  # a network of a checkpoint, by step
        self._repairs: list[Job] = []
        self._next_outer: int | None = None
        self._jobs: dict[int, Job] = {}
        self._called: set[int] = set()
        self._gone: set[int] = set()
        self._closed = False
        self._problem = "the run has ended"

    def begin(self, rank: int, num_workers: int, step: int, state: "NetworkState | None", group: int = 0) -> None:
        """A worker starts at a step; the first one of a new group speaks for those who have not begun yet.

        Args:
            rank: Of the worker.
            num_workers: Workers of the group.
            step: First network that it needs.
            state: That network where the worker knows it (from a checkpoint); saves training up to there.
            group: Which one, when the workers before died.
        """
        with self._changed:
            if group != self._group:
                self._group, self._is_lost = group, False
                self._begun.clear()
                self._positions = dict.fromkeys(range(num_workers), step)
            self._begun.add(rank)
            self._positions[rank] = step
            if state is not None:
                self._known = step, state
            outer, inner = divmod(step, self._inner_steps)
            if self._next_outer is None:
                self._next_outer = outer
            if inner and outer == self._next_outer:
                self._next_outer += 1
            self._plan_repairs()
            self._changed.notify_all()

    def get(self, rank: int, step: int, timeout_s: float) -> Item | None:
        """Waits for a network.

        Args:
            rank: Of the worker, which needs no earlier network any more.
            step: Number of the network.
            timeout_s: Longest time to wait.

        Returns:
            The network, or None when it was not there in time.

        Raises:
            KeyError: If the worker never began; the conveyor is new.
            RunError: If nobody will make it any more.
        """
        with self._changed:
            self._check_begun(rank)
            self._positions[rank] = step
            for old in [number for number in self._made if number < self._slowest]:
                del self._made[old]
            self._changed.notify_all()
            self._changed.wait_for(lambda: step in self._made or self._closed, timeout_s)
            item = self._made.get(step)
            if item is None and self._closed:
                raise RunError(self._problem)
            return item

    def peek(self, rank: int, step: int, timeout_s: float) -> Item | None:
        """Waits for a network that the worker will need later; otherwise as `get`, but the worker stays where it is."""
        with self._changed:
            self._check_begun(rank)
            self._changed.wait_for(lambda: step in self._made or self._closed, timeout_s)
            return self._made.get(step)

    def lose(self, step: int, item: Item) -> None:
        """A network cannot be read: it and those that its producer made after it, lost like it, are made again.

        Args:
            step: Its number.
            item: What `get` returned; where the network was made again since, there is nothing to do.
        """
        with self._changed:
            if step in self._made and self._made[step] == item:
                end = (step // self._inner_steps + 1) * self._inner_steps
                self._drop([later for later in self._made_by(self._makers[step]) if step <= later < end])

    def next_job(self, producer: int) -> Job | None:
        """Waits for work; what the producer had not finished of its last job is left to whoever asks next.

        Returns:
            A job, or None when there is nothing to make any more.
        """
        with self._changed:
            if self._jobs.pop(producer, None) is not None:
                self._called.discard(producer)
                self._plan_repairs()
            while not self._is_over(producer):
                job = self._take_job()
                if job is not None:
                    self._jobs[producer] = job
                    return job
                self._changed.wait()
            return None

    def put(self, producer: int, inner: int, item: Item) -> bool:
        """Waits until a network of the producer's job may be put in, and puts it in.

        Returns:
            Whether the producer should go on with the job; otherwise it asks for another one.
        """
        with self._changed:
            job = self._jobs.get(producer)
            if job is None:
                return False  # another conveyor had given it: this one is new
            step = job.outer * self._inner_steps + inner
            self._changed.wait_for(
                lambda: self._may_hand_over(step) or self._is_needed_elsewhere() or self._is_over(producer)
            )
            if self._is_over(producer):
                return False
            if not self._may_hand_over(step):
                self._called.add(producer)
                return False
            if step >= self._slowest:
                self._made[step], self._makers[step] = item, producer
            self._jobs[producer] = replace(job, first=inner + 1)
            self._changed.notify_all()
            return inner + 1 < job.stop

    def abandon(self, producer: int) -> None:
        """A producer is gone, and its number with it: what it was to make, and what it had made, is left to others."""
        with self._changed:
            self._gone.add(producer)
            self._called.discard(producer)
            self._jobs.pop(producer, None)
            self._drop(self._made_by(producer))

    def has_begun(self) -> bool:
        """Tells whether a worker has begun."""
        return bool(self._begun)

    def lose_group(self) -> None:
        """A worker died, and the others of its group will; a new group begins when it has found places."""
        self._is_lost = self._group is not None

    def is_group_lost(self) -> bool:
        """Tells whether workers died and no others have begun yet."""
        return self._is_lost

    def close(self, problem: str | None = None) -> None:
        """Ends the waiting of everybody; workers that still wait are told the problem."""
        with self._changed:
            self._closed = True
            self._problem = problem or self._problem
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """Whether nobody needs anything any more."""
        return self._closed

    def _check_begun(self, rank: int) -> None:
        # That another one spoke for it is not enough: it may need what nobody makes, networks before the other's.
        if rank not in self._begun:
            raise KeyError(f"worker {rank} never began")

    def _is_over(self, producer: int) -> bool:
        # The calls of one that died go on waiting here, and must neither take a job nor put anything in.
        return self._closed or producer in self._gone

    @property
    def _slowest(self) -> int:
        return min(self._positions.values())

    def _may_hand_over(self, step: int) -> bool:
        return step < self._slowest + self._window

    def _is_needed_elsewhere(self) -> bool:
        """Tells whether a producer that waits for the slowest worker keeps it waiting for an earlier network."""
        due = [job for job in self._repairs if self._may_hand_over(job.outer * self._inner_steps + job.first)]
        return len(due) > len(self._called)

    def _take_job(self) -> Job | None:
        if self._repairs:
            repair = min(self._repairs, key=lambda job: (job.outer, job.first))
            self._repairs.remove(repair)
            return repair
        outer = self._next_outer
        if outer is None or outer >= self._outer_steps:
            return None
        # However far ahead: the warm-up may take long, and nothing is handed over before its time.
        self._next_outer = outer + 1
        return self._job(outer, 0, self._inner_steps)

    def _made_by(self, producer: int) -> list[int]:
        return [step for step in self._made if self._makers[step] == producer]

    def _drop(self, steps: list[int]) -> None:
        for step in steps:
            del self._made[step]
        self._plan_repairs()
        self._changed.notify_all()

    def _plan_repairs(self) -> None:
        """Sees to it that all that workers still need of the trajectories that were begun is there or coming."""
        self._repairs.clear()
        if self._next_outer is None:
            return
        for outer in range(self._slowest // self._inner_steps, self._next_outer):
            steps = range(max(self._slowest - outer * self._inner_steps, 0), self._inner_steps)
            for first, stop in _runs(steps, self._covered(outer)):
                self._repairs.append(self._job(outer, first, stop))

    def _job(self, outer: int, first: int, stop: int) -> Job:
        if self._known is not None:
            known_outer, known_inner = divmod(self._known[0], self._inner_steps)
            if known_outer == outer and known_inner <= first:
                return Job(outer, known_inner, self._known[1], first, stop)
        return Job(outer, 0, None, first, stop)

    def _covered(self, outer: int) -> set[int]:
        """Returns the inner steps of a trajectory that are there or that somebody makes."""
        steps = range(outer * self._inner_steps, (outer + 1) * self._inner_steps)
        covered = {step - steps.start for step in steps if step in self._made}
        for job in self._jobs.values():
            if job.outer == outer:
                covered.update(range(job.first, job.stop))
        return covered


def _runs(steps: range, covered: Collection[int]) -> Iterator[tuple[int, int]]:
    """Yields (first, stop) of every run of steps that are not covered."""
    begin = None
    for step in (*steps, steps.stop):
        missing = step < steps.stop and step not in covered
        if missing and begin is None:
            begin = step
        if not missing and begin is not None:
            yield begin, step
            begin = None
