"""Array types of images and of their indices, and images in 8 bits."""

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]


def eight_bits(images: Float32Array) -> UInt8Array:
    """Returns images in [0, 1] as uint8: clamped, times 255, rounded half to even."""
    rounded: UInt8Array = (images.clip(0, 1) * np.float32(255)).round().astype(np.uint8)
    return rounded
