"""The synthetic set: the result of a distillation, on which users train."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dream_ray.core.images.decode_schedule import decoded_count
from dream_ray.core.images.multiformation import decode


class ClassImages(Protocol):
    """The stored images of all classes: a tensor (L, N, C, H, W), or a reader that takes one class at a time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(L, N, C, H, W)."""

    def __getitem__(self, label: int, /) -> Tensor:
        """Returns the images (N, C, H, W) of a class, float32, on the CPU."""


@dataclass(frozen=True)
class SyntheticSet:
    """A distilled set with everything that training on it needs.

    Attributes:
        images_LNCHW: Stored images of every class, float32, nominally in [0, 1]; L classes, N = ipc images each.
            Sets of other pixel spaces were never clamped, and may lie outside.
        class_names: Name of every class, by label.
        factor: Multi-formation factor f.
        decode_mode: Mode of `decode` for training.
        decode_bound: Largest decoded count of a class, for decode mode "bound".
        mean: Per-channel mean of the normalisation of network inputs, for pixels in [0, 1].
        std: Per-channel standard deviation, likewise.
        step_size: Learning rate that was learned with the images (MTT); None: it was not learned.
    """

    images_LNCHW: ClassImages
    class_names: tuple[str, ...]
    factor: int
    decode_mode: str
    decode_bound: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    step_size: float | None = None

    @property
    def decoded_shape(self) -> tuple[int, int, int, int, int]:
        """(L, M, C, H, W) of the training images; M is their number in a class."""
        num_classes, ipc, channels, height, width = self.images_LNCHW.shape
        count = decoded_count(ipc, self.factor, self.decode_mode, self.decode_bound)
        return num_classes, count, channels, height, width

    def labels(self) -> Tensor:
        """Returns the labels of all training images, int64, class by class."""
        num_classes, count = self.decoded_shape[:2]
        return torch.arange(num_classes).repeat_interleave(count)

    def decoded(self) -> tuple[Tensor, Tensor]:
        """Returns all training images (L * M, C, H, W) and their labels, class by class.

        0 is black and 1 is white; pixels of the space of network inputs may lie outside.
        """
        decoded_LMCHW = torch.empty(self.decoded_shape)
        for label, images_MCHW in enumerate(decoded_LMCHW):
            images_MCHW.copy_(decode(self.images_LNCHW[label], self.factor, self.decode_mode, self.decode_bound))
        return decoded_LMCHW.flatten(0, 1), self.labels()
