"""CutMix (Yun et al., ICCV 2019, arXiv 1905.04899): a box of every image comes from another image of the batch."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dream_ray.core.transfer import to_device


@dataclass(frozen=True)
class CutMixParams:
    """One draw for a batch of N images.

    Attributes:
        partner: (N,) permutation; image i receives its box from image partner[i].
        rows: First and last (exclusive) row of the box in pixels.
        columns: First and last (exclusive) column of the box in pixels.
        share: Fraction of each image that stays its own, the weight of its own label.
    """

    partner: np.ndarray
    rows: tuple[int, int]
    columns: tuple[int, int]
    share: float


def sample_cutmix(
    rng: np.random.Generator, *, num_images: int, height: int, width: int, probability: float
) -> CutMixParams | None:
    """Draws a box with lambda ~ Beta(1, 1), or None with probability 1 - `probability`."""
    if rng.random() >= probability:
        return None
    cut = np.sqrt(1.0 - rng.beta(1.0, 1.0))
    centre_row, centre_column = int(rng.integers(height)), int(rng.integers(width))
    half_rows, half_columns = int(height * cut) // 2, int(width * cut) // 2
    rows = (max(centre_row - half_rows, 0), min(centre_row + half_rows, height))
    columns = (max(centre_column - half_columns, 0), min(centre_column + half_columns, width))
    area = (rows[1] - rows[0]) * (columns[1] - columns[0])
    return CutMixParams(rng.permutation(num_images), rows, columns, 1.0 - area / (height * width))


def mix_of(params: CutMixParams | None, num_images: int, device: torch.device) -> Tensor:
    """Moves a draw to the device, in one copy.

    Returns:
        (N + 5,) float32: the partners, first and last (exclusive) row, first and last column, and the share. Without a
        draw, the box is empty and the share 1.
    """
    draw = params or CutMixParams(np.arange(num_images), (0, 0), (0, 0), 1.0)
    return to_device(np.array([*draw.partner, *draw.rows, *draw.columns, draw.share]), device, torch.float32)


def cutmix(images_NCHW: Tensor, mix: Tensor) -> Tensor:
    """Returns the batch with every image's box replaced by its partner's; `mix` is that of `mix_of`."""
    count, _, height, width = images_NCHW.shape
    top, bottom, left, right = mix[count : count + 4].unbind()
    rows, columns = (torch.arange(side, device=mix.device) for side in (height, width))
    is_row, is_column = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    return torch.where(is_row[:, None] & is_column, images_NCHW[mix[:count].long()], images_NCHW)
