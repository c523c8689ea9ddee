"""Multi-formation, image by image: decodes the images of a batch without the rest of the set.

N stored images, C channels, side H = W; M decoded images, B images of a batch.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dream_ray.core.images.decode_schedule import Origins, tile_side
from dream_ray.core.transfer import to_device


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
