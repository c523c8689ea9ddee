"""Training a network by SGD: one recipe for network updates while distilling and for evaluation.

N images, C channels, H, W.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dream_ray.core.images.augment import augment, sample_params, warp
from dream_ray.core.images.cutmix import cutmix, sample_cutmix
from dream_ray.core.images.normalisation import Normalise, to_unit
from dream_ray.core.transfer import to_device
from dream_ray.data.store.images import ImageChunks
from dream_ray.nets import Classifier

_EVALUATION_BATCH = 256
_CROP_AREA = (0.5, 1.0)
_CROP_RATIO = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class Recipe:
    """Training recipe of a network.

    Attributes:
        batch_size: Images per SGD step.
        lr: Learning rate.
        momentum: Momentum.
        weight_decay: Weight decay.
        cutmix_probability: Probability that a batch is mixed.
        augmentation: DSA operations, see `parse_strategy`, one draw per image.
        random_resized_crop: Crop a random part of every image and resize it before the augmentation.
    """

    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    cutmix_probability: float
    augmentation: str
    random_resized_crop: bool = False

    def optimizer(self, network: Classifier) -> torch.optim.SGD:
        """Returns the SGD of a network."""
        return torch.optim.SGD(network.parameters(), lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)


class TrainingImages(Protocol):
    """Labelled training images."""

    def __len__(self) -> int: ...

    def batches(self, batches: Sequence[np.ndarray], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the images (n, C, H, W), float32 in [0, 1], and labels (n,), int64, at the indices of every batch."""


@dataclass(frozen=True)
class RealImages:
    """uint8 images of a store.

    Attributes:
        images: Usually memory-mapped.
        labels_N: int64.
    """

    images: ImageChunks
    labels_N: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, batches: Sequence[np.ndarray], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """See `TrainingImages.batches`; encoded images are decoded a batch ahead."""
        for indices, images_NCHW in zip(batches, self.images.batches(batches), strict=True):
            yield to_unit(images_NCHW, device), to_device(self.labels_N[indices], device)


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


class MixedLabels(NamedTuple):
    """Labels of a batch, possibly mixed by CutMix.

    Attributes:
        own_N: Label of every image, int64.
        partner_N: Label of the image whose box was pasted, int64.
        share: Fraction of an image that is its own, a scalar; 1 without mixing.
    """

    own_N: Tensor
    partner_N: Tensor
    share: Tensor


def mixed_cross_entropy(logits_NK: Tensor, labels: MixedLabels) -> Tensor:
    """Returns the mean cross entropy of a batch, a scalar."""
    own, other = F.cross_entropy(logits_NK, labels.own_N), F.cross_entropy(logits_NK, labels.partner_N)
    return own * labels.share + other * (1 - labels.share)


Backward = Callable[[Classifier, Tensor, MixedLabels], None]
"""Computes the gradients of a network in training mode on images (N, C, H, W), and updates its statistics."""


def backward(network: Classifier, images_NCHW: Tensor, labels: MixedLabels) -> None:
    """The eager `Backward`, and the oracle of the compiled one."""
    network.zero_grad(set_to_none=True)
    mixed_cross_entropy(network(images_NCHW)[1], labels).backward()  # type: ignore[no-untyped-call]


def train_step(
    network: Classifier,
    optimizer: torch.optim.Optimizer,
    images_NCHW: Tensor,
    labels_N: Tensor,
    recipe: Recipe,
    rng: np.random.Generator,
    backpropagate: Backward = backward,
) -> None:
    """Takes one SGD step on normalised images, augmented and mixed by the recipe."""
    count, _, height, width = images_NCHW.shape
    if recipe.random_resized_crop:
        images_NCHW = random_resized_crop(images_NCHW, rng)
    params = sample_params(recipe.augmentation, rng, height=height, width=width, num_draws=count)
    images_NCHW = augment(images_NCHW, params)
    mix = sample_cutmix(rng, num_images=count, height=height, width=width, probability=recipe.cutmix_probability)
    partner_labels, share = labels_N, 1.0
    if mix is not None:
        images_NCHW, share = cutmix(images_NCHW, mix), mix.share
        partner_labels = labels_N[to_device(mix.partner, labels_N.device)]
    # Filled on the device: a tensor from a Python number would be copied, and the host would wait.
    share_there = torch.full((), share, device=images_NCHW.device)
    backpropagate(network, images_NCHW, MixedLabels(labels_N, partner_labels, share_there))
    optimizer.step()


def train_pass(
    network: Classifier,
    optimizer: torch.optim.Optimizer,
    data: TrainingImages,
    num_images: int,
    recipe: Recipe,
    normalise: Normalise,
    rng: np.random.Generator,
    backpropagate: Backward = backward,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Trains on `num_images` random images, rounded up to whole batches as in the published code.

    A last batch of one image is skipped if batch norm could not compute statistics of it.

    Args:
        network: Trained in place.
        optimizer: Its optimizer.
        data: Labelled images.
        num_images: Images of the pass, at most `len(data)`.
        recipe: Training recipe.
        normalise: Maps images to network inputs; its device is the network's.
        rng: Stream for the order, the augmentation and the mixing.
        backpropagate: Computes the gradients.
        check: Called before every batch; an exception from it ends the training.
    """
    device = normalise.device
    rounded = -(-num_images // recipe.batch_size) * recipe.batch_size
    order = rng.permutation(len(data))[:rounded]
    if len(order) % recipe.batch_size == 1 and len(order) > 1 and network.couples_images:
        order = order[:-1]
    network.train()
    for images, labels in data.batches(_split(order, recipe.batch_size), device):
        check()
        train_step(network, optimizer, normalise(images), labels, recipe, rng, backpropagate)


def _split(indices: np.ndarray, size: int) -> list[np.ndarray]:
    """Cuts indices into batches of `size`; the last may be smaller."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def random_resized_crop(images_NCHW: Tensor, rng: np.random.Generator) -> Tensor:
    """Cuts a part of 50-100 % of the area and an aspect ratio of 3:4 to 4:3 from every image, resized to full size."""
    count = len(images_NCHW)
    area = rng.uniform(*_CROP_AREA, size=count)
    ratio = np.exp(rng.uniform(np.log(_CROP_RATIO[0]), np.log(_CROP_RATIO[1]), size=count))
    size_x = np.minimum(np.sqrt(area * ratio), 1.0)
    size_y = np.minimum(np.sqrt(area / ratio), 1.0)
    centre_x = rng.uniform(-1, 1, size=count) * (1 - size_x)
    centre_y = rng.uniform(-1, 1, size=count) * (1 - size_y)
    zeros = np.zeros(count)
    theta = [[size_x, zeros, centre_x], [zeros, size_y, centre_y]]
    return warp(images_NCHW, theta, padding_mode="reflection")


@torch.no_grad()
def accuracy(network: Classifier, data: TrainingImages, normalise: Normalise) -> float:
    """Returns the top-1 accuracy in [0, 1]."""
    device = normalise.device
    network.eval()
    correct = 0
    for images, labels in data.batches(_split(np.arange(len(data)), _EVALUATION_BATCH), device):
        _, logits = network(normalise(images))
        correct += int((logits.argmax(dim=1) == labels).sum())
    return correct / len(data)
