"""Which tiles of which stored images a set decodes into, without pixels; imports no PyTorch.

Source: IDC (Kim et al., ICML 2022, arXiv 2205.14959), section 4. N stored, M decoded images, side H = W, factor f.
Decoded images are ordered tile by tile (row-major), and within a tile by stored image.
"""

import math
from typing import NamedTuple

import numpy as np

DECODE_MODES = ("single", "multi", "bound")


def tile_side(side: int, factor: int) -> int:
    """Returns the side of one tile in pixels, ceil(side / factor)."""
    return math.ceil(side / factor)


def fills_every_tile(side: int, factor: int) -> bool:
    """Returns whether each tile contains a part of the image; otherwise the last tiles are padding only."""
    return (factor - 1) * tile_side(side, factor) < side


def bound_schedule(num_stored: int, factor: int, bound: int) -> list[tuple[int, range]]:
    """Splits stored images over factors so that the decoded count stays within `bound`.

    IDC's rule: from the largest factor down, each factor decodes as many images as fit if all others count once; factor
    1 takes the rest. The rule is not optimal: sometimes one more image would fit.

    Returns:
        [(factor, consecutive stored images)], from the largest factor down; together all images.
    """
    schedule = []
    first, decoded = 0, 0
    for f in range(factor, 0, -1):
        remaining = num_stored - first
        free = bound - decoded - remaining
        count = remaining if f == 1 else max(0, min(free // f**2, remaining))
        schedule.append((f, range(first, first + count)))
        first += count
        decoded += count * f**2
        if first == num_stored:
            break
    return schedule


def decode_schedule(num_stored: int, factor: int, mode: str, bound: int) -> list[tuple[int, range]]:
    """Returns [(factor, stored images that it decodes)] in the order of `decode`, whose arguments it takes."""
    if mode == "bound":
        return bound_schedule(num_stored, factor, bound)
    assert mode in DECODE_MODES, mode
    return [(f, range(num_stored)) for f in range(factor if mode == "single" else 1, factor + 1)]


def decoded_factors(num_stored: int, factor: int, mode: str, bound: int) -> list[int]:
    """Returns the factors that `decode` uses, ascending."""
    return sorted(f for f, stored in decode_schedule(num_stored, factor, mode, bound) if stored)


def decoded_count(num_stored: int, factor: int, mode: str, bound: int) -> int:
    """Returns the number of training images that `decode` returns for `num_stored` images."""
    return sum(len(stored) * f**2 for f, stored in decode_schedule(num_stored, factor, mode, bound))


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
