"""DREAM+ for the classes of one process: read this file first.

It follows the paper's algorithm box (DREAM+, arXiv 2310.15052, algorithm 1), top to bottom. If the network source never
sees the synthetic images, classes are independent: any number of processes may run this function, each on its own
classes, without communication. Networks trained on the synthetic images (DC, DSA) and students (MTT) need tensors from
all processes at every step (`core/process_group.py`); the source or the matcher exchanges them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol, TypeVar

from torch import Tensor

from dream_ray.config import Config
from dream_ray.core.images.pixel_space import PixelSpace
from dream_ray.core.placement import Labels, class_groups
from dream_ray.core.selection.strategies import Selection
from dream_ray.engine.matching.class_selector import Assignments
from dream_ray.engine.matching.state import ClassState, RunState
from dream_ray.engine.networks.sources import NetworkState, Source
from dream_ray.engine.progress.losses import Losses


class StepInput(Protocol):
    """The input of an inner step: a network (`Snapshot`) or trajectory segments (`Segments`)."""

    @property
    def inner(self) -> int:
        """Number of the inner step within its outer step, from 0."""

    def restart_state(self) -> NetworkState | None:
        """Returns the state from which the source can resume; None if it needs none, or restarts the outer step."""


AnyInput = TypeVar("AnyInput", bound=StepInput)
GivenInput = TypeVar("GivenInput", bound=StepInput, contravariant=True)


class Matcher(Protocol[GivenInput]):
    """Matches classes and moves their synthetic images; see `ClassMatcher` and `TrajectoryMatcher`."""

    @property
    def space(self) -> PixelSpace:
        """Space of the synthetic images."""

    @property
    def class_batch(self) -> int | None:
        """Number of classes that `match` takes at a time; None: all."""

    def initial_states(self, step_input: GivenInput) -> dict[int, ClassState]:
        """Returns the initial state of every class of this process, by label."""

    def match(self, step_input: GivenInput, labels: Labels, state: RunState) -> dict[int, Tensor]:
        """Moves the synthetic images of a group of classes by one step; changes `state`.

        Returns:
            Scalar losses before the move, by label or under `ALL_CLASSES`; empty if another worker reports the loss.
        """


class Events(Protocol):
    """Receives the events of a run; an exception from a method ends the run."""

    def is_checkpoint_due(self, step: int) -> bool:
        """Returns whether to write a checkpoint before a step."""

    def on_checkpoint(self, state: RunState) -> None:
        """Writes a checkpoint."""

    def on_step(self, step: int, losses: dict[int, float]) -> None:
        """Records every `log_every`-th step; on a GPU, later steps may have begun.

        Args:
            step: Number of the finished step, outer * inner_steps + inner.
            losses: Loss of every class of this process, by label, or one loss under `ALL_CLASSES`.
        """

    def on_interrupt(self, state: RunState) -> None:
        """Saves the state before the step that Ctrl-C interrupts, without its network."""


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
        state: Start state, changed in place. A new `RunState` starts from the initialisation.
        source: Yields the step inputs.
        select: Selects the real images of every class: `ClassSelector.select_all`, or a prefetched selection.
        matcher: Matches the classes and moves their images.
        events: Writes checkpoints and records steps.

    Returns:
        The final state, its images clamped as `pixels.space` requires.

    Raises:
        RunError: If features, a loss, an image or a network is not finite; the last checkpoint is older than the fault.
    """
    losses = Losses(config, events.on_step)

    with _saving_at_ctrl_c(losses.check_state, events.on_interrupt) as kept:
        for outer in range(state.outer, config.outer_steps):
            for step_input in source.trajectory(outer, state.inner, state.network):
                state.outer, state.inner, state.network = outer, step_input.inner, None
                step = config.step_of(outer, step_input.inner)
                if not state.classes:
                    state.classes = matcher.initial_states(step_input)
                if step_input.inner == 0:
                    losses.add_images(step, state)
                    _clamp(state, matcher.space)
                if events.is_checkpoint_due(step):
                    state.network = step_input.restart_state()
                    losses.check_state(state)
                    events.on_checkpoint(state)
                kept[:] = [replace(state.copy(), network=None)]  # the source may train the network in place

                if config.selects_at(step_input.inner):
                    previous = {label: class_state.assignment for label, class_state in state.classes.items()}
                    for label, chosen in select(step_input, previous).items():
                        state.classes[label].indices = chosen.indices
                        state.classes[label].assignment = chosen.assignment_N
                        state.classes[label].weights = chosen.weights
                for labels in class_groups(state.classes, matcher.class_batch):
                    losses.add(step, matcher.match(step_input, labels, state))
                kept[:] = _state_after(config, state, step) or kept

                if (step + 1) % config.log_every == 0:
                    losses.send(step)
                losses.report_arrived()
            state.outer, state.inner, state.network = outer + 1, 0, None
    losses.check_state(state)
    _clamp(state, matcher.space)
    events.on_checkpoint(state)
    return state


@contextmanager
def _saving_at_ctrl_c(*actions: Callable[[RunState], None]) -> Iterator[list[RunState]]:
    """Yields a list; Ctrl-C applies the actions to the states in it."""
    kept: list[RunState] = []
    try:
        yield kept
    except KeyboardInterrupt:
        for state in kept:
            for act in actions:
                act(state)
        raise


def _state_after(config: Config, state: RunState, step: int) -> list[RunState]:
    """Returns the state after a step, without its network; nothing after the last step, which has yet to clamp."""
    outer, inner = divmod(step + 1, config.inner_steps)
    return [replace(state.copy(), outer=outer, inner=inner, network=None)] if step + 1 < config.total_steps else []


def _clamp(state: RunState, space: PixelSpace) -> None:
    for class_state in state.classes.values():
        class_state.images_NCHW = space.clamp(class_state.images_NCHW)
