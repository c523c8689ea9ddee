"""The parts of the loop of a worker, each of which is counted."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any
from unittest.mock import Mock

from dream_ray.config import Config
from dream_ray.core.placement import Labels
from dream_ray.engine.components import Components
from dream_ray.engine.distill import distill
from dream_ray.engine.matching.state import RunState
from tests.standin_gpu.tally import Tally, recording, summed

START = "start of an outer step"
UPDATE, CLASS_STEP = "update", "class step"
FIRST_SELECTION, LATER_SELECTION = "first selection", "later selection"
REST = "rest of the loop"


def count_outer_step(config: Config, components: Components, state: RunState) -> dict[str, list[Tally]]:
    """Runs the first outer step; returns the counts of every call, by part. All counts outside of calls are in REST."""
    parts = Parts(components)
    source, select, matcher = parts.components
    events = Mock(**{"is_checkpoint_due.return_value": False})
    with recording() as whole:
        distill(config, state, source=source, select=select, matcher=matcher, events=events)
    in_parts = summed(chain.from_iterable(parts.tallies.values()))
    whole.operations.subtract(in_parts.operations)
    whole.waits.subtract(in_parts.waits)
    return {**parts.tallies, REST: [Tally(+whole.operations, +whole.waits)]}


class Parts:
    """Source, selection and matcher of a worker, for `distill`; counts what their calls do in the calling thread.

    Args:
        components: What is counted.

    Attributes:
        tallies: Counts of every call, by part. The first input and the initial images belong to START.
    """

    def __init__(self, components: Components) -> None:
        self._source, self._select, self._matcher = components
        self.space, self.class_batch = self._matcher.space, self._matcher.class_batch
        self.tallies: dict[str, list[Tally]] = {}

    @property
    def components(self) -> Components:
        return self, self.select, self

    def trajectory(self, *position: Any) -> Iterator[Any]:
        inputs, part = self._source.trajectory(*position), START
        while (step_input := self._counted(part, next, inputs, None)) is not None:
            yield step_input
            part = UPDATE
        self.tallies[part].pop()  # the call that finds the end

    def initial_states(self, step_input: Any) -> Any:
        return self._counted(START, self._matcher.initial_states, step_input)

    def select(self, step_input: Any, previous: Any) -> Any:
        part = LATER_SELECTION if step_input.inner else FIRST_SELECTION
        return self._counted(part, self._select, step_input, previous)

    def match(self, step_input: Any, labels: Labels, state: RunState) -> Any:
        return self._counted(CLASS_STEP, self._matcher.match, step_input, labels, state)

    def _counted(self, part: str, call: Callable[..., Any], *arguments: Any) -> Any:
        with recording(only_this_thread=True) as tally:
            result = call(*arguments)
        self.tallies.setdefault(part, []).append(tally)
        return result
