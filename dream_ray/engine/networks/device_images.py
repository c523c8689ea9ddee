"""Real uint8 images in the memory of a GPU, so that a batch needs no copy from the host.

N images, C channels, H, W.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from dream_ray.config import Config
from dream_ray.core.transfer import to_device
from dream_ray.data.store.images import ImageChunks

MEGABYTE = 10**6
# Part of a GPU's memory that real images take at most, unless `data.resident_mb` is set.
SHARE_OF_GPU = 8
_IMAGES_PER_COPY = 4096


class DeviceImages:
    """Images of a class, or of all of them, with the interface of `ImageChunks` but tensors as results.

    Args:
        images: Images to copy.
        device: Device of the copy.
    """

    def __init__(self, images: ImageChunks, device: torch.device) -> None:
        self.shape_CHW = images.shape_CHW
        self._images_NCHW = torch.empty(len(images), *images.shape_CHW, dtype=torch.uint8, device=device)
        parts = np.split(np.arange(len(images)), range(_IMAGES_PER_COPY, len(images), _IMAGES_PER_COPY))
        for part, pixels in zip(parts, images.batches(parts), strict=True):
            self._images_NCHW[part[0] : part[-1] + 1].copy_(to_device(pixels, device))

    def __len__(self) -> int:
        return len(self._images_NCHW)

    def take(self, indices: np.ndarray) -> Tensor:
        """Returns the images (n, C, H, W) at some positions, int64, in their order; consecutive ones without a copy."""
        if len(indices) and (np.diff(indices) == 1).all():
            return self._images_NCHW[indices[0] : indices[-1] + 1]
        return self._images_NCHW.index_select(0, to_device(indices, self._images_NCHW.device))

    def batches(self, batches: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """Yields the images at the positions of each batch."""
        return map(self.take, batches)


RealPixels = ImageChunks | DeviceImages
"""uint8 images of a store, on the host or on the device that computes."""


def resident_bytes(config: Config, device: torch.device) -> int:
    """Returns how many bytes of real images a worker may keep in the memory of its device."""
    if config.data.resident_mb is not None:
        return config.data.resident_mb * MEGABYTE
    if device.type == "cpu":
        return 0
    return int(torch.cuda.get_device_properties(device).total_memory) // SHARE_OF_GPU


def resident(images: ImageChunks, device: torch.device) -> RealPixels:
    """Returns a copy of images in the memory of a device."""
    return images.resident() if device.type == "cpu" else DeviceImages(images, device)
