"""Ctrl-C for workers of Ray Train: they save at a step on which they agree, then the run ends."""

import signal
from collections.abc import Callable
from typing import Any

from ray.train.torch import TorchTrainer

from dream_ray.distributed.prefetch.snapshot_queue import CoordinatorClient
from dream_ray.engine.stopping import ask_at_ctrl_c


class RayAgreement:
    """The `LocalAgreement` in the coordinator of a run. If the coordinator dies, its replacement starts a new one.

    Args:
        coordinator: Its name.

    Attributes:
        is_asked_here: Whether this process has asked the workers to stop, and they write a checkpoint.
    """

    def __init__(self, coordinator: str) -> None:
        self._coordinator = CoordinatorClient(coordinator)
        self.is_asked_here = False

    def ask(self) -> bool:
        """See `LocalAgreement`."""
        self.is_asked_here = bool(self._call("ask"))
        return self.is_asked_here

    def begin(self, incarnation: int) -> bool:
        """See `Agreement`."""
        return bool(self._call("begin", incarnation))

    def lose_workers(self) -> None:
        """See `LocalAgreement`."""
        self._call("lose_workers")

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
        return self._coordinator.call("agreement", method, *arguments)


class StoppableTrainer(TorchTrainer):
    """A trainer that lets its workers save at the first Ctrl-C; at the second it ends them, as Ray Train does.

    Args:
        ask: See `LocalAgreement.ask`.
        arguments, keywords: Of a `TorchTrainer`.
    """

    def __init__(self, ask: Callable[[], bool], *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._ask_to_stop = ask

    def _register_sigint_handler(self, controller: Any) -> None:
        # Ray Train offers no other place: it sets its handler here, when all has been started.
        before = signal.getsignal(signal.SIGINT)
        super()._register_sigint_handler(controller)  # type: ignore[misc]
        if before == signal.SIG_IGN:  # as in the background of a script
            signal.signal(signal.SIGINT, before)
        ask_at_ctrl_c(self._ask_to_stop)
