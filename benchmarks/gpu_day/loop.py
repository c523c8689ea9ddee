"""The loop of a worker on random images, each of its parts as a function that can be repeated."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from benchmarks.scaling import random_store
from dream_ray.config import Config
from dream_ray.core.placement import class_groups
from dream_ray.data.store.images import ImageChunks
from dream_ray.data.store.store import Store
from dream_ray.engine.matching.from_config import class_matcher, network_source
from dream_ray.engine.matching.state import RunState
from dream_ray.engine.networks.program_form import ProgramForm
from dream_ray.engine.run.class_costs import num_selections
from dream_ray.engine.run.normalisation import channel_normalisation

FIRST, LATER, STEPS, UPDATE = "first selection", "later selection", "class steps", "update"


class StoreInMemory(Store):
    """A store of images that are given.

    Args:
        real: Training images of the first classes, as many of each, uint8 (N, C, H, W).
        num_classes: Number of classes; the others have the images of the first one.
    """

    def __init__(self, real: Sequence[np.ndarray], num_classes: int) -> None:
        super().__init__("", random_store(num_classes, len(real[0]), real[0].shape[-1]).manifest)
        self._real = [*real, *[real[0]] * (num_classes - len(real))]

    def images(self, label: int, splits: Sequence[str]) -> ImageChunks:
        """See `Store.images`."""
        return ImageChunks([self._real[label]])


class Loop:
    """The parts of a loop, for the first classes of a store.

    Args:
        config: Settings; the source trains its networks on real images.
        store: Real images.
        num_classes: Classes of the loop.
        device: Device.
        form: How its programs are executed.

    Attributes:
        parts: The functions by name. The class steps need an earlier selection.
    """

    def __init__(self, config: Config, store: Store, num_classes: int, device: torch.device, form: ProgramForm) -> None:
        normalise = channel_normalisation(config, store, device)
        self._config = config
        self._matcher = class_matcher(config, store, range(num_classes), normalise, form=form)
        self._trajectory = network_source(config, store, normalise, form=form).trajectory(0)
        self._snapshot = next(self._trajectory)
        self._state = RunState(classes=self._matcher.initial_states(self._snapshot))
        self.parts: dict[str, Callable[[], None]] = {
            FIRST: self._first_selection,
            LATER: self._later_selection,
            STEPS: self._class_steps,
            UPDATE: self._update,
        }

    def calls_per_step(self) -> dict[str, float]:
        """Returns the calls of each part in an inner step, on average over an outer step without its warm-up."""
        inner_steps, selections = self._config.inner_steps, num_selections(self._config)
        calls = {FIRST: 1, LATER: selections - 1, STEPS: inner_steps, UPDATE: inner_steps - 1}
        return {part: count / inner_steps for part, count in calls.items()}

    def _first_selection(self) -> None:
        self._select(inner=0)

    def _later_selection(self) -> None:
        self._select(inner=self._config.selection.interval)

    def _select(self, inner: int) -> None:
        previous = {label: one.assignment for label, one in self._state.classes.items()}
        for label, chosen in self._matcher.selector.select_all(replace(self._snapshot, inner=inner), previous).items():
            one = self._state.classes[label]
            one.indices, one.assignment = chosen.indices, chosen.assignment_N

    def _class_steps(self) -> None:
        for labels in class_groups(self._state.classes, self._matcher.class_batch):
            self._matcher.match(self._snapshot, labels, self._state)

    def _update(self) -> None:
        self._snapshot = next(self._trajectory)
