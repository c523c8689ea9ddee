"""Random crops: square ones, which RDED scores and tiles, and those of torchvision's RandomResizedCrop, which augment.

Source of the square ones: RDED (Sun et al., CVPR 2024, arXiv 2312.03526). N square images, M crops of each, C channels,
H = W. A box is (top, left, side) in pixels.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST_AREA = 0.08
"""Of an image: the default of torchvision's RandomResizedCrop, whose draws those of RDED are with ratio 1."""
_RATIO, _TRIES = (3 / 4, 4 / 3), 10


def draw_boxes(num_images: int, num_crops: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """Draws boxes (N, M, 3), int64, for images of a side: uniform in area, from 8 % to all of it, and in position."""
    draws = rng.random((3, num_images, num_crops))
    sides = np.rint(side * np.sqrt(SMALLEST_AREA + (1 - SMALLEST_AREA) * draws[0])).astype(np.int64).clip(min=1)
    tops, lefts = (draws[1:] * (side - sides + 1)).astype(np.int64)
    return np.stack([tops, lefts, sides], axis=2)


def cut(images_NCHW: Tensor, boxes_N3: np.ndarray, side: int) -> Tensor:
    """Cuts one box out of each image and resizes it to (N, C, side, side), bilinear with antialiasing."""
    boxes = zip(images_NCHW, boxes_N3.tolist(), strict=True)
    crops = (image[None, :, top : top + size, left : left + size] for image, (top, left, size) in boxes)
    shape = (side, side)
    return torch.cat([F.interpolate(crop, shape, mode="bilinear", antialias=True) for crop in crops])


def sample_crops(count: int, rng: np.random.Generator, smallest_area: float = SMALLEST_AREA) -> np.ndarray:
    """Draws random resized crops: parts of at least a share of the area, with an aspect ratio of 3:4 to 4:3.

    As in torchvision, area and ratio of a part that does not fit are drawn again. After ten tries, it is the whole
    image.

    Returns:
        Matrices (N, 2, 3), float64, see `warp`.
    """
    area_TN = rng.uniform(smallest_area, 1.0, size=(_TRIES, count))
    ratio_TN = np.exp(rng.uniform(np.log(_RATIO[0]), np.log(_RATIO[1]), size=(_TRIES, count)))
    sides_2TN = np.sqrt([area_TN * ratio_TN, area_TN / ratio_TN])
    fits_TN = (sides_2TN <= 1).all(axis=0)
    first_that_fits_2N = sides_2TN[:, fits_TN.argmax(axis=0), np.arange(count)]
    sides_2N = np.where(fits_TN.any(axis=0), first_that_fits_2N, 1.0)
    matrices_N23 = np.zeros((count, 2, 3))
    for axis, side_N in enumerate(sides_2N):
        matrices_N23[:, axis, axis] = side_N
        matrices_N23[:, axis, 2] = rng.uniform(-1, 1, size=count) * (1 - side_N)
    return matrices_N23


def pad_around(images_NCHW: Tensor, side: int) -> Tensor:
    """Surrounds images with zeros, up to a side."""
    before = (side - images_NCHW.shape[2]) // 2
    after = side - images_NCHW.shape[2] - before
    return F.pad(images_NCHW, (before, after, before, after))
