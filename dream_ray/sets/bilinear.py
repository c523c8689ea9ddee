"""Decoding of mosaics with NumPy: the images of `core.images.multiformation.decode`.

N stored images, C channels, side H = W, factor f; M decoded images.
"""

import numpy as np

from dream_ray.core.images.decode_schedule import decode_schedule, tile_side
from dream_ray.data.arrays import Float32Array


def decode(images_NCHW: Float32Array, factor: int, mode: str, bound: int) -> Float32Array:
    """Decodes stored images into training images; arguments and order as for `multiformation.decode`.

    Values differ from those of PyTorch by the rounding of float32.
    """
    parts = [
        _decode_factor(images_NCHW[stored.start : stored.stop], f)
        for f, stored in decode_schedule(len(images_NCHW), factor, mode, bound)
    ]
    return np.concatenate(parts)


def _decode_factor(images_NCHW: Float32Array, factor: int) -> Float32Array:
    """Cuts every image into factor^2 tiles, padded with 0.5, and upsamples each to the full size."""
    if factor == 1:
        return images_NCHW
    n, channels, height, width = images_NCHW.shape
    side = tile_side(height, factor)
    missing = side * factor - height
    padded = np.pad(images_NCHW, ((0, 0), (0, 0), (0, missing), (0, missing)), constant_values=0.5)
    tiles = padded.reshape(n, channels, factor, side, factor, side).transpose(2, 4, 0, 1, 3, 5)
    tiles = tiles.reshape(factor * factor * n, channels, side, side)
    upsampled: Float32Array = _weights(height, side) @ tiles @ _weights(width, side).T
    return upsampled


def _weights(length: int, side: int) -> Float32Array:
    """Returns the (length, side) matrix that interpolates linearly; pixel centres lie at half integers."""
    positions = np.maximum((np.arange(length) + 0.5) * (side / length) - 0.5, 0.0)
    before = positions.astype(np.int64)
    after = np.minimum(before + 1, side - 1)
    weights = np.zeros((length, side), dtype=np.float32)
    np.add.at(weights, (np.arange(length), before), 1 - (positions - before))
    np.add.at(weights, (np.arange(length), after), positions - before)
    return weights
