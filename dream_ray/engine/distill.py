"""DREAM+ for the classes of one process: read this file first.

It is the paper's algorithm box (DREAM+, arXiv 2310.15052, algorithm 1), top to bottom. The networks come from a
source that never sees the synthetic images, so classes do not depend on each other and any number of processes may
run this, each on its own classes, without talking to the others. Where there are more processes than classes, a team
shares a class and runs this in step (`core/team.py`): all of it selects and matches, its first member moves the images.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dream_ray.config import Config
from dream_ray.engine.matching import ClassMatcher, Select
from dream_ray.engine.network_source import NetworkSource
from dream_ray.engine.state import RunState
from dream_ray.errors import RunError


@dataclass(frozen=True)
class StepReport:
    """Losses of one finished step.

    Attributes:
        step: outer * inner_steps + inner.
        outer: t.
        inner: j.
        losses: Loss of every class whose images this process moves, by label.
    """

    step: int
    outer: int
    inner: int
    losses: dict[int, float]


def distill(
    config: Config,
    matcher: ClassMatcher,
    source: NetworkSource,
    state: RunState,
    *,
    select: Select,
    save: Callable[[RunState], None],
    report: Callable[[StepReport], None],
) -> RunState:
    """Distils the classes of `matcher` from `state` to the end of the run.

    Args:
        config: Settings.
        matcher: The work on each class; its `real` names the classes.
        source: The networks.
        state: Where to start; changed in place. A new `RunState` starts from the initialisation.
        select: Chooses real images: `matcher.select_all`, or what has done so ahead of time.
        save: Called with the state every `checkpoint_every` steps and at the end.
        report: Called with every `log_every`-th step.

    Returns:
        The final state, its images clamped to [0, 1].

    Raises:
        RunError: If a loss is not finite; the last checkpoint is from before.
    """
    resumed_at = config.step_of(state.outer, state.inner) if state.classes else -1
    losses = _Losses(config)
    for outer in range(state.outer, config.outer_steps):
        for snapshot in source.trajectory(outer, state.inner, state.network):
            state.outer, state.inner, state.network = outer, snapshot.inner, None
            step = config.step_of(outer, snapshot.inner)
            if not state.classes:
                state.classes = {label: matcher.initial_state(snapshot, label) for label in matcher.real}
            if snapshot.inner == 0:
                _clamp(state)
            if config.saves_at(step) and step != resumed_at:
                losses.check()
                state.network = snapshot.state()
                save(state)

            if config.selects_at(snapshot.inner):
                previous = {label: class_state.assignment for label, class_state in state.classes.items()}
                for label, chosen in select(snapshot, previous).items():
                    state.classes[label].indices = chosen.indices
                    state.classes[label].assignment = chosen.assignment_N
            for label, class_state in state.classes.items():
                losses.add(step, label, matcher.match(snapshot, label, class_state))

            if (step + 1) % config.log_every == 0:
                report(StepReport(step, outer, snapshot.inner, losses.check()))
        state.outer, state.inner, state.network = outer + 1, 0, None
    losses.check()
    _clamp(state)
    save(state)
    return state


def _clamp(state: RunState) -> None:
    for class_state in state.classes.values():
        class_state.images_NCHW = class_state.images_NCHW.clamp(0, 1)


class _Losses:
    """Losses that are still on the device; reading them waits for it, so that happens only when one is due."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._pending: list[tuple[int, int, Tensor]] = []

    def add(self, step: int, label: int, loss: Tensor | None) -> None:
        if loss is not None:
            self._pending.append((step, label, loss))

    def check(self) -> dict[int, float]:
        """Returns the last loss of every class; raises RunError at the first that is not finite."""
        if not self._pending:
            return {}
        values = torch.stack([loss for _, _, loss in self._pending]).tolist()
        last = {}
        for (step, label, _), value in zip(self._pending, values, strict=True):
            if not abs(value) < float("inf"):
                outer, inner = divmod(step, self._config.inner_steps)
                raise RunError(
                    f"loss must be finite; got {value} for class {label} at step {step} (outer step {outer}, inner "
                    f"step {inner}). The last good checkpoint is kept; lower pixels.lr ({self._config.pixels.lr}) or "
                    f"update.lr ({self._config.update.lr})"
                )
            last[label] = value
        self._pending.clear()
        return last
