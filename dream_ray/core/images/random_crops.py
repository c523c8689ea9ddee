"""Random square crops, as RDED scores and tiles them (Sun et al., CVPR 2024, arXiv 2312.03526).

N square images, M crops of each, C channels, H = W. A box is (top, left, side) in pixels.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_SMALLEST_AREA = 0.08
"""Of an image: the default of torchvision's RandomResizedCrop, whose draws these are with ratio 1."""


def draw_boxes(num_images: int, num_crops: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """Draws boxes (N, M, 3), int64, for images of a side: uniform in area, from 8 % to all of it, and in position."""
    draws = rng.random((3, num_images, num_crops))
    sides = np.rint(side * np.sqrt(_SMALLEST_AREA + (1 - _SMALLEST_AREA) * draws[0])).astype(np.int64).clip(min=1)
    tops, lefts = (draws[1:] * (side - sides + 1)).astype(np.int64)
    return np.stack([tops, lefts, sides], axis=2)


def cut(images_NCHW: Tensor, boxes_N3: np.ndarray, side: int) -> Tensor:
    """Cuts one box out of each image and resizes it to (N, C, side, side), bilinear with antialiasing."""
    boxes = zip(images_NCHW, boxes_N3.tolist(), strict=True)
    crops = (image[None, :, top : top + size, left : left + size] for image, (top, left, size) in boxes)
    shape = (side, side)
    return torch.cat([F.interpolate(crop, shape, mode="bilinear", antialias=True) for crop in crops])


def pad_around(images_NCHW: Tensor, side: int) -> Tensor:
    """Surrounds images with zeros, up to a side."""
    before = (side - images_NCHW.shape[2]) // 2
    after = side - images_NCHW.shape[2] - before
    return F.pad(images_NCHW, (before, after, before, after))
