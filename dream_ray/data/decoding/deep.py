"""Pixels of more than 8 bits: their samples, their range and their polarity.

A container of 16 bits may hold 10, 12 or 14 bits of a camera or scanner, and only few formats say how many. Pillow
keeps all bits of grey images. Of colours and of grey with alpha it keeps the upper byte. So PNG files are read by
torchvision, and TIFF files twice, the second time for the lower bytes.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, TiffImagePlugin

from dream_ray.data.arrays import UInt8Array

RANGES = (255, 1023, 4095, 16383, 65535)
"""Largest values of 8, 10, 12, 14 and 16 bits."""
_FULL = RANGES[-1]
_STRIP_ROWS_OF_PIXELS = 1 << 20
_BYTE = 8
_REMEDY = "convert it to PNG"
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 258, 262, 284, 339
_MAX_SAMPLE_VALUES = (281, 341)
_WHITE_IS_ZERO, _CMYK, _SEPARATE, _SIGNED = 0, 5, 2, 2
_JPEG2000_HEAD = b"\xff\x4f\xff\x51"  # the marker of the begin, and that of the sizes
_ALPHA_CHANNELS = (2, 4)
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
# The order of the bytes that makes Pillow keep the lower one; 16N is that of this machine, see sys.byteorder.
_OTHER_ORDER = {"16L": "16B", "16B": "16L", "16N": "16B"}
# Pillow opens this kind with the other byte order only.
TiffImagePlugin.OPEN_INFO.setdefault((b"MM", _WHITE_IS_ZERO, (1,), 1, (16,), ()), ("I;16B", "I;16B"))


class UnclearPixels(Exception):  # noqa: N818 - it names a finding about the pixels
    """The range of the pixels is not known or not that which was given, or Pillow misreads them; with the reason."""


@dataclass(frozen=True)
class DeepPixels:
    """The pixels of an image of more than 8 bits.

    Attributes:
        samples_HWC: Integers; grey, grey with alpha, RGB or RGBA. The alpha channel uses all 16 bits.
        largest: Largest value of the range by the tags of the file; None: they do not say.
        white_is_zero: Whether 0 is white.
    """

    samples_HWC: npt.NDArray[Any]
    largest: int | None = None
    white_is_zero: bool = False

    @property
    def largest_sample(self) -> int:
        """Largest value of a pixel, without alpha."""
        channels = self.samples_HWC.shape[2]
        return int(self.samples_HWC[..., : channels - (channels in _ALPHA_CHANNELS)].max())


def deep_pixels(file: ImageFile.ImageFile, data: bytes) -> DeepPixels | None:
    """Returns the pixels of an opened image if they have more than 8 bits.

    Args:
        file: Opened, but not loaded.
        data: Content of its file.

    Raises:
        UnclearPixels: If Pillow reads other pixels than the file has, without an error.
    """
    tags = getattr(file, "tag_v2", {})
    _check_tags(tags)
    if file.format == "JPEG2000" and len(file.getbands()) > 1 and _jpeg2000_bits(data) > _BYTE:
        raise UnclearPixels(
            f"its colours have {_jpeg2000_bits(data)} bits, whose white Pillow reads as black: {_REMEDY}"
        )
    if file.mode.startswith("I"):
        white_is_zero = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        return DeepPixels(np.asarray(file)[..., None], _largest(file, tags), white_is_zero)
    if ";16" not in rawmode(file):
        return None
    if file.format == "PNG":
        return DeepPixels(_png(data))
    # In place, because a large image would be in memory several times.
    samples_HWC = np.asarray(file).astype(np.uint16)
    samples_HWC <<= 8
    with Image.open(io.BytesIO(data), formats=("TIFF",)) as again:
        again.tile = [_with_other_order(tile) for tile in again.tile]
        samples_HWC |= np.asarray(again)
    return DeepPixels(samples_HWC, _largest(file, tags))


def in_8_bits(pixels: DeepPixels, largest: int | None) -> Image.Image:
    """Scales pixels to 0..255, rounded; alpha from 16 bits.

    Args:
        pixels: The pixels.
        largest: Largest value of their range if the tags do not say; None: 65535, for pixels that need 16 bits.

    Raises:
        UnclearPixels: If pixels lie outside the range, or its largest value is not known.
    """
    found, lowest = pixels.largest_sample, int(pixels.samples_HWC.min())
    if lowest < 0 or found > _FULL:
        raise UnclearPixels(f"its pixels lie in {lowest}..{found}, which is not 16 bit")
    top = pixels.largest or largest or (_FULL if found > RANGES[-2] else None)
    if top is None:
        raise UnclearPixels(f"its 16-bit pixels reach only {found}, and nothing says their range: give --pixel-range")
    if found > top:
        raise UnclearPixels(f"its pixels reach {found}, above the pixel range of {top}: give a larger --pixel-range")
    height, width, channels = pixels.samples_HWC.shape
    scaled_HWC: UInt8Array = np.empty((height, width, channels), dtype=np.uint8)
    tops = np.full(channels, top, dtype=np.uint32)
    if channels in _ALPHA_CHANNELS:
        tops[-1] = _FULL
    rows = max(1, _STRIP_ROWS_OF_PIXELS // width)
    for start in range(0, height, rows):
        values = pixels.samples_HWC[start : start + rows].astype(np.uint32)
        scaled_HWC[start : start + rows] = (values * 255 + tops // 2) // tops
    if pixels.white_is_zero:
        np.subtract(255, scaled_HWC, out=scaled_HWC)
    return Image.fromarray(scaled_HWC[..., 0] if channels == 1 else scaled_HWC, _MODES[channels])


def rawmode(file: ImageFile.ImageFile) -> str:
    """Returns how Pillow unpacks the bytes of an image, such as "RGB;16B"; empty if it does not say."""
    if not file.tile:
        return ""
    arguments: Any = file.tile[0][3]
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _with_other_order(tile: Any) -> Any:
    codec, extents, offset, (packed, *others) = tile
    mode, _, order = packed.partition(";")
    return type(tile)(codec, extents, offset, (f"{mode};{_OTHER_ORDER[order]}", *others))


def _check_tags(tags: Any) -> None:
    """Raises UnclearPixels for the tags of TIFF files that Pillow misreads without an error."""
    bits = max(tags.get(_BITS_PER_SAMPLE, (_BYTE,)))
    if bits <= 2 * _BYTE and _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
        raise UnclearPixels("its samples are signed integers of no defined range: convert them to unsigned ones")
    if bits > _BYTE and tags.get(_PLANES) == _SEPARATE and len(tags[_BITS_PER_SAMPLE]) > 1:
        raise UnclearPixels(f"its colours of {bits} bits lie in planes: {_REMEDY}")
    if bits > _BYTE and tags.get(_PHOTOMETRIC) == _CMYK:
        raise UnclearPixels(f"its CMYK colours have {bits} bits: {_REMEDY}")


def _jpeg2000_bits(data: bytes) -> int:
    """Returns the bits of the first component of a JPEG 2000 file."""
    # After the markers: 36 bytes of lengths and sizes, the number of components, then a byte of sign and bits - 1.
    position = data.find(_JPEG2000_HEAD) + len(_JPEG2000_HEAD) + 38
    return (data[position] & 0x7F) + 1


def _png(data: bytes) -> npt.NDArray[Any]:
    import torch
    from torchvision.io import ImageReadMode, decode_png

    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    samples: npt.NDArray[Any] = decode_png(encoded, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
    return samples


def _largest(file: Image.Image, tags: Any) -> int | None:
    """Returns the largest value that the tags of a file state."""
    if file.format == "PPM":
        return _FULL  # Pillow has scaled it from the range of the header.
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    if 8 < bits < 16:
        return int(2**bits - 1)
    stated = (tags.get(tag) for tag in _MAX_SAMPLE_VALUES)
    values = (value[0] if isinstance(value, tuple) else value for value in stated)
    # Some programs write the largest value of the image there, which is no range.
    return next((int(value) for value in values if value in RANGES), None)
