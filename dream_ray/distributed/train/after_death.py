"""What the controller of Ray Train does when workers have died. The module imports no torch, as the controller."""

from typing import Any

from ray.train import UserCallback

from dream_ray.distributed.cluster.driver_placement import wait_for_nodes
from dream_ray.distributed.prefetch.coordinator_client import CoordinatorClient
from dream_ray.distributed.train.stopping import RayAgreement

# The longest time in which Ray finds out that a node is gone.
_DEATH_S = 60.0


class AfterDeath(UserCallback):
    """After a failure, lets Ray find out which nodes are gone before it starts the workers again.

    A worker's death is noticed at once, a node's some seconds later, and workers that are placed on it meanwhile never
    start. Until they have, there is nothing to save, and producers know that workers look for resources.

    Args:
        agreement: Where the workers agree.
        queue: Name of the snapshot queue, or None.
    """

    def __init__(self, agreement: RayAgreement, queue: str | None) -> None:
        self._agreement, self._queue = agreement, queue

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Waits in the controller until every node answers that is said to be alive."""
        self._agreement.lose_workers()
        wait_for_nodes(_DEATH_S)
        if self._queue is not None:
            CoordinatorClient(self._queue).call("mark_group_lost")
