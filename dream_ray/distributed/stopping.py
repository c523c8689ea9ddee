"""Ctrl-C for workers of Ray Train: they save at a step on which they agree, then the run ends."""

import signal
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError, RayActorError
from ray.train.torch import TorchTrainer

from dream_ray.distributed.place import on_this_node
from dream_ray.engine.stopping import NOWHERE, LocalAgreement, ask_at_ctrl_c

_PAUSE_S = 0.5


class RayAgreement:
    """A `LocalAgreement` in an actor. Should it die, Ctrl-C ends a run as if there were none.

    Args:
        actor: See `start`.

    Attributes:
        is_asked_here: Whether this process has asked the workers to stop, and they save.
    """

    def __init__(self, actor: ActorHandle[LocalAgreement]) -> None:
        self._actor = actor
        self.is_asked_here = False

    @classmethod
    def begun(cls) -> "RayAgreement":
        """Starts the actor, on the node of this process, whose loss ends a run anyway; it lives as long as this."""
        actor: Any = ray.remote(**on_this_node())(LocalAgreement)
        return cls(actor.remote())

    def ask(self) -> bool:
        """See `LocalAgreement`."""
        self.is_asked_here = bool(self._call("ask", False))
        return self.is_asked_here

    def begin(self, group: int) -> bool:
        """See `Agreement`."""
        return bool(self._call("begin", False, group))

    def lose_group(self) -> None:
        """See `LocalAgreement`."""
        self._call("lose_group", None)

    def start(self) -> None:
        """See `Agreement`."""
        self._call("start", None)

    def is_asked(self) -> bool:
        """See `Agreement`."""
        return bool(self._call("is_asked", False))

    def agree(self, worker: int, num_workers: int, step: int) -> int | None:
        """See `Agreement`."""
        agreed: int | None = self._call("agree", NOWHERE, worker, num_workers, step)
        return agreed

    def break_off(self) -> None:
        """See `Agreement`."""
        self._call("break_off", None)

    def _call(self, method: str, otherwise: Any, *arguments: Any) -> Any:
        while True:
            try:
                return ray.get(getattr(self._actor, method).remote(*arguments))
            except ActorUnavailableError:  # for a moment
                time.sleep(_PAUSE_S)
            except RayActorError:
                return otherwise


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
