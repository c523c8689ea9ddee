"""Calls to the coordinator of a run. The module imports no torch: the controller of Ray Train imports it."""

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
    restart fails now and then (one death in nine, Ray 2.60): the actor never returns, and calls wait forever.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._actor: ActorHandle[Any] | None = None

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls a method of `Coordinator` and returns its result."""
        while True:
            try:
                if self._actor is None:
                    self._actor = self._find()
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

    def _find(self) -> ActorHandle[Any]:
        while True:
            try:
                return ray.get_actor(self._name)
            except ValueError:  # not replaced yet
                time.sleep(_RETRY_S)
