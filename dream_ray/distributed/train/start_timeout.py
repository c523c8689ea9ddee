"""Ends a Ray Train run whose workers find no free resources; the driver then waits for them and logs the wait.

Ray Train retries forever without a message. A group of fixed size retries after each
RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S; an elastic group checks once a second whether its smallest size fits.
"""

from time import monotonic
from typing import Any

from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.controller.state import (
    InitializingState,
    ReschedulingState,
    RestartingState,
    SchedulingState,
)

# Long enough to release the resources of dead workers, and to detect a dead node.
_START_S = 60.0
_UNDECIDED = (InitializingState, ReschedulingState, RestartingState)


class NotStartedError(Exception):
    """The workers found no free resources for a minute."""


class StartTimeout(ControllerCallback):
    """Raises NotStartedError in the controller, which ends the run."""

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
