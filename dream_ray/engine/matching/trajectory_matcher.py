"""One step of trajectory matching (MTT): trains students and compares them with experts.

L classes, N stored images of each, M decoded images of all classes, C channels, H, W.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dream_ray.config import Config
from dream_ray.core import rng
from dream_ray.core.images.augment import AugmentParams, augment, sample_params, view_of
from dream_ray.core.images.decode_schedule import decoded_count
from dream_ray.core.images.normalisation import Normalise
from dream_ray.core.images.pixel_space import PIXEL_SPACES, PixelSpace
from dream_ray.core.matching.objectives import Forward
from dream_ray.core.matching.pixel_sgd import pixel_step
from dream_ray.core.matching.trajectory_matching import Batch, match_trajectory
from dream_ray.core.placement import Labels
from dream_ray.core.process_group import SINGLE_PROCESS_GROUP, ProcessGroup, group_sum
from dream_ray.core.transfer import to_device
from dream_ray.engine.matching.class_matcher import decoder
from dream_ray.engine.matching.expert_segments import Segment, Segments
from dream_ray.engine.matching.state import ALL_CLASSES, STEP_SIZE, ClassState, RunState
from dream_ray.engine.networks.functional import dtype_of, function_of, structure_of, tensors_of
from dream_ray.nets import Classifier

_STEP_SIZE_VELOCITY = "step_size_velocity"


@dataclass(frozen=True)
class TrajectoryMatcher:
    """Matches all classes together; stateless.

    Every worker holds all synthetic images, matches its own segments, and moves the images by the mean gradient of all.

    Attributes:
        config: Settings.
        network: A network of the run, for its structure and buffers.
        normalise: Maps images to network inputs; all tensors live on its device.
        initial_states: Returns the initial state of every class, by label; independent of the segments.
        world_group: All workers of the run, which share the segments of a step.
        class_batch: None: `match` takes all classes at a time.
    """

    config: Config
    network: Classifier
    normalise: Normalise
    initial_states: Callable[[Segments], dict[int, ClassState]]
    world_group: ProcessGroup = SINGLE_PROCESS_GROUP
    class_batch: ClassVar[None] = None

    @cached_property
    def space(self) -> PixelSpace:
        """Space of the synthetic images."""
        return PIXEL_SPACES[self.config.pixels.space](self.normalise)

    @cached_property
    def forward(self) -> Forward:
        """The network of a student, in training mode, as a function."""
        structure, dtype = structure_of(self.network, training=True), dtype_of(self.config.precision)
        return function_of(structure, tensors_of(self.network), dtype)[0]

    def match(self, segments: Segments, labels: Labels, state: RunState) -> dict[int, Tensor]:
        """Moves the synthetic images of all classes and the step size.

        Returns:
            The mean loss of the segments before the move, under `ALL_CLASSES`, on the first worker; else an empty dict.
        """
        images_LNCHW = torch.stack([state.classes[label].images_NCHW for label in labels])
        if not state.learned:
            # Filled on the device: a tensor from a Python number would be copied, and the host would wait.
            first = torch.full((), self.config.trajectory.step_size, device=images_LNCHW.device)
            state.learned = {STEP_SIZE: first, _STEP_SIZE_VELOCITY: torch.zeros_like(first)}
        step_size = state.learned[STEP_SIZE]
        count = self.config.trajectory.segments
        matches = (self._match(segments, segment, images_LNCHW, step_size) / count for segment in segments.own)
        # Loss, gradient of the step size, gradient of the images.
        zero = torch.zeros(2 + images_LNCHW.numel(), device=self.normalise.device)
        mean = group_sum(matches, count, zero, self.world_group)
        for label, gradient_NCHW in zip(labels, mean[2:].reshape(images_LNCHW.shape), strict=True):
            class_state = state.classes[label]
            class_state.images_NCHW, class_state.momenta = pixel_step(
                class_state.images_NCHW,
                class_state.momenta,
                gradient_NCHW,
                lr=self.config.pixels.lr,
                momentum=self.config.pixels.momentum,
                num_classes=1,
            )
        state.learned = self._next_step_size(state.learned, mean[1])
        return {ALL_CLASSES: mean[0]} if self.world_group.rank == 0 else {}

    def _match(self, segments: Segments, segment: Segment, images_LNCHW: Tensor, step_size: Tensor) -> Tensor:
        batches = self.batches(segments, segment, images_LNCHW)
        match = match_trajectory(self.forward, segment.start, segment.target, batches, images_LNCHW, step_size)
        return torch.cat([match.loss[None], match.by_step_size[None], match.by_images.flatten()])

    def _next_step_size(self, learned: dict[str, Tensor], gradient: Tensor) -> dict[str, Tensor]:
        velocity = self.config.pixels.momentum * learned[_STEP_SIZE_VELOCITY] + gradient
        moved = learned[STEP_SIZE] - self.config.trajectory.step_size_lr * velocity
        return {STEP_SIZE: moved, _STEP_SIZE_VELOCITY: velocity}

    def batches(self, segments: Segments, segment: Segment, images_LNCHW: Tensor) -> list[Batch]:
        """Draws the batches of a student: consecutive parts of random permutations of the decoded images."""
        config, settings = self.config, self.config.trajectory
        generator = rng.stream(config.seed, "student", outer=segments.outer, inner=segments.inner, label=segment.number)
        per_class = decoded_count(config.ipc, config.factor, config.decode, config.batch_synthetic_max)
        labels_M = np.repeat(np.arange(len(images_LNCHW)), per_class)
        size = min(settings.student_batch or len(labels_M), len(labels_M))
        drawn: list[Batch] = []
        waiting = np.empty(0, dtype=np.int64)
        for _ in range(settings.student_steps):
            if len(waiting) == 0:
                waiting = generator.permutation(len(labels_M))
            indices, waiting = waiting[:size], waiting[size:]
            height, width = images_LNCHW.shape[-2:]
            draw = sample_params(
                config.matching.augmentation, generator, height=height, width=width, num_draws=len(indices)
            )
            drawn.append(self._batch(indices, labels_M[indices], draw))
        return drawn

    def _batch(self, indices: np.ndarray, labels: np.ndarray, draw: AugmentParams) -> Batch:
        device = self.normalise.device
        view = view_of(draw, device)
        chosen, labels_N = to_device(indices, device), to_device(labels, device)

        def batch(images_LNCHW: Tensor) -> tuple[Tensor, Tensor]:
            return augment(self.space.to_inputs(self._decoded(images_LNCHW)[chosen]), view), labels_N

        return batch

    def _decoded(self, images_LNCHW: Tensor) -> Tensor:
        """Returns the decoded images of all classes (M, C, H, W); with factor 1 the stored ones, without a copy."""
        if self.config.factor == 1:
            return images_LNCHW.flatten(0, 1)
        return torch.cat(list(map(decoder(self.config, self.config.decode), images_LNCHW)))
