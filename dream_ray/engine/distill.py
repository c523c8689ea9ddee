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
from dream_ray.core.pixel_space import PixelSpace
from dream_ray.core.placement import Labels, class_groups
from dream_ray.core.selection import Selection
from dream_ray.engine.matching import Assignments
from dream_ray.engine.network_source import NetworkState
from dream_ray.engine.state import ALL_CLASSES, ClassState, RunState
from dream_ray.errors import RunError


class Moment(Protocol):
    """What a source yields for a step: a network (`Snapshot`), or parts of the ways of experts (`Segments`)."""

    @property
    def outer(self) -> int:
        """Number of the outer step, from 0."""

    @property
    def inner(self) -> int:
        """Number of the inner step within it, from 0."""

    def restart_state(self) -> NetworkState | None:
        """Returns what a source goes on from; None where it starts the outer step again, or needs nothing."""


AnyMoment = TypeVar("AnyMoment", bound=Moment)
GivenMoment = TypeVar("GivenMoment", bound=Moment, contravariant=True)
YieldedMoment = TypeVar("YieldedMoment", bound=Moment, covariant=True)


class Source(Protocol[YieldedMoment]):
    """Yields what is matched at, step by step; see `NetworkSource`."""

    def trajectory(self, outer: int, start: int = 0, state: NetworkState | None = None) -> Iterator[YieldedMoment]:
        """Yields the moments of an outer step from inner step `start` on."""
        ...


class Matcher(Protocol[GivenMoment]):
    """What is done at a moment; see `ClassMatcher` and `TrajectoryMatcher`."""

    @property
    def space(self) -> PixelSpace:
        """Where the synthetic images live."""

    @property
    def class_batch(self) -> int | None:
        """Classes that `match` takes at a time; None: all."""

    def match(self, moment: GivenMoment, labels: Labels, state: RunState) -> dict[int, Tensor]:
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


def distill(
    config: Config,
    matcher: Matcher[AnyMoment],
    source: Source[AnyMoment],
    state: RunState,
    *,
    initialise: Callable[[AnyMoment], dict[int, ClassState]],
    select: Callable[[AnyMoment, Assignments], dict[int, Selection]],
    saves_before: Callable[[int], bool],
    save: Callable[[RunState], None],
    report: Callable[[StepReport], None],
    interrupted: Callable[[RunState], None] = lambda state: None,
) -> RunState:
    """Distils the classes of `matcher` from `state` to the end of the run.

    Args:
        config: Settings.
        matcher: The work of a step.
        source: What it is done at.
        state: Where to start; changed in place. A new `RunState` starts from the initialisation.
        initialise: Makes the first state of every class.
        select: Chooses the real images of every class: `ClassMatcher.select_all`, or what has done so ahead of time.
        saves_before: Asked before every step whether to save.
        save: Called with the state where `saves_before` said so, and at the end; what it raises ends the run.
        report: Called with every `log_every`-th step.
        interrupted: Called at Ctrl-C, with the state before the step that is broken off and without its network.

    Returns:
        The final state, its images clamped to what `pixels.space` allows.

    Raises:
        RunError: If a loss is not finite; the last checkpoint is from before.
    """
    losses = _Losses(config)
    with _Interruptible(losses.check_state, interrupted) as whole:
        for outer in range(state.outer, config.outer_steps):
            for moment in source.trajectory(outer, state.inner, state.network):
                state.outer, state.inner, state.network = outer, moment.inner, None
                step = config.step_of(outer, moment.inner)
                if not state.classes:
                    state.classes = initialise(moment)
                if moment.inner == 0:
                    _clamp(state, matcher.space)
                if saves_before(step):
                    losses.check_state(state)
                    state.network = moment.restart_state()
                    save(state)
                whole.keep(state)

                if config.selects_at(moment.inner):
                    previous = {label: class_state.assignment for label, class_state in state.classes.items()}
                    for label, chosen in select(moment, previous).items():
                        state.classes[label].indices = chosen.indices
                        state.classes[label].assignment = chosen.assignment_N
                for labels in class_groups(state.classes, matcher.class_batch):
                    losses.add(step, matcher.match(moment, labels, state))

                if (step + 1) % config.log_every == 0:
                    report(StepReport(step, outer, moment.inner, losses.check()))
            state.outer, state.inner, state.network = outer + 1, 0, None
    losses.check_state(state)
    _clamp(state, matcher.space)
    save(state)
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
