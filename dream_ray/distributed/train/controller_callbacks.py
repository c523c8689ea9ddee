"""Callbacks in the controller of Ray Train: the reactions to dead workers and to workers that find no free resources.

The module imports no torch, like the controller.
"""

from time import monotonic
from typing import Any

from ray.train import UserCallback
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.controller.state import (
    InitializingState,
    ReschedulingState,
    RestartingState,
    SchedulingState,
)

from dream_ray.distributed.cluster.driver_placement import wait_for_nodes
from dream_ray.distributed.prefetch.coordinator_client import CoordinatorClient

# Ray detects a dead node within this time.
_DEATH_S = 60.0
# Long enough to release the resources of dead workers, and to detect a dead node.
_START_S = 60.0
_UNDECIDED = (InitializingState, ReschedulingState, RestartingState)


class AfterDeath(UserCallback):
    """After a failure, waits until Ray has detected the dead nodes before it restarts the workers.

    Ray detects the death of a worker at once and that of a node some seconds later. Workers that it places on a dead
    node never start. Until the workers have started, Ctrl-C finds nothing to save, and producers may release their
    slots.

    Args:
        coordinator: The coordinator of the run.
    """

    def __init__(self, coordinator: CoordinatorClient) -> None:
        self._coordinator = coordinator

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Waits in the controller, see `wait_for_nodes`."""
        self._coordinator.call("agreement", "lose_workers")
        wait_for_nodes(_DEATH_S)
        self._coordinator.call("mark_group_lost")


class NotStartedError(Exception):
    """The workers found no free resources for a minute."""


class StartTimeout(ControllerCallback):
    """Ends a run whose workers find no free resources; the driver then waits for them and logs the wait.

    Ray Train retries forever without a message. A group of fixed size retries after each
    RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S; an elastic group checks once a second whether its smallest size fits.
    """

    def __init__(self) -> None:
        self._since: float | None = None

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Raises NotStartedError after a minute without workers, but not while an attempt to start them runs."""
        if isinstance(current_state, SchedulingState):
            return
        if not isinstance(current_state, _UNDECIDED):
            self._since = None
        elif self._since is None:
            self._since = monotonic()
        elif monotonic() - self._since > _START_S:
            raise NotStartedError
