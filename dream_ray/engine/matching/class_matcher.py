"""One step of some classes: selects real images, matches, and moves the synthetic images.

N images, C channels, H, W, D features.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import takewhile
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dream_ray.config import Config
from dream_ray.core import rng
from dream_ray.core.images.augment import AugmentParams, augment, sample_params
from dream_ray.core.images.multiformation import compose, decode, decoded_count
from dream_ray.core.images.normalisation import Normalise, to_unit
from dream_ray.core.images.pixel_space import PIXEL_SPACES, PixelSpace
from dream_ray.core.matching.objectives import Objective, Signals, mean_signals
from dream_ray.core.matching.pixel_sgd import pixel_step
from dream_ray.core.placement import Labels, class_groups
from dream_ray.core.selection import strategies
from dream_ray.core.transfer import to_device
from dream_ray.data.store.images import ImageChunks
from dream_ray.engine.matching.feature_cache import FeatureCache
from dream_ray.engine.matching.state import ClassState, RunState
from dream_ray.engine.networks.matching_functions import CompiledMatchingFunctions, MatchingFunctions
from dream_ray.engine.networks.sources import Snapshot

Assignments = Mapping[int, Tensor]
"""Cluster of every real image at the last selection (N,) int64, by label of the class."""
Select = Callable[[Snapshot, Assignments], dict[int, strategies.Selection]]
"""Selects the real images of every class of a process for the next `interval` steps."""


CLASS_BATCH = 1
"""Classes that are selected and matched together, independent of the number of workers."""


def matched_objective(config: Config) -> Objective:
    """Returns the objective of some settings."""
    weights, matching = config.weights, config.matching
    return Objective(weights.feature, weights.gradient, matching.distance, matching.biases, matching.classifier)


def decoder(config: Config, mode: str) -> Callable[[Tensor], Tensor]:
    """Returns the map from stored images (N, C, H, W) of a class to training images (M, C, H, W); see `decode`."""
    return partial(decode, factor=config.factor, mode=mode, bound=config.batch_synthetic_max)


@dataclass(frozen=True)
class ClassMatcher:
    """Matches classes; stateless.

    Attributes:
        config: Settings.
        real: Real uint8 images of each class of this shard, by label.
        num_classes: Classes of the whole run.
        normalise: Maps images to network inputs; all tensors live on its device.
        compiled: Whether the matching functions are compiled.
        features: Cache of the results of `embed`; None: no cache.
        initial_network: Returns the network of the initialisation; None: the first one of the run.
        class_batch: Number of classes that `match` and `select` take at a time.
    """

    config: Config
    real: dict[int, ImageChunks]
    num_classes: int
    normalise: Normalise
    compiled: bool = False
    features: FeatureCache | None = None
    initial_network: Callable[[], Snapshot] | None = None
    class_batch: ClassVar[int] = CLASS_BATCH

    @cached_property
    def space(self) -> PixelSpace:
        """Space of the synthetic images."""
        return PIXEL_SPACES[self.config.pixels.space](self.normalise)

    @cached_property
    def functions(self) -> MatchingFunctions:
        """Functions for features, losses and gradients."""
        objective, precision = matched_objective(self.config), self.config.selection.precision
        if not self.compiled:
            return MatchingFunctions(objective, precision)
        return CompiledMatchingFunctions(
            objective,
            precision,
            batch_embedding=self.config.selection.embedding_batch,
            batch_real=self.config.matching.real_chunk or self.config.real_batch,
        )

    def embed(self, snapshot: Snapshot, label: int) -> Tensor:
        """Returns the features (N, D) of the real images of a class."""
        if self.features is None:
            return self._embed(snapshot, label)
        features = self.features.features(snapshot.outer, snapshot.inner, label, lambda: self._embed(snapshot, label))
        return features.to(self.normalise.device)

    def _embed(self, snapshot: Snapshot, label: int) -> Tensor:
        """Computes the features in bounded batches."""
        images = self.real[label]
        features = []
        size, indices = self.config.selection.embedding_batch, np.arange(len(images))
        for batch in images.batches(indices[start : start + size] for start in range(0, len(images), size)):
            pixels = to_unit(batch, self.normalise.device)
            pixels = self.normalise(pixels) if self.config.selection.normalise else pixels
            features.append(self.functions.features(snapshot, pixels))
        return torch.cat(features)

    def select_all(
        self, snapshot: Snapshot, previous: Assignments, *, is_over: Callable[[], bool] = lambda: False
    ) -> dict[int, strategies.Selection]:
        """Selects the representative images of every class, see `Select`; stops early once `is_over`."""
        chosen: dict[int, strategies.Selection] = {}
        for labels in takewhile(lambda _: not is_over(), class_groups(self.real, self.class_batch)):
            chosen |= zip(labels, self.select(snapshot, labels, previous), strict=True)
        return chosen

    def select(self, snapshot: Snapshot, labels: Labels, previous: Assignments) -> list[strategies.Selection]:
        """Selects the representative images of a group of classes for the next `interval` steps.

        Args:
            snapshot: The network.
            labels: The classes.
            previous: Assignments at their last selection, for a warm start of k-means.

        Returns:
            The selections, in the order of `labels`, with indices on the CPU.
        """
        is_warm = self.config.selection.warm_start and snapshot.inner > 0
        return [self._select(snapshot, label, previous[label] if is_warm else None) for label in labels]

    def _select(self, snapshot: Snapshot, label: int, previous_N: Tensor | None) -> strategies.Selection:
        settings = self.config.selection
        chosen = strategies.representative(
            self.embed(snapshot, label),
            num_clusters=settings.num_clusters,
            per_cluster=settings.per_cluster,
            rule=settings.rule,
            max_steps=settings.max_steps if previous_N is None else settings.warm_steps,
            rng=self._stream("k-means", snapshot, label),
            previous_N=previous_N,
        )
        return replace(chosen, indices=chosen.indices.cpu())

    def real_indices(self, snapshot: Snapshot, label: int, state: ClassState) -> np.ndarray:
        """Returns the real images of the current step of a class, by position, int64."""
        if self.config.selection.strategy == "representative":
            return state.indices.numpy()
        generator = self._stream("real-batch", snapshot, label)
        return strategies.random_batch(len(self.real[label]), self.config.real_batch, generator)

    def match(self, snapshot: Snapshot, labels: Labels, state: RunState) -> dict[int, Tensor]:
        """Matches a group of classes once and moves their synthetic images.

        Returns:
            The losses before the move, scalars, by label in the order of `labels`.
        """
        losses: dict[int, Tensor] = {}
        for label in labels:
            class_state = state.classes[label]
            target = self.target(snapshot, label, class_state)
            losses[label], gradient_NCHW = self.loss_and_gradient(snapshot, label, class_state.images_NCHW, target)
            class_state.images_NCHW, class_state.velocity_NCHW = pixel_step(
                class_state.images_NCHW,
                class_state.velocity_NCHW,
                gradient_NCHW,
                lr=self.config.pixels.lr,
                momentum=self.config.pixels.momentum,
                # One joint step for all classes is a step of each alone.
                num_classes=self.num_classes if self.config.pixels.coupling == "sequential" else 1,
            )
        return losses

    def target(self, snapshot: Snapshot, label: int, state: ClassState) -> Signals:
        """Returns the signals of the real batch of a class, constants of the matching loss.

        A forward pass takes `matching.real_chunk` images, or the whole batch if the network couples images.
        """
        indices, view = self.real_indices(snapshot, label, state), self._view(snapshot, label)
        size = self.config.matching.real_chunk
        if size is None or snapshot.network.couples_images:
            size = len(indices)
        chunks = np.split(indices, range(size, len(indices), size))

        def weighted(chunk: np.ndarray) -> tuple[float, Signals]:
            real = augment(self.normalise(to_unit(self.real[label].take(chunk), self.normalise.device)), view)
            return len(chunk) / len(indices), self.functions.real_signals(snapshot, real, label)

        return mean_signals(map(weighted, chunks), len(chunks))

    def loss_and_gradient(
        self, snapshot: Snapshot, label: int, images_NCHW: Tensor, target: Signals
    ) -> tuple[Tensor, Tensor]:
        """Returns the matching loss of the synthetic images of a class, a scalar, and its gradient (N, C, H, W)."""
        decoded = decoder(self.config, self.config.decode)
        view, part = self._view(snapshot, label), self._synthetic_part(snapshot, label)

        def augmented(images_NCHW: Tensor) -> Tensor:
            decoded_MCHW = decoded(images_NCHW)
            return augment(self.space.to_inputs(decoded_MCHW if part is None else decoded_MCHW[part]), view)

        # Every draw of the augmentation is another program, so the chain rule is applied outside the compiled function.
        synthetic, pull_back = torch.func.vjp(augmented, images_NCHW)  # type: ignore[misc]  # 3 with has_aux
        loss, gradient = self.functions.loss_and_gradient(snapshot, synthetic, label, target)
        return loss, pull_back(gradient)[0]

    def _view(self, snapshot: Snapshot, label: int) -> AugmentParams:
        """Draws the augmentation of a class step, the same for its real and synthetic batch (Siamese)."""
        _, height, width = self.real[label].shape_CHW
        return sample_params(
            self.config.matching.augmentation, self._stream("siamese", snapshot, label), height=height, width=width
        )

    def initial_states(self, snapshot: Snapshot) -> dict[int, ClassState]:
        """Returns the initial states of all classes; k-means uses the features of the network."""
        if self.initial_network is not None:
            # The feature cache stores features under the run's own networks only.
            return replace(self, features=None, initial_network=None).initial_states(self.initial_network())
        return {label: self.initial_state(snapshot, label) for label in self.real}

    def initial_state(self, snapshot: Snapshot, label: int) -> ClassState:
        """Returns the initial state of a class."""
        config = self.config
        if config.initialisation.strategy == "noise":
            shape = (config.ipc, *self.real[label].shape_CHW)
            noise = self._stream("noise", snapshot, label).standard_normal(shape, dtype=np.float32)
            images = self.space.from_noise(to_device(noise, self.normalise.device))
        else:
            indices = self._initial_indices(snapshot, label)
            real = to_unit(self.real[label].take(indices), self.normalise.device)
            images = self.space.from_unit(compose(real, config.factor))
        nothing = torch.empty(0, dtype=torch.int64)
        return ClassState(images, torch.zeros_like(images), nothing, nothing.to(self.normalise.device))

    def _initial_indices(self, snapshot: Snapshot, label: int) -> np.ndarray:
        config = self.config
        count = config.ipc * config.factor**2
        generator = self._stream("initialisation", snapshot, label)
        if config.initialisation.strategy == "random":
            return strategies.random_batch(len(self.real[label]), count, generator)
        chosen = strategies.representative(
            self.embed(snapshot, label),
            num_clusters=count,
            per_cluster=1,
            rule=config.selection.rule,
            max_steps=config.selection.max_steps,
            rng=generator,
        )
        return chosen.indices.cpu().numpy()

    def _synthetic_part(self, snapshot: Snapshot, label: int) -> Tensor | None:
        """Returns the random subset of the decoded images to match, or None for all of them."""
        config = self.config
        decoded = decoded_count(config.ipc, config.factor, config.decode, config.batch_synthetic_max)
        if decoded <= config.batch_synthetic_max:
            return None
        generator = self._stream("synthetic-batch", snapshot, label)
        return to_device(strategies.random_batch(decoded, config.batch_synthetic_max, generator), self.normalise.device)

    def _stream(self, purpose: str, snapshot: Snapshot, label: int) -> np.random.Generator:
        return rng.stream(self.config.seed, purpose, outer=snapshot.outer, inner=snapshot.inner, label=label)
