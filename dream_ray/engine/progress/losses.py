"""The losses of the steps of a worker, from the device to the report."""

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


class _Sent(NamedTuple):
    """Losses on their way to the host.

    Attributes:
        step: Step that they are the report of; None: they are only checked.
        owners: Step and label of each.
        values: The losses, readable once `arrival` is reached.
        arrival: The end of the copy; None without losses.
    """

    step: int | None
    owners: list[tuple[int, int]]
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
        self._pending: list[tuple[int, int, Tensor]] = []
        self._sent: deque[_Sent] = deque()

    def add(self, step: int, losses: dict[int, Tensor]) -> None:
        """Takes the losses of some classes at a step, scalars by label."""
        self._pending += [(step, label, loss) for label, loss in losses.items()]

    def send(self, step: int | None) -> None:
        """Begins to copy the losses since the last call, as the report of a step; see `_Sent`."""
        owners, values, arrival = [(at, label) for at, label, _ in self._pending], torch.empty(0), None
        if owners:
            on_device = torch.stack([loss for _, _, loss in self._pending])
            values, arrival = to_host(on_device), MARKS[on_device.device.type]()
        self._sent.append(_Sent(step, owners, values, arrival))
        self._pending.clear()

    def report_arrived(self) -> None:
        """Reports the losses that have arrived, without a wait; raises RunError at the first that is not finite."""
        while self._sent and (self._sent[0].arrival is None or self._sent[0].arrival.is_reached()):
            sent, last = self._sent.popleft(), {}
            for (step, label), value in zip(sent.owners, sent.values.tolist(), strict=True):
                self._check(step, label, value)
                last[label] = value
            if sent.step is not None:
                self._report(sent.step, last)

    def _check(self, step: int, label: int, value: float) -> None:
        if abs(value) < float("inf"):
            return
        outer, inner = divmod(step, self._config.inner_steps)
        whose = "all classes" if label == ALL_CLASSES else f"class {label}"
        raise RunError(
            f"loss must be finite; got {value} for {whose} at step {step} (outer step {outer}, inner step {inner}). "
            f"{self._advice()}"
        )

    def check_state(self, state: RunState) -> None:
        """Waits for the device, reports all losses, and checks the images after the last step, whose loss precedes it.

        Raises:
            RunError: If a loss or an image is not finite.
        """
        self.send(None)
        are_finite = [torch.isfinite(class_state.images_NCHW).all() for class_state in state.classes.values()]
        # This copy ends after those of the losses.
        are_finite_on_host = torch.stack(are_finite).tolist()
        self.report_arrived()
        for label, is_finite in zip(state.classes, are_finite_on_host, strict=True):
            if not is_finite:
                raise RunError(f"images must be finite; those of class {label} are not. {self._advice()}")

    def _advice(self) -> str:
        pixels, update = self._config.pixels.lr, self._config.update.lr
        return f"The last good checkpoint is kept; lower pixels.lr ({pixels}) or update.lr ({update})"
