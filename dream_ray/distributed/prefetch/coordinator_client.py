"""Clients of the coordinator of a run: its snapshot queue and the agreement of its workers.

The module imports no torch: the controller of Ray Train imports it.
"""

import time
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from dream_ray.distributed.cluster.tasks import value_of
from dream_ray.engine.prefetch.snapshot_queue import Job

_RETRY_S = 1.0


class CoordinatorClient:
    """Calls the coordinator of a run; a `ProducerSide`.

    A call that meets a dead coordinator is repeated on its replacement. The driver replaces the actor because Ray's own
    restart fails now and then (seen with Ray 2.60): the actor never returns, and calls wait forever.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._actor: ActorHandle[Any] | None = None

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls a method of `Coordinator` and returns its result."""
        while True:
            try:
                if self._actor is None:
                    self._actor = ray.get_actor(self._name)
            except ValueError:  # not replaced yet
                time.sleep(_RETRY_S)
                continue
            try:
                return value_of(getattr(self._actor, method).remote(*arguments))
            except RayActorError:
                self._actor = None

    def next_job(self, producer: int) -> Job | None:
        """See `SnapshotQueue.next_job`."""
        job: Job | None = self.call("next_job", producer)
        return job

    def put(self, producer: int, inner: int, item: Any) -> bool:
        """See `SnapshotQueue.put`."""
        return bool(self.call("put", producer, inner, item))


class RayAgreement:
    """The `LocalAgreement` in the coordinator of a run. If the coordinator dies, its replacement starts a new one.

    Args:
        coordinator: Its name.

    Attributes:
        coordinator: Its client.
        is_asked_here: Whether this process has asked the workers to stop, and they write a checkpoint.
    """

    def __init__(self, coordinator: str) -> None:
        self.coordinator = CoordinatorClient(coordinator)
        self.is_asked_here = False

    def ask(self) -> bool:
        """See `LocalAgreement`."""
        self.is_asked_here = bool(self._call("ask"))
        return self.is_asked_here

    def begin(self, incarnation: int) -> bool:
        """See `Agreement`."""
        return bool(self._call("begin", incarnation))

    def poll(self) -> bool:
        """See `Agreement`."""
        return bool(self._call("poll"))

    def agree(self, worker: int, num_workers: int, step: int) -> int | None:
        """See `Agreement`."""
        agreed: int | None = self._call("agree", worker, num_workers, step)
        return agreed

    def break_off(self) -> None:
        """See `Agreement`."""
        self._call("break_off")

    def _call(self, method: str, *arguments: Any) -> Any:
        return self.coordinator.call("agreement", method, *arguments)
