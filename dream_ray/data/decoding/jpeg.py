"""JPEG decoding and encoding by libjpeg-turbo, the fastest decoder of docs/explanation/ingest.md."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from dream_ray.data.arrays import UInt8Array

try:
    import simplejpeg
except ModuleNotFoundError:  # A machine lent for measurements may lack it: Pillow then decodes.
    simplejpeg = None

QUALITY = 95
"""JPEG quality of stores with encoding `jpeg`."""
# A marker is FF and another byte; more FF may precede it.
_FILL = re.compile(rb"\xff+")
_START_OF_SCAN = b"\xda"
_END_OF_IMAGE = "0xd9"
_COLOURS = {1: "GRAY", 3: "RGB"}


def plain_jpeg_pixels(data: bytes) -> int | None:
    """Returns the number of pixels of a greyscale or YCbCr JPEG; None for other bytes, or without simplejpeg."""
    if data[:2] != b"\xff\xd8" or simplejpeg is None:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return int(height * width) if colours in ("Gray", "YCbCr") else None


def has_exif(data: bytes) -> bool:
    """Tells whether a JPEG has an EXIF segment before its pixels."""
    start = 2
    while (fill := _FILL.match(data, start)) and data[fill.end() : fill.end() + 1] != _START_OF_SCAN:
        start = fill.end() + 1
        if data[start + 2 : start + 8] == b"Exif\x00\x00":
            return True
        start += int.from_bytes(data[start : start + 2], "big")
    return False


def decode_plain_jpeg(data: Any, *, channels: int, into: UInt8Array | None = None) -> UInt8Array:
    """Decodes a greyscale or YCbCr JPEG.

    Args:
        data: Its bytes.
        channels: 1 or 3.
        into: Memory for the pixels, contiguous and large enough; None: new memory.

    Returns:
        (H, W, channels) uint8, in `into` if it is given.

    Raises:
        ValueError: For any defect.
    """
    pixels_HWC: UInt8Array = simplejpeg.decode_jpeg(data, _COLOURS[channels], buffer=into)
    return pixels_HWC


def is_damage(error: ValueError) -> bool:
    """Tells whether an error of `decode_plain_jpeg` means damaged pixels.

    libjpeg-turbo fills in unreadable pixels and only warns. Extra bytes before the end mark damage no pixels.
    """
    reason = str(error)
    extraneous = "extraneous bytes before marker" in reason and not reason.endswith(_END_OF_IMAGE)
    return extraneous or "remature end" in reason or "bad Huffman code" in reason


def encode_jpeg(image_CHW: UInt8Array) -> bytes:
    """Encodes an image with 1 or 3 channels; colours at half resolution, as usual for photographs."""
    image_HWC = np.ascontiguousarray(image_CHW.transpose(1, 2, 0))
    encoded: bytes = simplejpeg.encode_jpeg(image_HWC, QUALITY, _COLOURS[len(image_CHW)], "420")
    return encoded


def decode_jpegs(encoded: Sequence[Any], shape_CHW: Sequence[int]) -> UInt8Array:
    """Decodes images of `encode_jpeg`.

    Args:
        encoded: n buffers of JPEG bytes.
        shape_CHW: Shape of every image.

    Returns:
        (n, C, H, W) uint8.

    Raises:
        ValueError: For any defect.
    """
    channels, height, width = shape_CHW
    images_NCHW: UInt8Array = np.empty((len(encoded), *shape_CHW), dtype=np.uint8)
    # New memory for every image would cost page faults, for which threads wait on each other.
    decoded_HWC: UInt8Array = np.empty((height, width, channels), dtype=np.uint8)
    for image_CHW, data in zip(images_NCHW, encoded, strict=True):
        seen_CHW = decode_plain_jpeg(data, channels=channels, into=decoded_HWC).transpose(2, 0, 1)
        if seen_CHW.shape != image_CHW.shape:
            raise ValueError(f"an image has shape {seen_CHW.shape}, not {image_CHW.shape}")
        image_CHW[...] = seen_CHW
    return images_NCHW
