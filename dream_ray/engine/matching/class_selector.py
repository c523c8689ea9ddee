"""Selection of the real images of some classes, by the features of a network.

L classes, N images of a class, D features.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor

from dream_ray.config import Config, sections
from dream_ray.core import rng
from dream_ray.core.images.normalisation import Normalise
from dream_ray.core.placement import Labels, class_groups
from dream_ray.core.selection import strategies
from dream_ray.core.transfer import to_device
from dream_ray.engine.matching.feature_cache import KeptFeatures
from dream_ray.engine.matching.programs import FeatureProgram
from dream_ray.engine.networks.device_images import RealPixels
from dream_ray.engine.networks.functional import dtype_of
from dream_ray.engine.networks.program_form import EAGER, ProgramForm
from dream_ray.engine.networks.sources import Snapshot
from dream_ray.errors import RunError

Assignments = Mapping[int, Tensor]
"""Cluster of every real image at the last selection (N,) int64, by label of the class."""
Select = Callable[[Snapshot, Assignments], dict[int, strategies.Selection]]
"""Selects the real images of every class of a process for the next `interval` steps."""


def rules_of(settings: sections.Selection, *, is_first: bool) -> strategies.Rules:
    """Returns the rules of the first selection of an outer step, or of the later ones."""
    return strategies.Rules(
        num_clusters=settings.num_clusters,
        per_cluster=settings.per_cluster,
        max_steps=settings.max_steps if is_first else settings.restart_steps,
        start="plus_plus" if is_first else settings.restart,
        rule=settings.rule,
    )


def representatives(points_ND: Tensor, count: int, rng: np.random.Generator, rule: str, max_steps: int) -> np.ndarray:
    """Selects `count` images of a class by their features, each from a cluster of its own.

    Args:
        points_ND: Features of all images of the class.
        count: Number of images.
        rng: Stream of k-means.
        rule: See `strategies.Rules`.
        max_steps: Likewise.

    Returns:
        Positions in the class, int64; all of them if the class is smaller.
    """
    rules = strategies.Rules(num_clusters=count, per_cluster=1, max_steps=max_steps, rule=rule)
    (chosen,) = strategies.representative(strategies.Group(points_ND[None], [len(points_ND)], [rng]), rules)
    return chosen.indices.numpy()


@dataclass(frozen=True)
class ClassSelector:
    """Selects real images; stateless.

    Attributes:
        config: Settings.
        real: Real uint8 images of each class of this shard, by label.
        largest_class: Images of the largest class of the whole run.
        normalise: Maps images to network inputs; all tensors live on its device.
        form: How programs are executed.
        cache: Keeps the results of `embed`; None: nothing is kept.
    """

    config: Config
    real: Mapping[int, RealPixels]
    largest_class: int
    normalise: Normalise
    form: ProgramForm = EAGER
    cache: KeptFeatures | None = None

    @cached_property
    def features(self) -> FeatureProgram:
        """Program of the features."""
        settings = self.config.selection
        normalise = self.normalise if settings.normalise else None
        dtype = dtype_of("bfloat16" if settings.precision == "bfloat16" else self.config.precision)
        return FeatureProgram(normalise, dtype, batch=settings.embedding_batch, backend=self.form.backend)

    def embed(self, snapshot: Snapshot, label: int) -> Tensor:
        """Returns the features (N, D) of the real images of a class, float32."""
        if self.cache is None:
            return self._embed(snapshot, label)
        numbers = (snapshot.outer, snapshot.inner) if snapshot.member is None else (snapshot.member.number, 0)
        features_ND = self.cache.features(*numbers, label, lambda: self._embed(snapshot, label))
        return features_ND.to(self.normalise.device)

    def _embed(self, snapshot: Snapshot, label: int) -> Tensor:
        """Computes the features in bounded batches."""
        images, size = self.real[label], self.config.selection.embedding_batch
        features = self.features.of(snapshot.network, snapshot.architecture)
        batches = np.split(np.arange(len(images)), range(size, len(images), size))
        return torch.cat([features(to_device(pixels, self.normalise.device)) for pixels in images.batches(batches)])

    def select_all(
        self, snapshot: Snapshot, previous: Assignments, *, is_over: Callable[[], bool] = lambda: False
    ) -> dict[int, strategies.Selection]:
        """Selects the real images of every class, see `Select`; stops early once `is_over`."""
        chosen: dict[int, strategies.Selection] = {}
        for labels in takewhile(lambda _: not is_over(), class_groups(self.real, self.form.class_batch)):
            chosen |= zip(labels, self.select(snapshot, labels, previous), strict=True)
        return chosen

    def select(self, snapshot: Snapshot, labels: Labels, previous: Assignments) -> list[strategies.Selection]:
        """Selects the real images of a group of classes for the next `interval` steps.

        Args:
            snapshot: The network.
            labels: The classes, at most `class_batch`.
            previous: Assignments at their last selection, for a warm start of k-means.

        Returns:
            The selections, in the order of `labels`.
        """
        return self.choose(snapshot, labels, self.points(snapshot, labels), previous)

    def choose(
        self, snapshot: Snapshot, labels: Labels, points_LND: Tensor, previous: Assignments
    ) -> list[strategies.Selection]:
        """Selects from the features of a group of classes; see `select`."""
        settings, is_first = self.config.selection, snapshot.inner == 0
        group = strategies.Group(
            points_LND,
            [len(self.real[label]) for label in labels],
            [self.stream("k-means", snapshot, label) for label in labels],
            () if is_first else [previous[label] for label in labels],
        )
        with self._naming(snapshot, labels):
            return strategies.STRATEGIES[settings.strategy](group, rules_of(settings, is_first=is_first))

    def points(self, snapshot: Snapshot, labels: Labels) -> Tensor:
        """Returns the features (L, N, D) of a group, filled up so that the shape is the same for every group."""
        if self.form.class_batch == 1:
            return self.embed(snapshot, labels[0])[None]
        shape = self.form.class_batch, self.largest_class, snapshot.network.head.in_features
        points_LND = torch.zeros(shape, device=self.normalise.device)
        for points_ND, label in zip(points_LND, labels, strict=False):
            points_ND[: len(self.real[label])] = self.embed(snapshot, label)
        return points_LND

    def representatives(self, snapshot: Snapshot, label: int, count: int, *, rule: str, purpose: str) -> np.ndarray:
        """Selects `count` images of a class, each from a cluster of its own.

        Args:
            snapshot: The network.
            label: The class.
            count: Number of images.
            rule: See `strategies.Rules`.
            purpose: Of the random stream.

        Returns:
            Positions in the class, int64.
        """
        points_ND, max_steps = self.embed(snapshot, label), self.config.selection.max_steps
        with self._naming(snapshot, (label,)):
            return representatives(points_ND, count, self.stream(purpose, snapshot, label), rule, max_steps)

    @contextmanager
    def _naming(self, snapshot: Snapshot, labels: Labels) -> Iterator[None]:
        """Adds the class of labels, the step and a remedy to an error about features that are not finite."""
        try:
            yield
        except strategies.NotFiniteError as error:
            lr, name = self.config.update.lr, self.config.network.name
            advice = f"Check network {name} on this image"
            if snapshot.member is not None:
                advice = f"Check model {self.config.source.models[snapshot.member.number]} on this image"
            elif len(error.images) == error.num_images:
                advice = f"The network diverged: lower update.lr ({lr}), or check network {name}"
            where = f"class {labels[error.slot]}, outer step {snapshot.outer}, inner step {snapshot.inner}"
            raise RunError(f"{error}: {where}. {advice}") from None

    def stream(self, purpose: str, snapshot: Snapshot, label: int) -> np.random.Generator:
        """Returns the random stream of a class at the step of a network."""
        return rng.stream(self.config.seed, purpose, outer=snapshot.outer, inner=snapshot.inner, label=label)
