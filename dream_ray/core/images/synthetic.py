"""The synthetic set: the result of a distillation, on which users train."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dream_ray.core.images.multiformation import decode


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

    images_LNCHW: Tensor
    class_names: tuple[str, ...]
    factor: int
    decode_mode: str
    decode_bound: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    step_size: float | None = None

    def decoded(self) -> tuple[Tensor, Tensor]:
        """Returns all training images (M, C, H, W) and their labels (M,), class by class.

        0 is black and 1 is white; pixels of the space of network inputs may lie outside.
        """
        per_class = [decode(images, self.factor, self.decode_mode, self.decode_bound) for images in self.images_LNCHW]
        labels = [torch.full((len(images),), label) for label, images in enumerate(per_class)]
        return torch.cat(per_class), torch.cat(labels)
