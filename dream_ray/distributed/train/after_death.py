"""The reaction of the controller of Ray Train to dead workers. The module imports no torch, like the controller."""

from typing import Any

from ray.train import UserCallback

from dream_ray.distributed.cluster.driver_placement import wait_for_nodes
from dream_ray.distributed.prefetch.coordinator_client import CoordinatorClient
from dream_ray.distributed.train.stopping import RayAgreement

# Ray detects a dead node within this time.
_DEATH_S = 60.0


class AfterDeath(UserCallback):
    """After a failure, waits until Ray has detected the dead nodes before it restarts the workers.

    Ray detects the death of a worker at once and that of a node some seconds later. Workers that it places on a dead
    node never start. Until the workers have started, Ctrl-C finds nothing to save, and producers may release their
    slots.

    Args:
        agreement: The agreement of the workers.
        queue: Name of the snapshot queue; None: the run has no producers.
    """

    def __init__(self, agreement: RayAgreement, queue: str | None) -> None:
        self._agreement, self._queue = agreement, queue

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Waits in the controller, see `wait_for_nodes`."""
        self._agreement.lose_workers()
        wait_for_nodes(_DEATH_S)
        if self._queue is not None:
            CoordinatorClient(self._queue).call("mark_group_lost")
