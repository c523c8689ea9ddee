"""Per-channel mean and standard deviation from exact integer sums, whose merge order does not change the bits."""

import math
from fractions import Fraction

import numpy as np

from dream_ray.data.arrays import Int64Array, UInt8Array

_FULL_SCALE = 255
# float32 represents integers up to 2^24, the sum of this many squares of 255, in any order of addition.
_BLOCK = 256
# This many float32 values stay in a processor's cache; several small images share one call.
_CACHED_VALUES = 1 << 16


def pixel_sums(images_NCHW: UInt8Array) -> Int64Array:
    """Sums over the pixels of uint8 images; the sums of several sets of less than 10^14 pixels add up.

    Returns:
        (3, C) int64: number of pixels, sum of the values 0..255, and sum of their squares.
    """
    count, channels, height, width = images_NCHW.shape
    pixels_NCP = images_NCHW.reshape(count, channels, height * width)
    step = max(1, _CACHED_VALUES // (height * width))
    sums_3C = np.zeros((3, channels), dtype=np.int64)
    sums_3C[0] = count * height * width
    for start in range(0, count, step):
        for channel in range(channels):
            sums_3C[1:, channel] += _exact_sums(pixels_NCP[start : start + step, channel])
    return sums_3C


def mean_and_std(sums_3C: Int64Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and population standard deviation per channel of the pixels scaled to [0, 1]; see `pixel_sums`."""
    mean, std = [], []
    for num_pixels, total, squares in sums_3C.T.tolist():
        mean.append(float(Fraction(total, num_pixels * _FULL_SCALE)))
        std.append(math.sqrt(Fraction(num_pixels * squares - total**2, (num_pixels * _FULL_SCALE) ** 2)))
    return tuple(mean), tuple(std)


def _exact_sums(values_NP: UInt8Array) -> tuple[int, int]:
    """Returns the sum of values, and that of their squares.

    Sums over a block are exact in float32, which takes half the time of float64; sums of blocks are exact in float64.
    """
    floats_BK = np.zeros((-(-values_NP.size // _BLOCK), _BLOCK), dtype=np.float32)
    floats_BK.reshape(-1)[: values_NP.size] = values_NP.reshape(-1)
    total = (floats_BK @ np.ones(_BLOCK, np.float32)).sum(dtype=np.float64)
    # BLAS computes row times column as a dot product.
    squares = (floats_BK[:, None, :] @ floats_BK[:, :, None]).sum(dtype=np.float64)
    return int(total), int(squares)
