"""Producers of networks as Ray actors, and the conveyor between them and the workers of Ray Train."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from dream_ray import storage
from dream_ray.engine.allocator import keep_freed_memory
from dream_ray.engine.environment import fixed_threads
from dream_ray.engine.network_source import NetworkState
from dream_ray.engine.run import Run, open_run
from dream_ray.engine.trajectories.conveyor import Conveyor, Job
from dream_ray.engine.trajectories.producing import produce, window_of
from dream_ray.errors import RunError, UsageError

_PATIENCE_S = 10.0
_LOOK_S = 1.0


@dataclass(frozen=True)
class ProducerPlan:
    """How many producers a run gets, and what each reserves; reserving nothing, they share the workers' cores."""

    count: int
    cpus: int
    gpus: float


def plan_producers(
    requested: int | None, *, workers: int, cpus: int, gpus: float, available_cpus: float, available_gpus: float
) -> ProducerPlan:
    """Decides on the producers of a run.

    Args:
        requested: What the user asked for; None: one for every place that the workers leave, at most one a worker, at
            least one where there are several workers, which would all train the same networks otherwise.
        workers: Ray Train workers.
        cpus: CPUs of a worker, and of a producer.
        gpus: GPUs of a worker, and of a producer.
        available_cpus: CPUs of the cluster.
        available_gpus: GPUs of the cluster.
    """
    places = int((available_cpus - workers * cpus) // cpus)
    if gpus > 0:
        places = min(places, int((available_gpus - workers * gpus) // gpus))
    count = max(min(places, workers), int(workers > 1)) if requested is None else requested
    return ProducerPlan(count, cpus, gpus) if count <= places else ProducerPlan(count, 0, 0.0)


class RayNetworks:
    """The end of the conveyor that belongs to one worker of Ray Train."""

    def __init__(self, conveyor: ActorHandle[Any], rank: int, num_workers: int) -> None:
        self._conveyor, self._rank, self._num_workers = conveyor, rank, num_workers
        self._step = 0

    def begin(self, step: int, state: NetworkState | None) -> None:
        """See `Networks.begin`."""
        self._step = step
        _value(self._conveyor.begin.remote(self._rank, self._num_workers, step, state))

    def get(self, step: int) -> NetworkState:
        """See `Networks.get`."""
        self._step = step
        while True:
            state = self._ask(self._conveyor.get, step, _PATIENCE_S)
            if state is not None:
                return state

    def peek(self, step: int) -> NetworkState | None:
        """See `Networks.peek`."""
        return self._ask(self._conveyor.peek, step, _LOOK_S)

    def _ask(self, method: Any, step: int, timeout_s: float) -> NetworkState | None:
        try:
            references = _value(method.remote(self._rank, step, timeout_s))
            if references is not None:
                state: NetworkState = ray.get(references[0])
                return state
        except KeyError:  # the conveyor died and is another one now
            self.begin(self._step, None)
        except ObjectLostError:  # it died with the producer that made it, or with its node
            ray.get(self._conveyor.lose.remote(step))
        return None


class _RayJobs:
    """The end of the conveyor that belongs to the producers."""

    def __init__(self, conveyor: ActorHandle[Any]) -> None:
        self._conveyor = conveyor

    def next_job(self, producer: int) -> Job | None:
        job: Job | None = ray.get(self._conveyor.next_job.remote(producer))
        return job

    def put(self, producer: int, inner: int, item: Any) -> bool:
        return bool(ray.get(self._conveyor.put.remote(producer, inner, item)))


class _Producer:
    def run(self, conveyor: ActorHandle[Any], number: int, run_path: str) -> None:
        # A reference in a list travels as a reference: the networks never pass through the conveyor.
        keep_freed_memory()
        run = open_run(run_path)
        with fixed_threads(run.threads):
            produce(_RayJobs(conveyor), number, run, pack=lambda state: [ray.put(state)])


@contextmanager
def producing_actors(run: Run, plan: ProducerPlan, num_workers: int) -> Iterator[ActorHandle[Any] | None]:
    """Lets actors make the networks of a run; they end with the block.

    Yields:
        The conveyor, for `RayNetworks`; None where the workers train the networks themselves.
    """
    if plan.count == 0:
        yield None
        return
    # Everybody may wait in it at a time, and the driver has to get through.
    concurrency = 2 * (num_workers + plan.count) + 8
    options: dict[str, Any] = {"max_restarts": -1, "max_task_retries": -1, "max_concurrency": concurrency}
    conveyor: Any = ray.remote(num_cpus=0, **options)(Conveyor).remote(
        outer_steps=run.config.outer_steps, inner_steps=run.config.inner_steps, window=window_of(run, plan.count)
    )
    producers = _Producers(run, plan, conveyor)
    try:
        yield conveyor
    finally:
        producers.end()
        ray.kill(conveyor)


class _Producers:
    """The producers of a run; one that dies is replaced."""

    def __init__(self, run: Run, plan: ProducerPlan, conveyor: ActorHandle[Any]) -> None:
        self._path, self._conveyor = storage.absolute(run.path), conveyor
        self._ended = threading.Event()
        self._running: dict[Any, tuple[int, ActorHandle[Any]]] = {}
        for number in range(plan.count):
            self._start(number, plan.cpus, plan.gpus)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def end(self) -> None:
        """Ends all of them."""
        self._ended.set()
        self._watcher.join()
        for _, producer in self._running.values():
            ray.kill(producer)

    def _start(self, number: int, cpus: int, gpus: float) -> None:
        producer: Any = ray.remote(num_cpus=cpus, num_gpus=gpus)(_Producer).remote()
        self._running[producer.run.remote(self._conveyor, number, self._path)] = number, producer

    def _watch(self) -> None:
        while self._running and not self._ended.is_set():
            ended, _ = ray.wait(list(self._running), timeout=_LOOK_S)
            for reference in ended:
                number, _ = self._running.pop(reference)
                try:
                    _value(reference)
                except RayActorError:
                    # Its place may be gone with its node: the next one shares a place with others.
                    ray.get(self._conveyor.abandon.remote(number))
                    self._start(number, 0, 0.0)
                except (UsageError, RunError) as error:
                    ray.get(self._conveyor.close.remote(str(error)))
                except Exception as error:
                    ray.get(self._conveyor.close.remote(f"a producer of networks failed: {error!r}"))
                    raise


def _value(reference: Any) -> Any:
    """Returns what a call returned, or raises what it raised, without Ray's traceback in the message."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from None
