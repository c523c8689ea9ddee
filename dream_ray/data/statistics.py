"""Per-channel mean and standard deviation from exact integer sums, which merge in any order to the same bits."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from dream_ray.data.images import UInt8Array

_BLOCK_VALUES = 1 << 22
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
    def of(cls, images_NCHW: UInt8Array) -> "PixelSums":
        """Returns the sums over uint8 images, block by block so that little is widened at a time."""
        num_images, channels, height, width = images_NCHW.shape
        total = cls.zero(channels)
        step = max(1, _BLOCK_VALUES // (channels * height * width))
        for start in range(0, num_images, step):
            wide = images_NCHW[start : start + step].astype(np.uint32)
            sums = wide.sum(axis=(0, 2, 3), dtype=np.uint64)
            squares = np.square(wide, out=wide).sum(axis=(0, 2, 3), dtype=np.uint64)
            total += cls(len(wide) * height * width, tuple(map(int, sums)), tuple(map(int, squares)))
        return total

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
