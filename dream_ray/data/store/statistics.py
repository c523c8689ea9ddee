"""Per-channel mean and standard deviation from exact integer sums, whose merge order does not change the bits."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from dream_ray.data.arrays import UInt8Array

_FULL_SCALE = 255
# float32 represents integers up to 2^24, the sum of this many squares of 255, in any order of addition.
_BLOCK = 256
# This many float32 values stay in a processor's cache; several small images share one call.
_CACHED_VALUES = 1 << 16


@dataclass(frozen=True)
class PixelSums:
    """Sums over pixels; a monoid under `+`.

    Attributes:
        num_pixels: Number of pixels per channel.
        sums: Sum of the values 0..255, one per channel.
        squares: Sum of their squares, one per channel.
    """

    num_pixels: int
    sums: tuple[int, ...]
    squares: tuple[int, ...]

    @classmethod
    def zero(cls, channels: int) -> "PixelSums":
        """Returns the sums over no pixels."""
        return cls(0, (0,) * channels, (0,) * channels)

    @classmethod
    def of(cls, images_NCHW: UInt8Array) -> "PixelSums":
        """Returns the sums over uint8 images of less than 10^11 pixels each."""
        count, channels, height, width = images_NCHW.shape
        pixels_NCP = images_NCHW.reshape(count, channels, height * width)
        step = max(1, _CACHED_VALUES // (height * width))
        sums, squares = [0] * channels, [0] * channels
        for start in range(0, count, step):
            for channel in range(channels):
                total, square = _exact_sums(pixels_NCP[start : start + step, channel])
                sums[channel] += total
                squares[channel] += square
        return cls(count * height * width, tuple(sums), tuple(squares))

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


def _exact_sums(values_NP: UInt8Array) -> tuple[int, int]:
    """Returns the sum of values, and that of their squares.

    Sums over a block are exact in float32, which takes half the time of float64; sums of blocks are exact in float64.
    """
    floats_V = values_NP.astype(np.float32).reshape(-1)
    whole = len(floats_V) // _BLOCK * _BLOCK
    total = squares = 0
    for floats_BK in (floats_V[:whole].reshape(-1, _BLOCK), floats_V[None, whole:]):
        if floats_BK.size:
            total += int((floats_BK @ np.ones(floats_BK.shape[1], np.float32)).sum(dtype=np.float64))
            # BLAS computes row times column as a dot product.
            squares += int((floats_BK[:, None, :] @ floats_BK[:, :, None]).sum(dtype=np.float64))
    return total, squares
