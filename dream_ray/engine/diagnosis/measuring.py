"""Selections of every strategy along the first trajectory of networks, and what they cost.

N images of a class, n selected ones, D features.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import torch
from torch import Tensor

from dream_ray.config import Config
from dream_ray.core.images.normalisation import Normalise
from dream_ray.core.selection.evenness import ClassKernel, distinct_images, overlap
from dream_ray.core.selection.strategies import STRATEGIES, Selection
from dream_ray.core.transfer import to_device
from dream_ray.data.store.store import Store
from dream_ray.engine.diagnosis.gradient_norms import GradientNorms, gradient_norms
from dream_ray.engine.matching.class_matcher import ClassMatcher, class_step
from dream_ray.engine.matching.from_config import class_matcher, network_source
from dream_ray.engine.matching.state import RunState
from dream_ray.engine.networks.sources import Snapshot
from dream_ray.engine.progress.phase_timer import MARKS, PhaseTimer
from dream_ray.errors import RunError

RANDOM = "random"
_START, _UPDATES, _EMBEDDING, _MATCHING = "start", "updates", "embedding", "matching"


@dataclass
class Findings:
    """The selections of a strategy so far.

    Attributes:
        image_norms: Norms of the gradients of all selected images.
        batch_norms: Norms of the mean gradients of all selections.
        chosen: Positions of the selected images, selection by selection, by label.
        overlaps: Fraction of the images that the selection before had too, for all but the first selections.
        squared_mmds: Squared MMD of all selections to their class.
    """

    image_norms: list[float] = field(default_factory=list)
    batch_norms: list[float] = field(default_factory=list)
    chosen: dict[int, list[Tensor]] = field(default_factory=dict)
    overlaps: list[float] = field(default_factory=list)
    squared_mmds: list[float] = field(default_factory=list)

    @property
    def distinct(self) -> list[int]:
        """Number of different images that were selected, of every class."""
        return [distinct_images(selections) for selections in self.chosen.values()]

    def add(self, label: int, selection: Selection, kernel: ClassKernel, norms: tuple[Tensor, Tensor]) -> None:
        """Adds a selection of a class, with the norms of `GradientNorms`; raises RunError if one is not finite."""
        of_images, of_batch = norms[0].tolist(), float(norms[1])
        for image, norm in zip(selection.indices.tolist(), of_images, strict=True):
            if not math.isfinite(norm):
                raise RunError(
                    f"gradients must be finite; the norm of image {image} of class {label} is {norm}. The network "
                    "diverged: lower update.lr"
                )
        self.image_norms.extend(of_images)
        self.batch_norms.append(of_batch)
        earlier = self.chosen.setdefault(label, [])
        self.overlaps.extend(overlap(before, selection.indices) for before in earlier[-1:])
        self.squared_mmds.append(kernel.squared_mmd(selection.indices, selection.weights))
        earlier.append(selection.indices)


@dataclass(frozen=True)
class Diagnosis:
    """Selections of all strategies, and seconds.

    Attributes:
        inner_steps: Inner steps of the selections, in outer step 0.
        labels: The classes.
        findings: By strategy.
        choosing_s: Seconds of a selection of all these classes without the embedding, by strategy.
        embedding_s: Seconds in which all images of these classes are embedded.
        matching_s: Seconds of a matching step of all these classes.
        update_s: Seconds of a network update; None with a single selection.
    """

    inner_steps: Sequence[int]
    labels: Sequence[int]
    findings: dict[str, Findings]
    choosing_s: dict[str, float]
    embedding_s: float
    matching_s: float
    update_s: float | None


class _Chooser:
    """Selects by one strategy, like a run whose settings name it.

    Args:
        strategy: Name of the strategy.
        matcher: Matcher of the classes, with the other settings.
    """

    def __init__(self, strategy: str, matcher: ClassMatcher) -> None:
        selection = matcher.config.selection.model_copy(update={"strategy": strategy})
        config = matcher.config.model_copy(update={"selection": selection})
        self._matcher = replace(matcher, config=config, selector=replace(matcher.selector, config=config))
        self._previous: dict[int, Tensor] = {}

    def choose(self, snapshot: Snapshot, label: int, points_ND: Tensor, state: RunState) -> Selection:
        """Returns the selection of a class from its features."""
        if self._matcher.config.selection.strategy == RANDOM:
            indices = self._matcher.real_indices(snapshot, label, state.classes[label])
            return Selection(torch.from_numpy(indices), points_ND.new_empty(0, dtype=torch.int64))
        (selection,) = self._matcher.selector.choose(snapshot, (label,), points_ND[None], self._previous)
        self._previous[label] = selection.assignment_N
        return selection


class _Bench:
    """Selects, compares and matches class by class.

    Args:
        config: Settings.
        store: The store.
        labels: The classes.
        normalise: Maps images to network inputs.
    """

    def __init__(self, config: Config, store: Store, labels: Sequence[int], normalise: Normalise) -> None:
        # The initial images only have to be there, for the time of a step.
        start = config.initialisation.model_copy(update={"strategy": "noise"})
        self._matcher = class_matcher(config.model_copy(update={"initialisation": start}), store, labels, normalise)
        self._own = config.selection.strategy
        self._objective = class_step(config, store.num_classes).objective
        self._choosers = {name: _Chooser(name, self._matcher) for name in (RANDOM, *STRATEGIES)}
        self.findings = {name: Findings() for name in self._choosers}
        self._state = RunState()
        phases = (_START, _UPDATES, _EMBEDDING, _MATCHING, *self._choosers)
        self.timer = PhaseTimer(phases, MARKS[normalise.device.type])

    def norms_under(self, snapshot: Snapshot) -> GradientNorms:
        """Returns the norms of gradients under a network."""
        return gradient_norms(snapshot.network, self._matcher.selector.normalise, self._objective)

    def compare(self, snapshot: Snapshot, label: int, norms: GradientNorms) -> None:
        """Selects from a class by every strategy, and matches it by that of the settings."""
        selector, timer, states = self._matcher.selector, self.timer, self._state.classes
        if label not in states:
            states[label] = self._matcher.initial_images.state(snapshot, label)
        with timer.phase(_EMBEDDING):
            points_ND = selector.embed(snapshot, label)
        kernel, device = ClassKernel.of(points_ND), points_ND.device
        for name, chooser in self._choosers.items():
            with timer.phase(name):
                selection = chooser.choose(snapshot, label, points_ND, self._state)
            images_NCHW = to_device(selector.real[label].take(selection.indices.numpy()), device)
            found = norms(images_NCHW, torch.tensor(label, device=device), selection.weights)
            self.findings[name].add(label, selection, kernel, found)
            if name == self._own:
                states[label].indices, states[label].weights = selection.indices, selection.weights
        with timer.phase(_MATCHING):
            self._matcher.match(snapshot, (label,), self._state)


def measure(
    config: Config,
    store: Store,
    normalise: Normalise,
    *,
    selections: int,
    num_classes: int,
    progress: Callable[[str, int, int], None],
) -> Diagnosis:
    """Selects by every strategy, at the first selections of outer step 0.

    Args:
        config: Settings.
        store: The store.
        normalise: Maps images to network inputs; everything is computed on its device.
        selections: Number of selections.
        num_classes: Number of classes, from the first one on.
        progress: Called as the work proceeds: (status, selected classes so far, their total number).
    """
    labels, total = range(num_classes), selections * num_classes
    bench, done, inner_steps = _Bench(config, store, labels, normalise), 0, []
    progress("training the first network", done, total)
    networks = _timed(network_source(config, store, normalise).trajectory(0), bench.timer)
    for snapshot in islice(networks, 0, (selections - 1) * config.selection.interval + 1, config.selection.interval):
        inner_steps.append(snapshot.inner)
        norms = bench.norms_under(snapshot)
        for label in labels:
            bench.compare(snapshot, label, norms)
            done += 1
            progress(f"inner step {snapshot.inner}", done, total)
    if normalise.device.type == "cuda":
        torch.cuda.synchronize(normalise.device)
    seconds, updates = bench.timer.read(), inner_steps[-1]
    return Diagnosis(
        inner_steps,
        labels,
        bench.findings,
        {name: seconds[name] / selections for name in bench.findings},
        seconds[_EMBEDDING] / selections,
        seconds[_MATCHING] / selections,
        seconds[_UPDATES] / updates if updates else None,
    )


def _timed(networks: Iterator[Snapshot], timer: PhaseTimer) -> Iterator[Snapshot]:
    """Yields the networks; the first one is the start, and each other one an update."""
    phase = _START
    while True:
        with timer.phase(phase):
            snapshot = next(networks, None)
        if snapshot is None:
            return
        yield snapshot
        phase = _UPDATES
