"""Producers of networks as Ray actors: how many, where, and what becomes of those that die."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorUnschedulableError, RayActorError

from dream_ray import storage
from dream_ray.distributed.conveyor import ConveyorCalls, RayJobs, kept_conveyor
from dream_ray.distributed.place import beside_workers
from dream_ray.distributed.tasks import value_of
from dream_ray.engine.allocator import keep_freed_memory
from dream_ray.engine.environment import fixed_threads
from dream_ray.engine.run_directory import Run, open_run
from dream_ray.engine.trajectories.producing import produce
from dream_ray.errors import RunError, UsageError

_LOOK_S = 1.0
# How long workers that died may look for new places before producers leave them theirs.
_GIVE_WAY_S = 60.0


@dataclass(frozen=True)
class ProducerPlan:
    """How many producers a run gets, and where they are.

    Attributes:
        count: Producers.
        cpus: CPUs of a worker's place.
        gpus: GPUs of a worker's place.
        reserves: Whether each reserves a place; otherwise they share the workers' cores and GPUs.
        follows: Whether they take their places only when the workers have theirs.
    """

    count: int
    cpus: int
    gpus: float
    reserves: bool
    follows: bool = False


def plan_producers(
    requested: int | None, *, workers: int, cpus: int, gpus: float, places: int, possible_places: int
) -> ProducerPlan:
    """Decides on the producers of a run.

    Args:
        requested: What the user asked for; None: one for every place that the workers leave, at most one a worker, at
            least one where there are several workers, which would all train the same networks otherwise.
        workers: Ray Train workers.
        cpus: CPUs of a worker, and of a producer.
        gpus: GPUs of a worker, and of a producer.
        places: Workers that the nodes have room for which are there.
        possible_places: The same with the nodes that can be added, for which a run waits only where it was asked to.
    """
    free = places - workers
    count = max(min(free, workers), int(workers > 1)) if requested is None else requested
    reserves = count <= (free if requested is None else possible_places - workers)
    return ProducerPlan(count, cpus, gpus, reserves=reserves, follows=reserves and count > free)


@contextmanager
def producing_actors(run: Run, plan: ProducerPlan, num_workers: int) -> Iterator[str | None]:
    """Lets actors make the networks of a run; they end with the block.

    Yields:
        The name of the conveyor, for `RayNetworks`; None where the workers train the networks themselves.
    """
    if plan.count == 0:
        yield None
        return
    with kept_conveyor(run, plan.count, num_workers) as conveyor:
        producers = _Producers(run, plan, conveyor)
        try:
            yield conveyor
        finally:
            producers.end()


@dataclass(frozen=True)
class _Running:
    """A producer that was started; whether it reserves a place."""

    number: int
    producer: ActorHandle[Any]
    reserves: bool


class _Producers:
    """The producers of a run; one that dies is replaced."""

    def __init__(self, run: Run, plan: ProducerPlan, conveyor: str) -> None:
        self._path, self._conveyor = storage.absolute(run.path), conveyor
        self._call = ConveyorCalls(conveyor)
        self._ended = threading.Event()
        self._plan = plan
        self._running: dict[Any, _Running] = {}
        self._lost_since: float | None = None
        self._numbers = itertools.count()  # what the conveyor knows of one that is gone is never said of another
        self._due = [plan.reserves] * plan.count  # for each that is to be started: whether it reserves a place
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def end(self) -> None:
        """Ends all of them."""
        self._ended.set()
        self._watcher.join()
        for running in self._running.values():
            ray.kill(running.producer)

    def _watch(self) -> None:
        while (self._due or self._running) and not self._ended.is_set():
            self._due = [reserves for reserves in self._due if not self._start(reserves)]
            if not self._running:
                self._ended.wait(_LOOK_S)
                continue
            self._give_way()
            ended, _ = ray.wait(list(self._running), timeout=_LOOK_S)
            for reference in ended:
                self._take_leave(reference)

    def _start(self, reserves: bool) -> bool:
        """Starts a producer where there is a place for it now; tells whether there was."""
        number = next(self._numbers)
        if reserves:
            if self._plan.follows and not self._call("has_begun"):
                return False
            options: dict[str, Any] | None = {"num_cpus": self._plan.cpus, "num_gpus": self._plan.gpus}
        else:
            options = beside_workers(self._plan.gpus, number)
        if options is None:
            return False
        producer: Any = ray.remote(**options)(_Producer).remote()
        self._running[producer.run.remote(self._conveyor, number, self._path)] = _Running(number, producer, reserves)
        return True

    def _give_way(self) -> None:
        """Ends those that hold places where workers died and have long found none; others then share what there is."""
        now = time.monotonic()
        if not self._call("is_group_lost"):
            self._lost_since = None
        elif self._lost_since is None:
            self._lost_since = now
        elif now - self._lost_since > _GIVE_WAY_S:
            for running in self._running.values():
                if running.reserves:
                    ray.kill(running.producer)

    def _take_leave(self, reference: Any) -> None:
        number = self._running.pop(reference).number
        try:
            value_of(reference)
        except (RayActorError, ActorUnschedulableError):
            # Its place may be gone with its node: the next one shares a place with others.
            self._call("abandon", number)
            self._due.append(False)
        except (UsageError, RunError) as error:
            self._call("close", str(error))
        except Exception as error:
            self._call("close", f"a producer of networks failed: {error!r}")
            raise


class _Producer:
    def run(self, conveyor: str, number: int, run_path: str) -> None:
        # A reference in a list travels as a reference: the networks never pass through the conveyor.
        keep_freed_memory()
        run = open_run(run_path)
        with fixed_threads(run.threads):
            produce(RayJobs(conveyor), number, run, pack=lambda state: [ray.put(state)])
