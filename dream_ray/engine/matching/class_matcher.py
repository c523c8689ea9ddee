"""One step of some classes: matches them and moves their synthetic images.

L classes, N synthetic images, R real images, C channels, H, W.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from dream_ray.config import Config
from dream_ray.core import rng
from dream_ray.core.images.augment import AugmentParams, sample_params
from dream_ray.core.images.decode_schedule import decoded_count
from dream_ray.core.images.multiformation import decode
from dream_ray.core.images.normalisation import Normalise
from dream_ray.core.images.pixel_space import PIXEL_SPACES, PixelSpace
from dream_ray.core.matching.class_step import ClassInputs, ClassStep
from dream_ray.core.matching.objectives import Objective
from dream_ray.core.matching.pixel_adamw import adamw_constants, cosine_factor
from dream_ray.core.placement import Labels
from dream_ray.core.selection.random_batches import random_batch, successive_batches
from dream_ray.core.transfer import to_device
from dream_ray.data.arrays import Float32Array
from dream_ray.engine.matching.class_selector import ClassSelector
from dream_ray.engine.matching.class_statistics import ClassStatistics
from dream_ray.engine.matching.initial_images import InitialImages, RankingModels
from dream_ray.engine.matching.programs import StepProgram
from dream_ray.engine.matching.state import ClassState, RunState
from dream_ray.engine.networks.functional import dtype_of
from dream_ray.engine.networks.program_form import EAGER, ProgramForm
from dream_ray.engine.networks.sources import Snapshot


def decoder(config: Config, mode: str) -> Callable[[Tensor], Tensor]:
    """Returns the map from stored images (N, C, H, W) of a class to training images (M, C, H, W); see `decode`."""
    return partial(decode, factor=config.factor, mode=mode, bound=config.batch_synthetic_max)


def class_step(config: Config, num_classes: int) -> ClassStep:
    """Returns the constants of the steps of a run."""
    weights, matching, pixels = config.weights, config.matching, config.pixels
    return ClassStep(
        Objective(
            weights.feature,
            weights.gradient,
            "statistics" if matching.pairing == "statistics" else matching.distance,
            matching.biases,
            matching.classifier,
            is_averaged=matching.pairing == "mean",
            label_weight=weights.label,
        ),
        decoder(config, config.decode),
        PIXEL_SPACES[pixels.space],
        pixels.lr,
        pixels.momentum,
        # One joint step for all classes is a step of each alone.
        num_classes if pixels.coupling == "sequential" else 1,
        pixels.betas,
    )


def step_program(config: Config, num_classes: int, normalise: Normalise, form: ProgramForm = EAGER) -> StepProgram:
    """Returns the program of the steps of a run."""
    return StepProgram(
        class_step(config, num_classes),
        config.matching.augmentation,
        normalise,
        dtype_of(config.precision),
        form,
        chunk=config.matching.real_chunk,
        frozen=config.source.kind == "frozen",
        layer=config.matching.feature_layer,
        statistics=config.matching.pairing == "statistics",
    )


@dataclass(frozen=True)
class ClassMatcher:
    """Matches classes; stateless.

    Attributes:
        config: Settings.
        selector: Selects the real images; its classes are those of this shard.
        num_classes: Classes of the whole run.
        initial_network: Returns the network of the initialisation; None: the first one of the run.
        starting_images: See `InitialImages`.
        open_models: Likewise.
        weights_M2: Factors of the feature loss and the gradient loss of every network of a frozen pool, see
            `pool_weights`; None: all are 1.
    """

    config: Config
    selector: ClassSelector
    num_classes: int
    initial_network: Callable[[], Snapshot] | None = None
    starting_images: Callable[[], Float32Array] | None = None
    open_models: Callable[[], RankingModels] | None = None
    weights_M2: Tensor | None = None

    @cached_property
    def initial_images(self) -> InitialImages:
        """Makes the initial images."""
        return InitialImages(self.selector, self.space, self.open_models, self.starting_images)

    @cached_property
    def space(self) -> PixelSpace:
        """Space of the synthetic images."""
        return PIXEL_SPACES[self.config.pixels.space](self.selector.normalise)

    @cached_property
    def statistics(self) -> ClassStatistics:
        """Batch-norm statistics of the classes, which matching.pairing statistics matches."""
        return ClassStatistics(self.selector.real, self._program, self.config.selection.embedding_batch)

    @cached_property
    def _program(self) -> StepProgram:
        """The program of groups of classes with a full real batch."""
        return self._step_program(self.selector.form)

    @cached_property
    def _program_of_one(self) -> StepProgram:
        """The program of a class with fewer images, whose batch is a shape of its own."""
        return self._step_program(EAGER)

    def _step_program(self, form: ProgramForm) -> StepProgram:
        return step_program(self.config, self.num_classes, self.selector.normalise, form)

    @property
    def class_batch(self) -> int:
        """Number of classes that `match` takes at a time."""
        return self._program.size

    def real_indices(self, snapshot: Snapshot, label: int, state: ClassState) -> np.ndarray:
        """Returns the real images of the current step of a class, by position, int64."""
        config, num_images = self.config, len(self.selector.real[label])
        if config.matching.pairing == "statistics":
            return np.empty(0, dtype=np.int64)
        if config.matching.pairing == "anchor":
            part, anchors = self._synthetic_part(snapshot, label), state.indices.numpy()
            return anchors if part is None else anchors[part]
        if config.selection.strategy != "random":
            return state.indices.numpy()
        if not config.selection.in_passes:
            return random_batch(num_images, config.real_batch, self.selector.stream("real-batch", snapshot, label))
        step = config.step_of(snapshot.outer, snapshot.inner)
        return successive_batches(
            num_images,
            config.real_batch,
            range(step, step + 1),
            lambda number: rng.stream(config.seed, "pass over a class", outer=number, label=label),
        )

    def match(self, snapshot: Snapshot, labels: Labels, state: RunState) -> dict[int, Tensor]:
        """Matches a group of classes once and moves their synthetic images.

        Args:
            snapshot: The network.
            labels: The classes, at most `class_batch`.
            state: Its images and their momentum change.

        Returns:
            The losses before the move, scalars, by label in the order of `labels`.
        """
        indices = {label: self.real_indices(snapshot, label, state.classes[label]) for label in labels}
        full = [label for label in labels if len(indices[label]) == self.config.real_batch]
        groups = [(self._program, full)] if full else []
        groups += [(self._program_of_one, [label]) for label in labels if label not in full]
        losses: dict[int, Tensor] = {}
        for program, group in groups:
            take_step = program.of(snapshot.network, snapshot.architecture)
            # Padding repeats the first class, so that every group has the same shape.
            slots = group + group[:1] * (program.size - len(group))
            inputs = self._inputs(program, snapshot, slots, indices, state)
            results = take_step(inputs).unstacked() if program.size > 1 else [take_step(inputs.of_only_class())]
            for label, result in zip(group, results, strict=False):
                class_state = state.classes[label]
                class_state.images_NCHW, class_state.momenta, losses[label] = result
        return {label: losses[label] for label in labels}

    def _inputs(
        self,
        program: StepProgram,
        snapshot: Snapshot,
        labels: Sequence[int],
        indices: Mapping[int, np.ndarray],
        state: RunState,
    ) -> ClassInputs:
        """Returns the inputs of a step of some classes, stacked."""
        device, classes = self.selector.normalise.device, [state.classes[label] for label in labels]
        real = [self.selector.real[label].take(indices[label]) for label in labels]
        parts = [part for label in labels if (part := self._synthetic_part(snapshot, label)) is not None]
        weights = [one.weights for one in classes if one.weights is not None]
        member, weights_M2 = snapshot.member, self.weights_M2
        return ClassInputs(
            images_NCHW=_stacked([one.images_NCHW for one in classes]),
            momenta=_stacked([one.momenta for one in classes]),
            real_RCHW=_real_on(device, real),
            view=program.views([self._view(snapshot, label) for label in labels]),
            label=to_device(np.array(labels, dtype=np.int64), device),
            part_M=to_device(np.stack(parts), device) if parts else None,
            weight_R=_stacked(weights) if weights else None,
            adamw_4=self._adamw(snapshot, len(labels)),
            weights_2=None
            if member is None or weights_M2 is None
            else weights_M2[member.number].expand(len(labels), 2),
            target_SD=_stacked([self.statistics.of(snapshot, label) for label in labels])
            if self.config.matching.pairing == "statistics"
            else None,
        )

    def _adamw(self, snapshot: Snapshot, count: int) -> Tensor | None:
        """Returns the constants of AdamW for some classes (count, 4); None without AdamW."""
        pixels = self.config.pixels
        if pixels.optimizer != "adamw":
            return None
        step, lr = self.config.step_of(snapshot.outer, snapshot.inner), pixels.lr
        if pixels.schedule == "cosine":
            lr *= cosine_factor(step, self.config.total_steps)
        constants_4 = adamw_constants(step + 1, lr=lr, weight_decay=pixels.weight_decay, betas=pixels.betas)
        return to_device(constants_4, self.selector.normalise.device, torch.float32).expand(count, 4)

    def _view(self, snapshot: Snapshot, label: int) -> AugmentParams:
        """Draws the augmentation of a class step, the same for its real and synthetic batch (Siamese)."""
        _, height, width = self.selector.real[label].shape_CHW
        return sample_params(
            self.config.matching.augmentation,
            self.selector.stream("siamese", snapshot, label),
            height=height,
            width=width,
        )

    def _synthetic_part(self, snapshot: Snapshot, label: int) -> np.ndarray | None:
        """Returns the random subset of the decoded images to match, int64, or None for all of them."""
        config = self.config
        decoded = decoded_count(config.ipc, config.factor, config.decode, config.batch_synthetic_max)
        if decoded <= config.batch_synthetic_max:
            return None
        generator = self.selector.stream("synthetic-batch", snapshot, label)
        return random_batch(decoded, config.batch_synthetic_max, generator)

    def initial_states(self, snapshot: Snapshot) -> dict[int, ClassState]:
        """Returns the initial states of all classes; k-means uses the features of the network."""
        if self.initial_network is not None:
            # The feature cache stores features under the run's own networks only.
            selector = replace(self.selector, cache=None)
            return replace(self, selector=selector, initial_network=None).initial_states(self.initial_network())
        return {label: self.initial_images.state(snapshot, label) for label in self.selector.real}


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0][None] if len(tensors) == 1 else torch.stack(list(tensors))


def _real_on(device: torch.device, real: Sequence[np.ndarray | Tensor]) -> Tensor:
    """Stacks real images on the device; those of the host in one copy."""
    arrays = [one for one in real if isinstance(one, np.ndarray)]
    if len(arrays) < len(real):
        return _stacked([to_device(one, device) for one in real])
    return to_device(arrays[0][None] if len(arrays) == 1 else np.stack(arrays), device)
