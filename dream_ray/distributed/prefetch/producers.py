"""Producers as Ray actors: their number, their placement and the replacement of dead ones."""

import itertools
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorUnschedulableError, RayActorError

from dream_ray import storage
from dream_ray.distributed.cluster.driver_placement import beside_workers, use_gpu
from dream_ray.distributed.cluster.tasks import value_of
from dream_ray.distributed.prefetch.coordinator_client import CoordinatorClient
from dream_ray.engine.networks.sources import on_host
from dream_ray.engine.prefetch.producer import produce
from dream_ray.engine.run.directory import Run, open_run
from dream_ray.engine.run.environment import fixed_arithmetic
from dream_ray.engine.run.process_memory import keep_freed_memory
from dream_ray.errors import RunError, UsageError

_LOOK_S = 1.0
# If restarted workers find no free slots for so long, producers release theirs.
_RELEASE_S = 60.0


@dataclass(frozen=True)
class ProducerPlan:
    """The number and placement of the producers of a run.

    Attributes:
        count: Number of producers.
        cpus: CPUs per worker slot.
        gpus: GPUs per worker slot.
        reserves: Whether each reserves a worker slot; otherwise they share the workers' cores and GPUs.
    """

    count: int
    cpus: int
    gpus: float
    reserves: bool


def plan_producers(requested: int | None, *, workers: int, cpus: int, gpus: float, slots: int) -> ProducerPlan:
    """Plans the producers of a run.

    Args:
        requested: The user's number; None: one per slot that the workers leave free, and at most one per worker. A run
            with several workers gets at least one, because all of them would train the same networks otherwise.
        workers: Ray Train workers.
        cpus: CPUs per worker or producer.
        gpus: GPUs per worker or producer.
        slots: Worker slots of the nodes.
    """
    free = slots - workers
    count = max(min(free, workers), int(workers > 1)) if requested is None else requested
    return ProducerPlan(count, cpus, gpus, reserves=count <= free)


@dataclass(frozen=True)
class _Running:
    """A running producer."""

    number: int
    producer: ActorHandle[Any]
    reserves: bool


class ProducingActors(AbstractContextManager["ProducingActors"]):
    """Runs the producers of a run until the block ends; a thread replaces those that die.

    Args:
        run: The run.
        plan: Their number and placement.
        coordinator: Name of the run's coordinator.
    """

    def __init__(self, run: Run, plan: ProducerPlan, coordinator: str) -> None:
        self._path, self._name = storage.absolute(run.path), coordinator
        self._coordinator = CoordinatorClient(coordinator)
        self._ended = threading.Event()
        self._plan = plan
        self._running: dict[Any, _Running] = {}
        self._lost_since: float | None = None
        self._numbers = itertools.count()  # a replacement gets a new number: the queue ignores calls of the dead one
        self._due = [plan.reserves] * plan.count  # for each producer to start: whether it reserves a worker slot
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._watcher.join()
        for running in self._running.values():
            ray.kill(running.producer)

    def _watch(self) -> None:
        while (self._due or self._running) and not self._ended.is_set():
            self._due = [reserves for reserves in self._due if not self._start(reserves=reserves)]
            if not self._running:
                self._ended.wait(_LOOK_S)
                continue
            self._release_slots()
            ended, _ = ray.wait(list(self._running), timeout=_LOOK_S)
            for reference in ended:
                self._handle_end(reference)

    def _start(self, *, reserves: bool) -> bool:
        """Starts a producer if it may run now; tells whether it was started."""
        number = next(self._numbers)
        if reserves:
            options: dict[str, Any] = {"num_cpus": self._plan.cpus, "num_gpus": self._plan.gpus}
            gpu = 0  # Ray shows it the GPUs that it reserves
        elif (place := beside_workers(self._plan.gpus, number)) is not None:
            options, gpu = place
        else:
            return False
        producer: Any = ray.remote(**options)(_Producer).remote()
        self._running[producer.run.remote(self._name, number, self._path, gpu)] = _Running(number, producer, reserves)
        return True

    def _release_slots(self) -> None:
        """Ends producers that reserve slots if restarted workers have found no free ones for a minute."""
        now = time.monotonic()
        if not self._coordinator.call("is_group_lost"):
            self._lost_since = None
        elif self._lost_since is None:
            self._lost_since = now
        elif now - self._lost_since > _RELEASE_S:
            for running in self._running.values():
                if running.reserves:
                    ray.kill(running.producer)

    def _handle_end(self, reference: Any) -> None:
        number = self._running.pop(reference).number
        try:
            value_of(reference)
        except (RayActorError, ActorUnschedulableError):
            # Its slot may be lost with its node, so its replacement reserves none.
            self._coordinator.call("remove_producer", number)
            self._due.append(False)
        except (UsageError, RunError) as error:
            self._coordinator.call("close", str(error))
        except Exception as error:
            self._coordinator.call("close", f"a producer failed: {error!r}")
            raise


class _Producer:
    def run(self, coordinator: str, number: int, run_path: str, gpu: int) -> None:
        keep_freed_memory()
        run = open_run(run_path)
        use_gpu(run.device.type, gpu)
        with fixed_arithmetic(run.threads, run.config.precision):
            # Ray does not resolve a reference inside a list: the queue passes references, the object store snapshots.
            produce(CoordinatorClient(coordinator), number, run, pack=lambda state: [ray.put(on_host(state))])
