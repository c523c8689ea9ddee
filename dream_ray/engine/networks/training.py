"""Training a network by SGD, while distilling and for evaluation.

N images, C channels, H, W.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dream_ray.core.images.normalisation import Normalise, unit
from dream_ray.core.transfer import to_device
from dream_ray.engine.networks.device_images import RealPixels
from dream_ray.engine.networks.update_program import UpdateProgram
from dream_ray.nets import Classifier

_EVALUATION_BATCH = 256


class TrainingImages(Protocol):
    """Labelled training images."""

    def __len__(self) -> int: ...

    def batches(self, batches: Sequence[np.ndarray], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields images (n, C, H, W), uint8 or float32 in [0, 1] and int64 labels (n,) at the indices of each batch."""


@dataclass(frozen=True)
class RealImages:
    """uint8 images of a store.

    Attributes:
        images: Usually memory-mapped, or on the device.
        labels_N: int64.
    """

    images: RealPixels
    labels_N: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, batches: Sequence[np.ndarray], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """See `TrainingImages.batches`; encoded images are decoded a batch ahead."""
        pixels: Iterator[np.ndarray | Tensor] = iter(self.images.batches(batches))
        for indices, images_NCHW in zip(batches, pixels, strict=True):
            yield to_device(images_NCHW, device), to_device(self.labels_N[indices], device)


@dataclass(frozen=True)
class TensorImages:
    """Images in memory, such as a decoded synthetic set.

    Attributes:
        images_NCHW: float32 in [0, 1].
        labels_N: int64, on the same device.
    """

    images_NCHW: Tensor
    labels_N: Tensor

    def __len__(self) -> int:
        return len(self.images_NCHW)

    def batches(self, batches: Sequence[np.ndarray], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """See `TrainingImages.batches`."""
        for indices in batches:
            chosen = to_device(indices, self.images_NCHW.device)
            yield self.images_NCHW[chosen].to(device), self.labels_N[chosen].to(device)

    def on(self, device: torch.device) -> "TensorImages":
        """Returns the images on a device, where taking a batch does not wait."""
        return TensorImages(self.images_NCHW.to(device), self.labels_N.to(device))


@dataclass(frozen=True)
class RepeatedImages:
    """Some images of a set, repeated to its size: a pass takes as many steps as over the whole set.

    Attributes:
        images: The whole set.
        chosen: Positions of the repeated images in it, int64.
    """

    images: RealImages
    chosen: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, batches: Sequence[np.ndarray], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """See `TrainingImages.batches`."""
        return self.images.batches([self.chosen[indices % len(self.chosen)] for indices in batches], device)


def train_pass(
    network: Classifier,
    optimizer: torch.optim.SGD,
    data: TrainingImages,
    order: np.ndarray,
    program: UpdateProgram,
    rng: np.random.Generator,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Trains on images in an order, batch by batch; the last batch may be smaller.

    A last batch of one image is skipped if batch norm could not compute statistics of it.

    Args:
        network: Trained in place.
        optimizer: Its optimizer.
        data: Labelled images.
        order: Positions in `data`, int64.
        program: Takes the steps.
        rng: Stream for the augmentation and the mixing.
        check: Called before every batch; an exception from it ends the training.
    """
    device, batch_size = program.normalise.device, program.recipe.batch_size
    if len(order) % batch_size == 1 and len(order) > 1 and network.couples_images:
        order = order[:-1]
    network.train()
    for images, labels in data.batches(_split(order, batch_size), device):
        check()
        program(network, optimizer, images, labels, rng)


def _split(indices: np.ndarray, size: int) -> list[np.ndarray]:
    """Cuts indices into batches of `size`; the last may be smaller."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]


@torch.no_grad()
def count_hits(
    network: Classifier, data: TrainingImages, normalise: Normalise, num_classes: int
) -> tuple[int, ...] | None:
    """Returns how many images of each class a network classifies correctly (top 1), by label.

    None: a logit is not finite; the largest of NaNs is no class.
    """
    network.eval()
    hits_L = torch.zeros(num_classes, dtype=torch.int64, device=normalise.device)
    for images, labels in data.batches(_split(np.arange(len(data)), _EVALUATION_BATCH), normalise.device):
        _, logits = network(normalise(unit(images)))
        if not logits.isfinite().all():
            return None
        hits_L.index_add_(0, labels, (logits.argmax(dim=1) == labels).long())
    return tuple(hits_L.tolist())
