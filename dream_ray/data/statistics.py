"""Per-channel mean and standard deviation from exact integer sums, which merge in any order to the same bits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from dream_ray.data.images import UInt8Array

_FULL_SCALE = 255


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
        """Returns the sums over a uint8 image of less than 10^11 pixels: float64 holds them exactly."""
        channels, height, width = image_CHW.shape
        values = image_CHW.reshape(channels, -1).astype(np.float64)
        squares = tuple(int(channel @ channel) for channel in values)
        return cls(height * width, tuple(map(int, values.sum(axis=1))), squares)

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
