"""From stored bytes to network inputs: uint8 -> [0, 1] -> (x - mean) / std."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dream_ray.core.transfer import to_device


def to_unit(images_NCHW: np.ndarray, device: torch.device) -> Tensor:
    """Moves uint8 images to the device and returns them as float32 in [0, 1]."""
    return to_device(images_NCHW, device).float().div_(255)


class Normalise(Protocol):
    """Maps images in [0, 1] to network inputs: channel by channel (`Normalisation`), or ZCA (`Whitening`)."""

    @property
    def device(self) -> torch.device:
        """Device of the inputs."""

    def __call__(self, images_NCHW: Tensor) -> Tensor:
        """Returns the inputs of a network."""

    def inverse(self, inputs_NCHW: Tensor) -> Tensor:
        """Returns the images of network inputs."""


@dataclass(frozen=True)
class Normalisation:
    """Per-channel normalisation of images in [0, 1].

    Attributes:
        mean_1C11: Mean, float32.
        std_1C11: Standard deviation, float32, > 0.
    """

    mean_1C11: Tensor
    std_1C11: Tensor

    @classmethod
    def of(cls, mean: Sequence[float], std: Sequence[float], device: torch.device) -> "Normalisation":
        """Builds it from one number per channel; a constant channel is not divided."""
        shape = (1, -1, 1, 1)
        divisors = torch.tensor([one or 1.0 for one in std], device=device)
        return cls(torch.tensor(mean, device=device).reshape(shape), divisors.reshape(shape))

    @property
    def device(self) -> torch.device:
        """Device of the inputs."""
        return self.mean_1C11.device

    def __call__(self, images_NCHW: Tensor) -> Tensor:
        """Returns the normalised images."""
        return (images_NCHW - self.mean_1C11) / self.std_1C11

    def inverse(self, inputs_NCHW: Tensor) -> Tensor:
        """Returns the images of normalised inputs, not clamped."""
        return inputs_NCHW * self.std_1C11 + self.mean_1C11
