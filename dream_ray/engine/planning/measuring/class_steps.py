"""The steps of matching class by class."""

import copy
import math
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dream_ray.config import Config
from dream_ray.core import rng
from dream_ray.core.images.normalisation import Normalise
from dream_ray.core.selection import strategies
from dream_ray.data.store.images import ImageChunks
from dream_ray.data.store.store import Store
from dream_ray.engine.matching.class_matcher import ClassMatcher
from dream_ray.engine.matching.class_selector import ClassSelector, rules_of
from dream_ray.engine.matching.state import RunState
from dream_ray.engine.models.pool import load_pool
from dream_ray.engine.networks.from_config import build, first_passes, networks_on
from dream_ray.engine.networks.program_form import ProgramForm
from dream_ray.engine.networks.sources import Snapshot
from dream_ray.engine.networks.training import RealImages
from dream_ray.engine.planning.forecast import StepCosts
from dream_ray.engine.planning.measuring.round_timer import MOST_ROUNDS, RoundTimer
from dream_ray.engine.run.class_costs import class_counts, num_selections, training_count

# Rounds in which threads compute at the same time; each round allocates memory in another order.
_TOGETHER = 3
# k-means is timed on at most this many images; its time is proportional to their number.
_MOST_POINTS = 5000


class ClassSteps:
    """Every kind of step, on one class of random images; the construction only trains networks.

    Attributes:
        more_bytes: Memory of a run beyond that of the measured steps.
        num_features: Features of an image, the most under any network.
        kept_features: Features of an image under all frozen networks together, which are kept; 0 without frozen ones.
        snapshot_bytes: Size of a network snapshot.
    """

    more_bytes = 0

    def __init__(
        self, config: Config, store: Store, normalise: Normalise, timer: RoundTimer, form: ProgramForm
    ) -> None:
        start: dict[str, Any] = {"warmup_epochs": 0}
        if config.initialisation.strategy == "set":
            start["strategy"] = "noise"  # as many images, without reading the set
        elif config.initialisation.used_models:
            start["strategy"] = "random"  # as many images, without reading the models
        short = config.model_copy(
            update={
                "inner_steps": 1 + max(MOST_ROUNDS, len(config.source.models)) + _TOGETHER,
                "update": config.update.model_copy(
                    update={"num_images": config.update.batch_size, "epochs": 1, "warmup_epochs": 0}
                ),
                "initialisation": config.initialisation.model_copy(update=start),
            }
        )
        self._config, self._store, self._timer = config, store, timer
        images = random_images(config, store)
        # As many classes as a program takes, with the same images.
        self._labels = tuple(range(form.class_batch))
        selector = ClassSelector(short, dict.fromkeys(self._labels, images), len(images), normalise, form)
        self._selector, self._matcher = selector, ClassMatcher(short, selector, store.num_classes)
        self._matched = self._labels[: self._matcher.class_batch]
        data = RealImages(images, np.zeros(len(images), dtype=np.int64))
        pool = load_pool(short, normalise.device) if config.source.kind == "frozen" else None

        def trajectory(kind: str) -> Iterator[Snapshot]:
            if pool is not None:
                return pool.trajectory(0)
            of_kind = short.model_copy(update={"source": config.source.model_copy(update={"kind": kind})})
            networks = networks_on(of_kind, lambda _: data, normalise, lambda: build(short, store), form=form)
            return networks.trajectory(0)

        # If networks are drawn at random, only the network of the initialisation is trained.
        self._is_drawn = config.source.kind == "random"
        self._looking = trajectory("real") if self._is_drawn and first_passes(config) else None
        self._trajectory = trajectory(config.source.kind)
        next(self._trajectory)
        self._next_network()
        network = self._snapshot.network
        frozen = [one.head.in_features for one in pool.networks] if pool else []
        self.num_features, self.kept_features = max(frozen, default=network.head.in_features), sum(frozen)
        self.snapshot_bytes = sum(tensor.nbytes for tensor in network.state_dict().values())

    def _next_network(self) -> None:
        with self._timer.phase("draw" if self._is_drawn else "batch"):
            self._snapshot = next(self._trajectory)

    def begin(self) -> None:
        """Makes the states of the classes with their first selection."""
        states = {label: self._matcher.initial_images.state(self._snapshot, label) for label in self._labels}
        self._state = RunState(classes=states)
        if self._config.selects:
            first = replace(self._snapshot, inner=0)  # at inner step 0, k-means starts from scratch
            for label, chosen in zip(self._labels, self._selector.select(first, self._labels, {}), strict=True):
                states[label].indices, states[label].weights = chosen.indices, chosen.weights
        if self._looking is not None:
            next(self._looking)

    def run_round(self, number: int) -> None:
        """Embeds, matches and trains."""
        timer = self._timer
        with timer.phase("embedding"):
            self._features_ND = self._selector.embed(self._snapshot, 0)
        with timer.phase("match"):
            self._matcher.match(self._snapshot, self._matched, self._state)
        self._next_network()
        if self._looking is not None:
            with timer.phase("batch"):
                next(self._looking)

    def costs(self) -> StepCosts:
        """Returns the times of a run, from the times of the rounds."""
        config, timer, counts = self._config, self._timer, class_counts(self._config, self._store)
        select_s = 0.0
        if config.selects:
            num_points = min(sum(counts) // len(counts), _MOST_POINTS)
            choosing_s = _choosing_s(config, self._features_ND, num_points, timer)
            embedding_s = timer.median("embedding") / len(self._features_ND)
            select_s = _share_of_embeddings(config) * embedding_s + choosing_s / num_points
        update_s, warm_up_s, first_warm_up_s = self._network_costs_s(counts)
        return StepCosts(
            update_s=update_s,
            warm_up_s=warm_up_s,
            first_warm_up_s=first_warm_up_s,
            select_s=select_s,
            match_s=timer.median("match") / len(self._matched),
            snapshot_bytes=self.snapshot_bytes,
        )

    def _network_costs_s(self, counts: list[int]) -> tuple[float, float, float]:
        """Returns the seconds of a network update, of a warm-up, and of the first warm-up."""
        config, timer = self._config, self._timer
        if config.source.kind == "frozen":
            return 0.0, 0.0, 0.0
        if self._is_drawn:
            draw_s = timer.median("draw")
            looking_s = 0.0 if self._looking is None else first_passes(config) * pass_s(config, timer, sum(counts))
            return draw_s, draw_s, draw_s + looking_s
        trained_on = len(counts) * training_count(config) if config.source.kind == "synthetic" else sum(counts)
        return (
            config.update.epochs * pass_s(config, timer, trained_on, config.update.num_images),
            config.update.warmup_epochs * pass_s(config, timer, sum(counts)),
            first_passes(config) * pass_s(config, timer, sum(counts)),
        )

    def run_together(self, beside: Collection[str]) -> None:
        """Matches while threads do other work, for the memory of both."""
        now, later = (replace(self._snapshot, network=copy.deepcopy(self._snapshot.network)) for _ in range(2))
        others = {"embedding": lambda: self._selector.embed(later, 0), "batch": lambda: next(self._trajectory)}
        for _ in range(_TOGETHER if beside else 0):
            with ThreadPoolExecutor(len(beside)) as pool:
                running = [pool.submit(others[part]) for part in beside]
                self._matcher.match(now, self._matched, self._state)
                for one in running:
                    one.result()


def _share_of_embeddings(config: Config) -> float:
    """Returns the fraction of the selections that embed the images; features under frozen networks are kept."""
    if config.source.kind != "frozen":
        return 1.0
    return min(1.0, len(config.source.models) / config.outer_steps)


def pass_s(config: Config, timer: RoundTimer, num_images: int, most: int | None = None) -> float:
    """Returns the seconds of a training pass over some images, or over at most `most` of them."""
    count = num_images if most is None else min(most, num_images)
    return timer.median("batch") * math.ceil(count / config.update.batch_size)


def random_images(config: Config, store: Store) -> ImageChunks:
    """Returns as many random images as the largest batch of any step."""
    num_images = max(
        2 * config.selection.embedding_batch,
        config.real_batch,
        config.selection.num_clusters * config.selection.per_cluster,
        config.ipc * config.factor**2,
        config.update.batch_size,
    )
    generator = rng.stream(0, "measured images")
    return ImageChunks([generator.integers(0, 256, (num_images, *store.shape_CHW), dtype=np.uint8)])


def _choosing_s(config: Config, features_ND: Tensor, num_points: int, timer: RoundTimer) -> float:
    """Returns the seconds of a selection from the features of `num_points` images, as a mean over an outer step.

    Random features, spread like the measured ones, have no clusters, so k-means takes its largest number of steps.
    """
    settings = config.selection
    noise = rng.stream(0, "measured features").standard_normal((num_points, features_ND.shape[1]), dtype=np.float32)
    points_ND = torch.from_numpy(noise).to(features_ND.device) * features_ND.std(0) + features_ND.mean(0)
    group = strategies.Group(points_ND[None], [num_points], [rng.stream(0, "measured k-means")])
    choose = strategies.STRATEGIES[settings.strategy]
    for part in ("first", "later"):
        rules = rules_of(settings, is_first=part == "first")
        for _ in range(2):
            with timer.phase(part):
                (chosen,) = choose(group, rules)
        group = replace(group, previous=[chosen.assignment_N])
    count = num_selections(config)
    return (timer.median("first") + (count - 1) * timer.median("later")) / count
