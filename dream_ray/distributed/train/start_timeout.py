"""Ends a Ray Train run whose workers find no free resources, so that the driver waits for these and says so.

Ray Train itself tries for ever, without a word: a group of fixed size asks again after each
RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S, an elastic one looks once a second whether its smallest size fits.
"""

from time import monotonic
from typing import Any

import ray.train
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.controller.state import (
    InitializingState,
    ReschedulingState,
    RestartingState,
    SchedulingState,
)

# Enough for the resources of workers that have died, and for a node that is not known to be dead yet.
_START_S = 60.0
_UNDECIDED = (InitializingState, ReschedulingState, RestartingState)


class NotStartedError(Exception):
    """The workers found no free resources for a minute."""


class StartTimeout(ControllerCallback):
    """Raises NotStartedError in the controller, which ends with it; see `has_not_started`."""

    def __init__(self) -> None:
        self._since: float | None = None

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Measures the time since there are no workers, without that in which they start."""
        if isinstance(current_state, SchedulingState):
            return
        if not isinstance(current_state, _UNDECIDED):
            self._since = None
        elif self._since is None:
            self._since = monotonic()
        elif monotonic() - self._since > _START_S:
            raise NotStartedError


def has_not_started(error: ray.train.TrainingFailedError) -> bool:
    """Tells whether a run of Ray Train ended because of a `StartTimeout`."""
    return isinstance(error, ray.train.ControllerError) and isinstance(error.controller_failure, NotStartedError)
