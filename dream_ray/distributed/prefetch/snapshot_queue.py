"""The coordinator of a run as an actor, and the clients of its snapshot queue in workers and producers."""

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError

from dream_ray.distributed.cluster.driver_placement import on_node, this_node
from dream_ray.distributed.prefetch.coordinator import Coordinator
from dream_ray.distributed.prefetch.coordinator_client import CoordinatorClient
from dream_ray.engine.networks.sources import NetworkState
from dream_ray.engine.prefetch.producer import window_of
from dream_ray.engine.run.directory import Run
from dream_ray.engine.stopping import Stopped

_WAIT_S = 10.0
_TRY_S = 1.0
_RETRY_S = 1.0
_HEALTH_CHECK_S = 1.0
_HEALTH_TIMEOUT_S = 30.0


class RayConsumerSide:
    """A Ray Train worker's side of the snapshot queue.

    Args:
        coordinator: Its name.
        rank: Rank of the worker.
        num_workers: Size of its group.
        has_failed: Tells whether another worker has ended the run. A waiting worker checks it, because the queue admits
            nothing far ahead of a worker that has ended.
        incarnation: See `incarnation_number`.
    """

    def __init__(
        self, coordinator: str, rank: int, num_workers: int, has_failed: Callable[[], bool], incarnation: int = 0
    ) -> None:
        self._coordinator = CoordinatorClient(coordinator)
        self._rank, self._num_workers, self._incarnation = rank, num_workers, incarnation
        self._has_failed = has_failed

    def begin(self, step: int, state: NetworkState | None) -> None:
        """See `ConsumerSide.begin`."""
        self._coordinator.call("begin", self._rank, self._num_workers, step, state, self._incarnation)

    def get(self, step: int) -> NetworkState:
        """See `ConsumerSide.get`; raises Stopped if the run has failed."""
        while True:
            try:
                state = self._fetch("get", step, _WAIT_S)
            except KeyError:  # the coordinator was replaced
                self.begin(step, None)
                continue
            if state is not None:
                return state
            if self._has_failed():
                raise Stopped

    def try_get(self, step: int) -> NetworkState | None:
        """See `ConsumerSide.try_get`."""
        try:
            return self._fetch("try_get", step, _TRY_S)
        except KeyError:  # the next `get` registers the worker
            return None

    def _fetch(self, method: str, step: int, timeout_s: float) -> NetworkState | None:
        references = self._coordinator.call(method, self._rank, step, timeout_s)
        if references is None:
            return None
        try:
            state: NetworkState = ray.get(references[0])
        except ObjectLostError:  # its producer or its node died
            self._coordinator.call("mark_lost", step, references)
            return None
        return state


@contextmanager
def supervised_coordinator(run: Run, num_producers: int, num_workers: int) -> Iterator[str]:
    """Yields the name of a coordinator; a thread replaces the actor if it dies or does not answer."""
    name = f"coordinator-{uuid.uuid4().hex}"
    # All workers and producers may wait in it at once, and the driver must still get through.
    options = {**on_node(this_node()), "name": name, "max_concurrency": 2 * (num_workers + num_producers) + 8}
    sizes = {"outer_steps": run.config.outer_steps, "inner_steps": run.config.inner_steps}
    window = window_of(run, num_producers)
    ended = threading.Event()

    def supervise() -> None:
        while not ended.is_set():
            try:
                actor: Any = ray.remote(**options)(Coordinator).remote(**sizes, window=window)
            except ValueError:  # the name still belongs to the dead actor
                ended.wait(_RETRY_S)
                continue
            try:
                while not ended.wait(_HEALTH_CHECK_S):
                    ray.get(actor.__ray_ready__.remote(), timeout=_HEALTH_TIMEOUT_S)
            except (RayActorError, GetTimeoutError):
                pass
            ray.kill(actor)

    supervisor = threading.Thread(target=supervise, daemon=True)
    supervisor.start()
    try:
        yield name
    finally:
        ended.set()
        supervisor.join()
