"""The training images of a synthetic set: decoded once if they are small, else batch by batch.

L classes of N stored images, C channels, H, W.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dream_ray import storage
from dream_ray.core.images.decode_batch import decode_batch
from dream_ray.core.images.decode_schedule import Origins, decoded_origins
from dream_ray.core.images.synthetic import SyntheticSet
from dream_ray.core.transfer import to_device
from dream_ray.engine.networks.training import TensorImages, TrainingImages

RESIDENT_BYTES = 1 << 30
"""Largest set that is kept in memory: decoded, or else as it is stored, on the device that trains."""


@dataclass(frozen=True)
class StoredImages:
    """Training images that are decoded batch by batch, on the device that trains.

    Attributes:
        images_NCHW: Stored images of all classes, float32, nominally in [0, 1].
        origins: Of every training image.
        labels: Of every training image, int64.
    """

    images_NCHW: Tensor
    origins: Origins
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batches: Sequence[np.ndarray], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """See `TrainingImages.batches`."""
        for indices in batches:
            images = decode_batch(self.images_NCHW, self.origins.take(indices), device)
            yield images, to_device(self.labels[indices], device)

    def on(self, device: torch.device) -> "StoredImages":
        """Returns the images on a device if they are small, else where they are."""
        if self.images_NCHW.nbytes > RESIDENT_BYTES:
            return self
        return StoredImages(self.images_NCHW.to(device), self.origins, self.labels)


def training_images(synthetic: SyntheticSet) -> TrainingImages:
    """Returns the training images of a set, decoded if they take at most `RESIDENT_BYTES`.

    Both forms give equal bits. Decoding every batch again costs time, and decoding a large set costs memory:
    docs/explanation/speed.md has both.
    """
    if 4 * math.prod(synthetic.decoded_shape) <= RESIDENT_BYTES:
        return TensorImages(*synthetic.decoded())
    return stored_images(synthetic)


def stored_images(synthetic: SyntheticSet) -> StoredImages:
    """Returns the training images of a set, decoded batch by batch."""
    num_classes, ipc, *shape_CHW = synthetic.images_LNCHW.shape
    origins = decoded_origins(num_classes, ipc, synthetic.factor, synthetic.decode_mode, synthetic.decode_bound)
    images_LNCHW = synthetic.images_LNCHW
    if not isinstance(images_LNCHW, Tensor):
        by_class = (images_LNCHW[label].numpy() for label in range(num_classes))
        images_LNCHW = torch.from_numpy(storage.in_one_array(by_class, images_LNCHW.shape, np.dtype("<f4")))
    return StoredImages(images_LNCHW.reshape(-1, *shape_CHW), origins, synthetic.labels().numpy())
