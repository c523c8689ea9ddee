"""Multi-formation, image by image: decodes the images of a batch without the rest of the set.

N stored images, C channels, side H = W; M decoded images, B images of a batch.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dream_ray.core.images.multiformation import decode_schedule, tile_side
from dream_ray.core.transfer import to_device


class Origins(NamedTuple):
    """The origin of each of some decoded images; int64 arrays of equal length.

    Attributes:
        factor: Factor that decodes the image.
        tile: Number of the tile, row-major.
        stored: Number of the stored image.
    """

    factor: np.ndarray
    tile: np.ndarray
    stored: np.ndarray

    def take(self, chosen: np.ndarray) -> "Origins":
        """Returns the origins of the images with some numbers."""
        return Origins(self.factor[chosen], self.tile[chosen], self.stored[chosen])


def decoded_origins(num_classes: int, num_stored: int, factor: int, mode: str, bound: int) -> Origins:
    """Returns the origins of all decoded images, class by class, and within a class in the order of `decode`.

    Args:
        num_classes: Number of classes.
        num_stored: Stored images of a class; those of all classes are numbered class by class.
        factor: As for `decode`.
        mode: As for `decode`.
        bound: As for `decode`.
    """
    of_class = []
    for f, stored in decode_schedule(num_stored, factor, mode, bound):
        tiles_M = np.repeat(np.arange(f**2), len(stored))
        of_class.append(
            np.stack([np.full_like(tiles_M, f), tiles_M, np.tile(np.arange(stored.start, stored.stop), f**2)])
        )
    factors_M, tiles_M, stored_M = np.concatenate(of_class, axis=1)
    first_L1 = num_stored * np.arange(num_classes)[:, None]
    return Origins(np.tile(factors_M, num_classes), np.tile(tiles_M, num_classes), (first_L1 + stored_M).reshape(-1))


def decode_batch(images_NCHW: Tensor, origins: Origins, device: torch.device) -> Tensor:
    """Decodes some images; the bits are those of `decode` on the same device.

    Only the tiles of the batch are copied to the device. The host does not wait for it.

    Args:
        images_NCHW: Stored images of all classes, float, on the CPU or on `device`; they may be memory-mapped.
        origins: B decoded images, B >= 1.
        device: Device that decodes.

    Returns:
        (B, C, H, W) images on the device.
    """
    shape_CHW = images_NCHW.shape[1:]
    decoded_BCHW = torch.empty(len(origins.factor), *shape_CHW, dtype=images_NCHW.dtype, device=device)
    for factor in np.unique(origins.factor):
        of_factor = np.flatnonzero(origins.factor == factor)
        by_tile = [of_factor[origins.tile[of_factor] == tile] for tile in np.unique(origins.tile[of_factor])]
        tiles = torch.cat([_cut(images_NCHW, origins.take(chosen)) for chosen in by_tile])
        if tiles.device.type != device.type:
            tiles = to_device(tiles.numpy(), device)
        if factor > 1:
            tiles = F.interpolate(tiles, size=tuple(shape_CHW[1:]), mode="bilinear", align_corners=False)
        decoded_BCHW[to_device(np.concatenate(by_tile), device)] = tiles
    return decoded_BCHW


def _cut(images_NCHW: Tensor, origins: Origins) -> Tensor:
    """Copies tiles with one factor and one position, as `decode_factor` cuts them."""
    factor, tile = int(origins.factor[0]), int(origins.tile[0])
    side = tile_side(images_NCHW.shape[-1], factor)
    top, left = (side * number for number in divmod(tile, factor))
    inside = images_NCHW[:, :, top : top + side, left : left + side]
    tiles = inside[to_device(origins.stored, images_NCHW.device)]
    return F.pad(tiles, (0, side - tiles.shape[-1], 0, side - tiles.shape[-2]), value=0.5)
