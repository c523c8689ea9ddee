"""Per-channel mean and standard deviation from exact integer sums, which merge in any order to the same bits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from dream_ray.data.images import UInt8Array

_FULL_SCALE = 255
# float32 holds integers up to 2^24: the sum of as many squares of 255, whatever the order they are added in.
_BLOCK = 256


@dataclass(frozen=True)
class PixelSums:
    """Sums over pixels; a monoid under `+`.

    Attributes:
        num_pixels: Pixels of one channel.
        sums: Sum of the values 0..255, one per channel.
        squares: Sum of their squares, one per channel.
    """

    num_pixels: int
    sums: tuple[int, ...]
    squares: tuple[int, ...]

    @classmethod
    def zero(cls, channels: int) -> "PixelSums":
        """Returns the sums over no pixel."""
        return cls(0, (0,) * channels, (0,) * channels)

    @classmethod
    def of(cls, image_CHW: UInt8Array) -> "PixelSums":
        """Returns the sums over a uint8 image of less than 10^11 pixels."""
        channels, height, width = image_CHW.shape
        # Channel by channel: what is written in between stays in the processor's cache.
        sums, squares = zip(*map(_exact_sums, image_CHW.reshape(channels, -1)), strict=True)
        return cls(height * width, sums, squares)

    @classmethod
    def of_lists(cls, num_pixels: int, sums: Sequence[int], squares: Sequence[int]) -> "PixelSums":
        """Returns sums that were kept as JSON."""
        return cls(num_pixels, tuple(sums), tuple(squares))

    def __add__(self, other: "PixelSums") -> "PixelSums":
        return PixelSums(
            self.num_pixels + other.num_pixels,
            tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)),
            tuple(a + b for a, b in zip(self.squares, other.squares, strict=True)),
        )

    def mean(self) -> tuple[float, ...]:
        """Returns the mean per channel of the pixels scaled to [0, 1]."""
        return tuple(float(Fraction(total, self.num_pixels * _FULL_SCALE)) for total in self.sums)

    def std(self) -> tuple[float, ...]:
        """Returns the population standard deviation per channel of the pixels scaled to [0, 1]."""
        scale = (self.num_pixels * _FULL_SCALE) ** 2
        return tuple(
            math.sqrt(Fraction(self.num_pixels * square - total**2, scale))
            for total, square in zip(self.sums, self.squares, strict=True)
        )


def _exact_sums(values_P: UInt8Array) -> tuple[int, int]:
    """Returns the sum of P values, and that of their squares.

    The sums over a block are exact in float32, which takes half the time of float64; float64 holds those of all blocks.
    """
    whole = len(values_P) // _BLOCK * _BLOCK
    total = squares = 0
    for blocks_BK in (values_P[:whole].reshape(-1, _BLOCK), values_P[None, whole:]):
        if blocks_BK.size:
            floats_BK = blocks_BK.astype(np.float32)
            total += int((floats_BK @ np.ones(floats_BK.shape[1], np.float32)).sum(dtype=np.float64))
            # A row by a column is a dot product to BLAS.
            squares += int((floats_BK[:, None, :] @ floats_BK[:, :, None]).sum(dtype=np.float64))
    return total, squares
