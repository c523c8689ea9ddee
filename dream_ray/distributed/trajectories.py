"""Producers of networks as Ray actors, and the conveyor between them and the workers of Ray Train."""

import itertools
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorUnschedulableError, GetTimeoutError, ObjectLostError, RayActorError, RayTaskError

from dream_ray import storage
from dream_ray.distributed.place import beside_workers, on_this_node
from dream_ray.engine.allocator import keep_freed_memory
from dream_ray.engine.environment import fixed_threads
from dream_ray.engine.network_source import NetworkState
from dream_ray.engine.run import Run, open_run
from dream_ray.engine.trajectories.conveyor import Conveyor, Job
from dream_ray.engine.trajectories.producing import produce, window_of
from dream_ray.errors import RunError, UsageError

_PATIENCE_S = 10.0
_LOOK_S = 1.0
_REPLY_S = 30.0
# How long workers that died may look for new places before producers leave them theirs.
_GIVE_WAY_S = 60.0
_TELL_S = 10.0


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


class _ConveyorCalls:
    """Calls the conveyor of a run, whichever process it is in just now.

    Ray could restart the actor itself, but now and then (one death in nine, Ray 2.60) it never does, and calls wait for
    ever. So the driver replaces it, under the same name, and whoever calls looks for it again.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._handle: ActorHandle[Any] | None = None

    def __call__(self, method: str, *arguments: Any) -> Any:
        """Calls a method of `Conveyor`, again where the conveyor dies meanwhile."""
        while True:
            try:
                if self._handle is None:
                    self._handle = self._find()
                return _value(getattr(self._handle, method).remote(*arguments))
            except RayActorError:
                self._handle = None

    def _find(self) -> ActorHandle[Any]:
        while True:
            try:
                return ray.get_actor(self._name)
            except ValueError:  # there is none just now
                time.sleep(_LOOK_S)


def tell_of_death(conveyor: str) -> None:
    """Lets the producers of a run know that its workers died; does nothing where their conveyor does not answer."""
    with suppress(ValueError, RayActorError, GetTimeoutError):
        ray.get(ray.get_actor(conveyor).lose_group.remote(), timeout=_TELL_S)


class RayNetworks:
    """The end of the conveyor that belongs to one worker of Ray Train; for `group` see `group_number`."""

    def __init__(self, conveyor: str, rank: int, num_workers: int, group: int = 0) -> None:
        self._call = _ConveyorCalls(conveyor)
        self._rank, self._num_workers, self._group = rank, num_workers, group

    def begin(self, step: int, state: NetworkState | None) -> None:
        """See `Networks.begin`."""
        self._call("begin", self._rank, self._num_workers, step, state, self._group)

    def get(self, step: int) -> NetworkState:
        """See `Networks.get`."""
        while True:
            try:
                state = self._fetch("get", step, _PATIENCE_S)
            except KeyError:  # the conveyor died and is another one now
                self.begin(step, None)
                continue
            if state is not None:
                return state

    def peek(self, step: int) -> NetworkState | None:
        """See `Networks.peek`."""
        try:
            return self._fetch("peek", step, _LOOK_S)
        except KeyError:  # the next `get` introduces the worker
            return None

    def _fetch(self, method: str, step: int, timeout_s: float) -> NetworkState | None:
        references = self._call(method, self._rank, step, timeout_s)
        if references is None:
            return None
        try:
            state: NetworkState = ray.get(references[0])
        except ObjectLostError:  # it died with the producer that made it, or with its node
            self._call("lose", step, references)
            return None
        return state


class _RayJobs:
    """The end of the conveyor that belongs to the producers."""

    def __init__(self, conveyor: str) -> None:
        self._call = _ConveyorCalls(conveyor)

    def next_job(self, producer: int) -> Job | None:
        job: Job | None = self._call("next_job", producer)
        return job

    def put(self, producer: int, inner: int, item: Any) -> bool:
        return bool(self._call("put", producer, inner, item))


class _Producer:
    def run(self, conveyor: str, number: int, run_path: str) -> None:
        # A reference in a list travels as a reference: the networks never pass through the conveyor.
        keep_freed_memory()
        run = open_run(run_path)
        with fixed_threads(run.threads):
            produce(_RayJobs(conveyor), number, run, pack=lambda state: [ray.put(state)])


@contextmanager
def producing_actors(run: Run, plan: ProducerPlan, num_workers: int) -> Iterator[str | None]:
    """Lets actors make the networks of a run; they end with the block.

    Yields:
        The name of the conveyor, for `RayNetworks`; None where the workers train the networks themselves.
    """
    if plan.count == 0:
        yield None
        return
    with _kept_conveyor(run, plan, num_workers) as conveyor:
        producers = _Producers(run, plan, conveyor)
        try:
            yield conveyor
        finally:
            producers.end()


@contextmanager
def _kept_conveyor(run: Run, plan: ProducerPlan, num_workers: int) -> Iterator[str]:
    """Yields the name of a conveyor that is replaced when it dies or does not answer."""
    name = f"conveyor-{uuid.uuid4().hex}"
    # Everybody may wait in it at a time, and the driver has to get through.
    options = {**on_this_node(), "name": name, "max_concurrency": 2 * (num_workers + plan.count) + 8}
    sizes = {"outer_steps": run.config.outer_steps, "inner_steps": run.config.inner_steps}
    window = window_of(run, plan.count)
    ended = threading.Event()

    def keep() -> None:
        while not ended.is_set():
            try:
                actor: Any = ray.remote(**options)(Conveyor).remote(**sizes, window=window)
            except ValueError:  # Ray has still to take note of the death of the one before
                ended.wait(_LOOK_S)
                continue
            try:
                while not ended.wait(_LOOK_S):
                    ray.get(actor.__ray_ready__.remote(), timeout=_REPLY_S)
            except (RayActorError, GetTimeoutError):
                pass
            ray.kill(actor)

    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield name
    finally:
        ended.set()
        keeper.join()


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
        self._call = _ConveyorCalls(conveyor)
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
            _value(reference)
        except (RayActorError, ActorUnschedulableError):
            # Its place may be gone with its node: the next one shares a place with others.
            self._call("abandon", number)
            self._due.append(False)
        except (UsageError, RunError) as error:
            self._call("close", str(error))
        except Exception as error:
            self._call("close", f"a producer of networks failed: {error!r}")
            raise


def _value(reference: Any) -> Any:
    """Returns what a call returned, or raises what it raised, without Ray's traceback in the message."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from None
