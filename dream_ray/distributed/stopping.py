"""Ctrl-C for workers of Ray Train: they save at a step on which they agree, then the run ends."""

from collections.abc import Callable
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.train.torch import TorchTrainer

from dream_ray.distributed.place import on_this_node
from dream_ray.engine.stopping import StopRequest, ask_at_ctrl_c


class RayStopRequest:
    """A `StopRequest` in an actor; without it, should it die, Ctrl-C ends a run as if there were none.

    Args:
        actor: See `start`.

    Attributes:
        is_heard: Whether this process has asked, and the workers save.
    """

    def __init__(self, actor: ActorHandle[StopRequest]) -> None:
        self._actor = actor
        self.is_heard = False

    @classmethod
    def start(cls) -> "RayStopRequest":
        """Starts the actor, on the node of the driver, whose loss ends a run anyway; it ends with the driver."""
        actor: Any = ray.remote(**on_this_node())(StopRequest)
        return cls(actor.remote())

    def ask(self) -> bool:
        """See `StopRequest`."""
        self.is_heard = bool(self._call("ask", False))
        return self.is_heard

    def begin(self) -> bool:
        """See `StopRequest`."""
        return bool(self._call("begin", False))

    def is_asked(self) -> bool:
        """See `StopRequest`."""
        return bool(self._call("is_asked", False))

    def agree(self, group: int, num_groups: int, step: int) -> int | None:
        """See `StopRequest`."""
        agreed: int | None = self._call("agree", step, group, num_groups, step)
        return agreed

    def break_off(self) -> None:
        """See `StopRequest`."""
        self._call("break_off", None)

    def _call(self, method: str, otherwise: Any, *arguments: Any) -> Any:
        try:
            return ray.get(getattr(self._actor, method).remote(*arguments))
        except RayActorError:
            return otherwise


class StoppableTrainer(TorchTrainer):
    """A trainer that lets its workers save at the first Ctrl-C; at the second it ends them, as Ray Train does.

    Args:
        ask: See `StopRequest.ask`.
        arguments, keywords: Of a `TorchTrainer`.
    """

    def __init__(self, ask: Callable[[], bool], *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._ask_to_stop = ask

    def _register_sigint_handler(self, controller: Any) -> None:
        # Ray Train offers no other place: it sets its handler here, when all has been started.
        super()._register_sigint_handler(controller)  # type: ignore[misc]
        ask_at_ctrl_c(self._ask_to_stop)
