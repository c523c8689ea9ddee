"""The queue between producers, which train networks, and workers, which match against them.

Snapshots are numbered by the step that they serve, outer * inner_steps + inner. A producer asks for a job and puts its
snapshots in; every worker gets every snapshot, in ascending order. The queue drops snapshots that every worker has
passed. A producer that is `window` snapshots ahead of the slowest worker waits in `put`. Snapshots are deterministic,
so lost ones are recomputed: those of a dead producer or node, and those that a restarted worker group needs again.

Every method may be called from any thread. `distributed.prefetch` runs the queue in an actor.
"""

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

from dream_ray.errors import RunError

if TYPE_CHECKING:  # without torch, a process that runs only the queue starts in half the time
    from dream_ray.engine.networks.sources import NetworkState

Item = TypeVar("Item")


@dataclass(frozen=True)
class Job:
    """A part of a trajectory to train.

    Attributes:
        outer: Outer step, which numbers the trajectory.
        start: Inner step to train from.
        state: Network at `start`; None at the start of the trajectory.
        first: First inner step whose snapshot is wanted, >= start.
        stop: Inner step before which to stop.
    """

    outer: int
    start: int
    state: "NetworkState | None"
    first: int
    stop: int


class SnapshotQueue(Generic[Item]):
    """Passes snapshots from producers to workers.

    Args:
        outer_steps: Trajectories of the run.
        inner_steps: Snapshots per trajectory.
        window: Snapshots that the queue accepts ahead of the slowest worker, >= 1.
    """

    def __init__(self, *, outer_steps: int, inner_steps: int, window: int) -> None:
        assert window >= 1
        self._outer_steps, self._inner_steps, self._window = outer_steps, inner_steps, window
        self._changed = threading.Condition()
        self._incarnation: int | None = None
        self._is_group_lost = False
        self._positions: dict[int, int] = {}
        self._begun: set[int] = set()
        self._held: dict[int, tuple[Item, int]] = {}  # by step: the snapshot and the producer that put it in
        self._checkpoint: tuple[int, NetworkState] | None = None  # step, and the network there
        self._jobs: dict[int, Job] = {}  # by producer
        self._removed: set[int] = set()
        self._closed_because: str | None = None

    def begin(self, rank: int, num_workers: int, step: int, state: "NetworkState | None", incarnation: int = 0) -> None:
        """Registers a worker. The first one of a new group sets the position of the others until they register.

        Args:
            rank: Rank of the worker.
            num_workers: Size of the group.
            step: First snapshot that the worker needs.
            state: Network at that step, if a checkpoint holds it; saves the training up to there.
            incarnation: Number of the group; a restarted group has a new one.
        """
        with self._changed:
            if incarnation != self._incarnation:
                self._incarnation, self._is_group_lost = incarnation, False
                self._begun.clear()
                self._positions = dict.fromkeys(range(num_workers), step)
            self._begun.add(rank)
            self._positions[rank] = step
            if state is not None:
                self._checkpoint = step, state
            self._changed.notify_all()

    def get(self, rank: int, step: int, timeout_s: float) -> Item | None:
        """Waits for a snapshot, and moves the worker there: it needs no earlier one any more.

        Args:
            rank: Rank of the worker.
            step: Step of the snapshot.
            timeout_s: Longest time to wait.

        Returns:
            The snapshot; None after `timeout_s`.

        Raises:
            KeyError: If the worker is not registered, because the queue was replaced.
            RunError: If the queue is closed and does not hold the snapshot.
        """
        with self._changed:
            self._check_registered(rank)
            self._positions[rank] = step
            for passed in [number for number in self._held if number < self._slowest]:
                del self._held[passed]
            self._changed.notify_all()
            return self._wait_for(step, timeout_s)

    def try_get(self, rank: int, step: int, timeout_s: float) -> Item | None:
        """Waits for a snapshot that the worker needs later; as `get`, but the worker keeps its position."""
        with self._changed:
            self._check_registered(rank)
            return self._wait_for(step, timeout_s)

    def mark_lost(self, step: int, item: Item) -> None:
        """Drops a snapshot that cannot be read, with the later ones of its trajectory from the same producer.

        Args:
            step: Step of the snapshot.
            item: What `get` returned. If the queue holds another one by now, nothing is dropped.
        """
        with self._changed:
            held = self._held.get(step)
            if held is not None and held[0] == item:
                end = (step // self._inner_steps + 1) * self._inner_steps
                self._drop([later for later in self._held_of(held[1]) if step <= later < end])

    def next_job(self, producer: int) -> Job | None:
        """Waits for work. The rest of the producer's last job goes to the next producer that asks.

        Returns:
            A job; None if nothing is left to train, or the producer was removed.
        """
        with self._changed:
            self._jobs.pop(producer, None)
            while not self._is_over(producer):
                # The window does not delay a trajectory's start: its warm-up may take long, and `put` waits.
                if (job := self._due_job()) is not None:
                    self._jobs[producer] = job
                    return job
                self._changed.wait()
            return None

    def put(self, producer: int, inner: int, item: Item) -> bool:
        """Waits until the window admits the next snapshot of the producer's job, and takes it.

        Returns:
            Whether the producer continues with its job; otherwise it asks for another one.
        """
        with self._changed:
            job = self._jobs.get(producer)
            if job is None:
                return False  # the queue was replaced since it gave the job
            step = self._step(job.outer, inner)
            self._changed.wait_for(
                lambda: self._is_in_window(step) or self._is_needed_elsewhere() or self._is_over(producer)
            )
            if self._is_over(producer):
                return False
            if not self._is_in_window(step) and (needed := self._due_job()) is not None:
                self._jobs[producer] = needed  # so that no other producer leaves its job for this one
                return False
            if step >= self._slowest:
                self._held[step] = item, producer
            self._jobs[producer] = replace(job, first=inner + 1)
            self._changed.notify_all()
            return inner + 1 < job.stop

    def remove_producer(self, producer: int) -> None:
        """Drops the job and the snapshots of a dead producer; its number is not used again."""
        with self._changed:
            self._removed.add(producer)
            self._jobs.pop(producer, None)
            self._drop(self._held_of(producer))

    def mark_group_lost(self) -> None:
        """Records that a worker died. Its group restarts once there are free worker slots."""
        self._is_group_lost = self._incarnation is not None

    def is_group_lost(self) -> bool:
        """Tells whether a worker died and no new group has registered since."""
        return self._is_group_lost

    def close(self, problem: str | None = None) -> None:
        """Ends every wait.

        Args:
            problem: Message of the RunError that waiting workers get.
        """
        with self._changed:
            self._closed_because = problem or self._closed_because or "the run has ended"
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed_because is not None

    def _check_registered(self, rank: int) -> None:
        # A position that another worker set for it does not count: this one may need earlier snapshots.
        if rank not in self._begun:
            raise KeyError(f"worker {rank} is not registered")

    def _wait_for(self, step: int, timeout_s: float) -> Item | None:
        self._changed.wait_for(lambda: step in self._held or self.is_closed, timeout_s)
        if step in self._held:
            return self._held[step][0]
        if self._closed_because is not None:
            raise RunError(self._closed_because)
        return None

    def _is_over(self, producer: int) -> bool:
        # Calls of a dead producer may still wait here; they must neither take a job nor put anything in.
        return self.is_closed or producer in self._removed

    @property
    def _slowest(self) -> int:
        return min(self._positions.values())

    def _step(self, outer: int, inner: int) -> int:
        return outer * self._inner_steps + inner

    def _is_in_window(self, step: int) -> bool:
        return step < self._slowest + self._window

    def _is_needed_elsewhere(self) -> bool:
        """Tells whether earlier snapshots wait for a producer while this one waits for the slowest worker."""
        job = self._due_job()
        return job is not None and self._is_in_window(self._step(job.outer, job.first))

    def _held_of(self, producer: int) -> list[int]:
        return [step for step, (_, source) in self._held.items() if source == producer]

    def _drop(self, steps: list[int]) -> None:
        for step in steps:
            del self._held[step]
        self._changed.notify_all()

    def _due_job(self) -> Job | None:
        """Returns a job for the first snapshots that are needed, not held and in no producer's job."""
        if not self._positions:
            return None
        covered = set(self._held)
        for job in self._jobs.values():
            covered.update(range(self._step(job.outer, job.first), self._step(job.outer, job.stop)))
        needed = range(self._slowest, self._step(self._outer_steps, 0))
        missing = next((step for step in needed if step not in covered), None)
        if missing is None:
            return None
        outer, first = divmod(missing, self._inner_steps)
        inners = range(first, self._inner_steps)
        stop = next((inner for inner in inners if self._step(outer, inner) in covered), self._inner_steps)
        if self._checkpoint is not None:
            known_outer, known_inner = divmod(self._checkpoint[0], self._inner_steps)
            if known_outer == outer and known_inner <= first:
                return Job(outer, known_inner, self._checkpoint[1], first, stop)
        return Job(outer, 0, None, first, stop)
