"""The conveyor of a run as an actor, and its ends in the workers of Ray Train and in producers."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError

from dream_ray.distributed.place import on_this_node
from dream_ray.distributed.tasks import value_of
from dream_ray.engine.network_source import NetworkState
from dream_ray.engine.run_directory import Run
from dream_ray.engine.stopping import Stopped
from dream_ray.engine.trajectories.conveyor import Conveyor, Job
from dream_ray.engine.trajectories.producing import window_of

_PATIENCE_S = 10.0
_LOOK_S = 1.0
_REPLY_S = 30.0
_TELL_S = 10.0


class ConveyorCalls:
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
                return value_of(getattr(self._handle, method).remote(*arguments))
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
    """The end of the conveyor that belongs to one worker of Ray Train.

    Args:
        conveyor: Its name.
        rank: Of the worker.
        num_workers: Of its group.
        has_failed: Tells whether another worker has ended the run. Who waits for a network asks now and then, for
            nothing is made far ahead of a worker that is no more.
        group: See `group_number`.
    """

    def __init__(
        self, conveyor: str, rank: int, num_workers: int, has_failed: Callable[[], bool], group: int = 0
    ) -> None:
        self._call = ConveyorCalls(conveyor)
        self._rank, self._num_workers, self._group = rank, num_workers, group
        self._has_failed = has_failed

    def begin(self, step: int, state: NetworkState | None) -> None:
        """See `Networks.begin`."""
        self._call("begin", self._rank, self._num_workers, step, state, self._group)

    def get(self, step: int) -> NetworkState:
        """See `Networks.get`; raises Stopped where the run has failed."""
        while True:
            try:
                state = self._fetch("get", step, _PATIENCE_S)
            except KeyError:  # the conveyor died and is another one now
                self.begin(step, None)
                continue
            if state is not None:
                return state
            if self._has_failed():
                raise Stopped

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


class RayJobs:
    """The end of the conveyor that belongs to the producers."""

    def __init__(self, conveyor: str) -> None:
        self._call = ConveyorCalls(conveyor)

    def next_job(self, producer: int) -> Job | None:
        """See `Conveyor.next_job`."""
        job: Job | None = self._call("next_job", producer)
        return job

    def put(self, producer: int, inner: int, item: Any) -> bool:
        """See `Conveyor.put`."""
        return bool(self._call("put", producer, inner, item))


@contextmanager
def kept_conveyor(run: Run, num_producers: int, num_workers: int) -> Iterator[str]:
    """Yields the name of a conveyor that is replaced when it dies or does not answer."""
    name = f"conveyor-{uuid.uuid4().hex}"
    # Everybody may wait in it at a time, and the driver has to get through.
    options = {**on_this_node(), "name": name, "max_concurrency": 2 * (num_workers + num_producers) + 8}
    sizes = {"outer_steps": run.config.outer_steps, "inner_steps": run.config.inner_steps}
    window = window_of(run, num_producers)
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
