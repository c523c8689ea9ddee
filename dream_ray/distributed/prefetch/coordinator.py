"""The state that the processes of a run share. The module imports no torch, so its actor starts quickly."""

from typing import Any

from dream_ray.engine.prefetch.snapshot_queue import SnapshotQueue
from dream_ray.engine.stopping import LocalAgreement


class Coordinator(SnapshotQueue[Any]):
    """The snapshot queue of a run and the agreement of its workers, in one process."""

    def __init__(self, **sizes: int) -> None:
        super().__init__(**sizes)
        self._agreement = LocalAgreement()

    def agreement(self, method: str, *arguments: Any) -> Any:
        """Calls a method of `LocalAgreement`."""
        return getattr(self._agreement, method)(*arguments)
