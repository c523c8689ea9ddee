"""DREAM+ for the classes of one process: read this file first.

It is the paper's algorithm box (DREAM+, arXiv 2310.15052, algorithm 1), top to bottom. Where the networks come from a
source that never sees the synthetic images, classes do not depend on each other: any number of processes may run this,
each on its own classes, without talking to the others. With networks that are trained on the synthetic images (DC,
DSA), or students (MTT), processes exchange tensors at every step (`core/process_group.py`), inside of the source or the
matcher.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from dream_ray.config import Config
from dream_ray.core.images.pixel_space import PixelSpace
from dream_ray.core.placement import Labels, class_groups
from dream_ray.core.selection.strategies import Selection
from dream_ray.engine.matching.class_matcher import Assignments
from dream_ray.engine.matching.state import ALL_CLASSES, ClassState, RunState
from dream_ray.engine.networks.sources import NetworkState
from dream_ray.errors import RunError


class StepInput(Protocol):
    """What a source yields for an inner step: a network (`Snapshot`), or trajectory segments (`Segments`)."""

    @property
    def outer(self) -> int:
        """Number of the outer step, from 0."""

    @property
    def inner(self) -> int:
        """Number of the inner step within it, from 0."""

    def restart_state(self) -> NetworkState | None:
        """Returns what a source goes on from; None if it starts the outer step again, or needs nothing."""


AnyInput = TypeVar("AnyInput", bound=StepInput)
GivenInput = TypeVar("GivenInput", bound=StepInput, contravariant=True)
YieldedInput = TypeVar("YieldedInput", bound=StepInput, covariant=True)


class Source(Protocol[YieldedInput]):
    """Yields step inputs; see `NetworkSource`."""

    def trajectory(self, outer: int, start: int = 0, state: NetworkState | None = None) -> Iterator[YieldedInput]:
        """Yields the step inputs of an outer step from inner step `start` on."""
        ...


class Matcher(Protocol[GivenInput]):
    """The work of a step; see `ClassMatcher` and `TrajectoryMatcher`."""

    @property
    def space(self) -> PixelSpace:
        """Where the synthetic images live."""

    @property
    def class_batch(self) -> int | None:
        """Classes that `match` takes at a time; None: all."""

    def initial_states(self, step_input: GivenInput) -> dict[int, ClassState]:
        """Makes the first state of every class of this process, by label."""

    def match(self, step_input: GivenInput, labels: Labels, state: RunState) -> dict[int, Tensor]:
        """Moves the synthetic images of a group of classes by a step; changes `state`.

        Returns:
            Losses before the move, scalars, by label or as that of `ALL_CLASSES`; none if another worker reports it.
        """


@dataclass(frozen=True)
class StepReport:
    """Losses of one finished step.

    Attributes:
        step: outer * inner_steps + inner.
        outer: t.
        inner: j.
        losses: Loss of every class whose images this process moves, by label, or one of `ALL_CLASSES`.
    """

    step: int
    outer: int
    inner: int
    losses: dict[int, float]


class Events(Protocol):
    """What happens beside the steps; an exception of a method ends the run."""

    def is_checkpoint_due(self, step: int) -> bool:
        """Tells whether to write a checkpoint before a step."""

    def on_checkpoint(self, state: RunState) -> None:
        """Writes a checkpoint."""

    def on_step(self, report: StepReport) -> None:
        """Takes note of every `log_every`-th step."""

    def on_interrupt(self, state: RunState) -> None:
        """Saves what Ctrl-C leaves: the state before the step that is broken off, without its network."""


def distill(
    config: Config,
    state: RunState,
    *,
    source: Source[AnyInput],
    select: Callable[[AnyInput, Assignments], dict[int, Selection]],
    matcher: Matcher[AnyInput],
    events: Events,
) -> RunState:
    """Distils the classes of `matcher` from `state` to the end of the run.

    Args:
        config: Settings.
        state: Where to start; changed in place. A new `RunState` starts from the initialisation.
        source: Yields the step inputs.
        select: Chooses the real images of every class: `ClassMatcher.select_all`, or a prefetched selection.
        matcher: The work of a step.
        events: What happens beside the steps.

    Returns:
        The final state, its images clamped to what `pixels.space` allows.

    Raises:
        RunError: If a loss is not finite; the last checkpoint is from before.
    """
    losses = _Losses(config)
    with _Interruptible(losses.check_state, events.on_interrupt) as whole:
        for outer in range(state.outer, config.outer_steps):
            for step_input in source.trajectory(outer, state.inner, state.network):
                state.outer, state.inner, state.network = outer, step_input.inner, None
                step = config.step_of(outer, step_input.inner)
                if not state.classes:
                    state.classes = matcher.initial_states(step_input)
                if step_input.inner == 0:
                    _clamp(state, matcher.space)
                if events.is_checkpoint_due(step):
                    losses.check_state(state)
                    state.network = step_input.restart_state()
                    events.on_checkpoint(state)
                whole.keep(state)

                if config.selects_at(step_input.inner):
                    previous = {label: class_state.assignment for label, class_state in state.classes.items()}
                    for label, chosen in select(step_input, previous).items():
                        state.classes[label].indices = chosen.indices
                        state.classes[label].assignment = chosen.assignment_N
                for labels in class_groups(state.classes, matcher.class_batch):
                    losses.add(step, matcher.match(step_input, labels, state))

                if (step + 1) % config.log_every == 0:
                    events.on_step(StepReport(step, outer, step_input.inner, losses.check()))
            state.outer, state.inner, state.network = outer + 1, 0, None
    losses.check_state(state)
    _clamp(state, matcher.space)
    events.on_checkpoint(state)
    return state


class _Interruptible:
    """Hands on, at Ctrl-C, the state before the step that is under way, if that passes a check."""

    def __init__(self, check: Callable[[RunState], None], interrupted: Callable[[RunState], None]) -> None:
        self._check, self._interrupted = check, interrupted
        self._state: RunState | None = None

    def keep(self, state: RunState) -> None:
        """Notes a state; not its network, which may be trained on in place."""
        self._state = replace(state.copy(), network=None)

    def __enter__(self) -> "_Interruptible":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is KeyboardInterrupt and self._state is not None:
            self._check(self._state)
            self._interrupted(self._state)


def _clamp(state: RunState, space: PixelSpace) -> None:
    for class_state in state.classes.values():
        class_state.images_NCHW = space.clamp(class_state.images_NCHW)


class _Losses:
    """Losses that are still on the device; reading them waits for it, so that happens only when one is due."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._pending: list[tuple[int, int, Tensor]] = []

    def add(self, step: int, losses: dict[int, Tensor]) -> None:
        self._pending += [(step, label, loss) for label, loss in losses.items()]

    def check(self) -> dict[int, float]:
        """Returns the last loss of every class; raises RunError at the first that is not finite."""
        if not self._pending:
            return {}
        values = torch.stack([loss for _, _, loss in self._pending]).tolist()
        last = {}
        for (step, label, _), value in zip(self._pending, values, strict=True):
            if not abs(value) < float("inf"):
                outer, inner = divmod(step, self._config.inner_steps)
                whose = "all classes" if label == ALL_CLASSES else f"class {label}"
                raise RunError(
                    f"loss must be finite; got {value} for {whose} at step {step} (outer step {outer}, inner "
                    f"step {inner}). {self._advice()}"
                )
            last[label] = value
        self._pending.clear()
        return last

    def check_state(self, state: RunState) -> None:
        """Checks the losses, and the images that the last step has moved: its loss was of before."""
        self.check()
        are_finite = [torch.isfinite(class_state.images_NCHW).all() for class_state in state.classes.values()]
        for label, is_finite in zip(state.classes, torch.stack(are_finite).tolist(), strict=True):
            if not is_finite:
                raise RunError(f"images must be finite; those of class {label} are not. {self._advice()}")

    def _advice(self) -> str:
        pixels, update = self._config.pixels.lr, self._config.update.lr
        return f"The last good checkpoint is kept; lower pixels.lr ({pixels}) or update.lr ({update})"
