"""CutMix (Yun et al., ICCV 2019, arXiv 1905.04899): a box of every image comes from another image of the batch."""

from dataclasses import dataclass

import numpy as np
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


def cutmix(images_NCHW: Tensor, params: CutMixParams) -> Tensor:
    """Returns a copy of the batch with every image's box replaced by its partner's."""
    partner = to_device(params.partner, images_NCHW.device)
    mixed = images_NCHW.clone()
    box = (slice(None), slice(None), slice(*params.rows), slice(*params.columns))
    mixed[box] = images_NCHW[partner][box]
    return mixed
