"""The initial images of a class, by the strategies of `initialisation`.

N = ipc stored images of a class, C channels, H, W, D features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dream_ray.core import rng
from dream_ray.core.images.decode_schedule import tile_side
from dream_ray.core.images.multiformation import arrange, compose
from dream_ray.core.images.normalisation import to_unit
from dream_ray.core.images.pixel_space import PixelSpace
from dream_ray.core.images.random_crops import cut
from dream_ray.core.matching.pixel_adamw import first_momenta
from dream_ray.core.selection.anchors import Anchors
from dream_ray.core.selection.herding import herding
from dream_ray.core.selection.random_batches import random_batch, repeated
from dream_ray.core.transfer import to_device
from dream_ray.data.arrays import Float32Array
from dream_ray.engine.matching.class_selector import ClassSelector, representatives
from dream_ray.engine.matching.state import ClassState
from dream_ray.engine.networks.device_images import RealPixels
from dream_ray.engine.networks.sources import Snapshot


class RankingModels(Protocol):
    """The models of `initialisation.models`, see `InitialModels` of engine/models."""

    def easiest(self, images: RealPixels, label: int, count: int) -> Anchors:
        """Returns the easiest images of a class, or crops of them, the easiest first."""

    def features(self, images: RealPixels, label: int) -> Tensor:
        """Returns the features (N, D) of all images of a class under the only model, float32, finite."""


@dataclass(frozen=True)
class InitialImages:
    """Makes the initial images of classes; stateless.

    Attributes:
        selector: Has the settings, the real images and the device.
        space: Space of the synthetic images.
        open_models: Opens `initialisation.models`, for strategies that use them; None: none does.
        starting_images: Returns the stored images of all classes (L, N, C, H, W) in [0, 1], float32, of strategy set.
    """

    selector: ClassSelector
    space: PixelSpace
    open_models: Callable[[], RankingModels] | None
    starting_images: Callable[[], Float32Array] | None

    @cached_property
    def _starting_LNCHW(self) -> Float32Array:
        assert self.starting_images is not None, "a run that starts from a set has its reader"
        return self.starting_images()

    @cached_property
    def models(self) -> RankingModels:
        """The models, which are read once."""
        assert self.open_models is not None, "a run that needs models names them"
        return self.open_models()

    def state(self, snapshot: Snapshot | None, label: int) -> ClassState:
        """Returns the initial state of a class; its indices are those of the real images that fill the tiles.

        Args:
            snapshot: Network whose features decide, with `initialisation.trains_network`.
            label: The class.
        """
        config, images, device = self.selector.config, self.selector.real[label], self.selector.normalise.device
        nothing = torch.empty(0, dtype=torch.int64)
        anchors = None
        if config.initialisation.strategy == "noise":
            shape = (config.ipc, *images.shape_CHW)
            noise = self.stream("noise", label).standard_normal(shape, dtype=np.float32)
            initial_NCHW = self.space.from_noise(to_device(noise, device))
        elif config.initialisation.strategy == "set":
            initial_NCHW = self.space.from_unit(to_device(self._starting_LNCHW[label], device))
        else:
            anchors = self._anchors(snapshot, label)
            initial_NCHW = self.space.from_unit(self._mosaics(anchors, images))
        return ClassState(
            initial_NCHW,
            first_momenta(initial_NCHW) if config.pixels.optimizer == "adamw" else torch.zeros_like(initial_NCHW),
            nothing if anchors is None else torch.from_numpy(anchors.indices),
            nothing.to(device),
            boxes=None if anchors is None or anchors.boxes_n3 is None else torch.from_numpy(anchors.boxes_n3),
        )

    def _anchors(self, snapshot: Snapshot | None, label: int) -> Anchors:
        """Returns as many real images as all mosaics of a class have tiles; a smaller class has some twice."""
        config = self.selector.config
        count = config.ipc * config.factor**2
        anchors = ANCHORS[config.initialisation.strategy](self, snapshot, label, count)
        order = np.arange(len(anchors.indices))
        return anchors.take(repeated(order, count, self.stream("repeats", label)))

    def _mosaics(self, anchors: Anchors, images: RealPixels) -> Tensor:
        """Returns the mosaics (N, C, H, W) of real images, in [0, 1]."""
        factor, device = self.selector.config.factor, self.selector.normalise.device
        real_NCHW = to_unit(images.take(anchors.indices), device)
        if anchors.boxes_n3 is None:
            return compose(real_NCHW, factor)
        _, height, width = images.shape_CHW
        return arrange(cut(real_NCHW, anchors.boxes_n3, tile_side(height, factor)), factor, (height, width))

    def stream(self, purpose: str, label: int) -> np.random.Generator:
        """Returns the random stream of a class, at the first step of the run."""
        return rng.stream(self.selector.config.seed, purpose, label=label)


def _random(initial: InitialImages, snapshot: Snapshot | None, label: int, count: int) -> Anchors:
    num_images = len(initial.selector.real[label])
    return Anchors(random_batch(num_images, count, initial.stream("initialisation", label)))


def _representative(initial: InitialImages, snapshot: Snapshot | None, label: int, count: int) -> Anchors:
    selector, purpose = initial.selector, "initialisation"
    settings = selector.config.selection
    if initial.selector.config.initialisation.trains_network:
        assert snapshot is not None, "the network that the run trains"
        return Anchors(selector.representatives(snapshot, label, count, rule=settings.rule, purpose=purpose))
    points_ND = initial.models.features(selector.real[label], label)
    return Anchors(representatives(points_ND, count, initial.stream(purpose, label), settings.rule, settings.max_steps))


def _herding(initial: InitialImages, snapshot: Snapshot | None, label: int, count: int) -> Anchors:
    images = initial.selector.real[label]
    return Anchors(herding(initial.models.features(images, label), min(count, len(images))).numpy())


def _easy(initial: InitialImages, snapshot: Snapshot | None, label: int, count: int) -> Anchors:
    return initial.models.easiest(initial.selector.real[label], label, count)


ANCHORS: dict[str, Callable[[InitialImages, Snapshot | None, int, int], Anchors]] = {
    "random": _random,
    "representative": _representative,
    "herding": _herding,
    "easy": _easy,
}
"""By strategy: (initial images, network of the run, label, count) -> that many distinct real images, or all of a
smaller class."""
