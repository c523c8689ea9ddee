"""The losses of the steps of a worker, from the device to the report, and the check that all numbers are finite."""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dream_ray.config import Config
from dream_ray.core.transfer import to_host
from dream_ray.engine.matching.state import ALL_CLASSES, RunState
from dream_ray.engine.progress.phase_timer import MARKS, Mark
from dream_ray.errors import RunError

Report = Callable[[int, dict[int, float]], None]
"""Receives a step and its losses by label, see `Events.on_step`."""


class _Owner(NamedTuple):
    """The loss of a class at a step, or the largest absolute pixel of its images before it."""

    what: str
    step: int
    label: int


_LOSS, _IMAGES = "loss", "largest pixel"


class _Sent(NamedTuple):
    """Losses and pixels on their way to the host.

    Attributes:
        step: Step that they are the report of; None: they are only checked.
        owners: The owner of each.
        values: The numbers, readable once `arrival` is reached.
        arrival: The end of the copy; None without numbers.
    """

    step: int | None
    owners: list[_Owner]
    values: Tensor
    arrival: Mark | None


class Losses:
    """Losses on the device. Reading one waits for the device, so they are copied while it goes on.

    Args:
        config: Settings.
        report: Receives the losses of a step once they have arrived, in the order of the steps. On a CPU that is at
            once.
    """

    def __init__(self, config: Config, report: Report) -> None:
        self._config, self._report = config, report
        self._pending: list[tuple[_Owner, Tensor]] = []
        self._sent: deque[_Sent] = deque()

    def add(self, step: int, losses: dict[int, Tensor]) -> None:
        """Takes the losses of some classes at a step, scalars by label."""
        self._pending += [(_Owner(_LOSS, step, label), loss) for label, loss in losses.items()]

    def add_images(self, step: int, state: RunState) -> None:
        """Takes the images before a step for a check; infinite ones would be finite once they are clamped."""
        for label, class_state in state.classes.items():
            largest = torch.linalg.vector_norm(class_state.images_NCHW, torch.inf)
            self._pending.append((_Owner(_IMAGES, step, label), largest))

    def send(self, step: int | None) -> None:
        """Begins to copy the losses since the last call, as the report of a step; see `_Sent`."""
        owners, values, arrival = [owner for owner, _ in self._pending], torch.empty(0), None
        if owners:
            on_device = torch.stack([value for _, value in self._pending])
            values, arrival = to_host(on_device), MARKS[on_device.device.type]()
        self._sent.append(_Sent(step, owners, values, arrival))
        self._pending.clear()

    def report_arrived(self) -> None:
        """Reports the losses that have arrived, without a wait; raises RunError at the first number not finite."""
        while self._sent and (self._sent[0].arrival is None or self._sent[0].arrival.is_reached()):
            sent, last = self._sent.popleft(), {}
            for owner, value in zip(sent.owners, sent.values.tolist(), strict=True):
                self._check(owner, value)
                if owner.what == _LOSS:
                    last[owner.label] = value
            if sent.step is not None:
                self._report(sent.step, last)

    def _check(self, owner: _Owner, value: float) -> None:
        if abs(value) < float("inf"):
            return
        outer, inner = divmod(owner.step, self._config.inner_steps)
        whose = "all classes" if owner.label == ALL_CLASSES else f"class {owner.label}"
        raise RunError(
            f"{owner.what} must be finite; got {value} for {whose} at step {owner.step} (outer step {outer}, "
            f"inner step {inner}). {self._advice()}"
        )

    def check_state(self, state: RunState) -> None:
        """Waits for the device, reports all losses, and checks the tensors of a checkpoint.

        The loss of a step precedes its move, so the images after the last step are checked here. A network with a NaN
        diverged since its last step; infinities may be constants of a user's network, such as a mask.

        Raises:
            RunError: If a number is not finite.
        """
        self.send(None)
        are_finite = {
            f"images of class {label}": class_state.images_NCHW.isfinite().all()
            for label, class_state in state.classes.items()
        }
        are_finite |= {f"learned {name}": value.isfinite().all() for name, value in state.learned.items()}
        are_finite |= {
            f"network tensor {name}": ~tensor.isnan().any()
            for name, tensor in (state.network or {}).items()
            if tensor.is_floating_point()
        }
        # This copy ends after those of the losses.
        are_finite_on_host = torch.stack(list(are_finite.values())).tolist()
        self.report_arrived()
        for what, is_finite in zip(are_finite, are_finite_on_host, strict=True):
            if not is_finite:
                step = self._config.step_of(state.outer, state.inner)
                raise RunError(f"{what} must be finite; got NaN or infinity before step {step}. {self._advice()}")

    def _advice(self) -> str:
        pixels, update = self._config.pixels.lr, self._config.update.lr
        return f"The last good checkpoint is kept; lower pixels.lr ({pixels}) or update.lr ({update})"
