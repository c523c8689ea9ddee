"""The agreement of Ray Train workers on the step at which they save and stop.

The module imports no torch: the controller of Ray Train imports it.
"""

from typing import Any

from dream_ray.distributed.prefetch.coordinator_client import CoordinatorClient


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

    def start(self) -> None:
        """See `Agreement`."""
        self._call("start")

    def is_asked(self) -> bool:
        """See `Agreement`."""
        return bool(self._call("is_asked"))

    def agree(self, worker: int, num_workers: int, step: int) -> int | None:
        """See `Agreement`."""
        agreed: int | None = self._call("agree", worker, num_workers, step)
        return agreed

    def break_off(self) -> None:
        """See `Agreement`."""
        self._call("break_off")

    def _call(self, method: str, *arguments: Any) -> Any:
        return self.coordinator.call("agreement", method, *arguments)
