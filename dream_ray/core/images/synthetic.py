"""The synthetic set: what a distillation makes and a user trains on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dream_ray.core.images.multiformation import decode


@dataclass(frozen=True)
class SyntheticSet:
    """A distilled set with all that is needed to train on it.

    Attributes:
        images_LNCHW: Stored images of every class, float32, nominally in [0, 1]; L classes, N = ipc images each.
            What moved in another space than [0, 1] was never clamped, and may lie outside.
        class_names: Name of every class, by label.
        factor: Multi-formation factor f.
        decode_mode: How the stored images decode for training.
        decode_bound: Largest decoded count a class, for decode mode "bound".
        mean: Per-channel mean that networks' inputs are normalised with, pixels in [0, 1].
        std: Per-channel standard deviation, likewise.
        step_size: Learning rate that was learned with the images (MTT); None: none was.
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

        0 is black and 1 white; pixels that moved as the networks see them may lie outside.
        """
        per_class = [decode(images, self.factor, self.decode_mode, self.decode_bound) for images in self.images_LNCHW]
        labels = [torch.full((len(images),), label) for label, images in enumerate(per_class)]
        return torch.cat(per_class), torch.cat(labels)
