"""Decoding of image files to uint8 (C, H, W) with 1 or 3 channels.

Plain JPEGs (greyscale or YCbCr) are decoded by libjpeg-turbo and resized by torch's antialiased bilinear resize of
uint8 tensors, in half the time of Pillow. Pillow decodes all others, and damaged ones.

Treatment of special cases:
- EXIF orientation: applied. A damaged EXIF block is ignored.
- Palette, CMYK, YCbCr, 1 bit: converted to RGB (or greyscale) by Pillow's formulas, without ICC profiles.
- Transparency: composed over white, as in a viewer.
- More than 8 bits: the range of the file's tags, else the given one, is scaled to 0..255, see `deep.py`. Floating-point
  pixels have no range: unreadable.
- White-is-zero TIFFs are inverted.
- Several frames: the first.
- More pixels than `PIL.Image.MAX_IMAGE_PIXELS` (a decompression bomb): unreadable.

Pillow uses 4 bytes per colour pixel, so the largest image has 358 MB. Conversions work strip by strip, and no step
holds more than its input and its output; docs/explanation/ingest.md gives the peak memory.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from dream_ray.data.arrays import UInt8Array
from dream_ray.data.decoding.deep import UnclearPixels, deep_pixels, in_8_bits, rawmode
from dream_ray.data.decoding.jpeg import decode_plain_jpeg, has_exif, is_damage, plain_jpeg_pixels

# Other formats of Pillow start programs (EPS) or contain no photographs. Some builds of Pillow lack the last three, and
# the package pillow-heif brings HEIF.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "ICO", "AVIF", "JPEG2000", "HEIF")
# Begin and first bytes -> format and decoder, of formats that some machines cannot read.
_BUILD, _CONVERT = "install a build of Pillow that has it", "convert it to PNG"
_TIFF = "a TIFF file that is damaged or has unusual samples"
_DECODERS: dict[tuple[int, bytes], tuple[str, str]] = {
    **{
        (4, b"ftyp" + brand): ("HEIF", "pip install pillow-heif")
        for brand in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
    },
    **{(4, b"ftyp" + brand): ("AVIF", _BUILD) for brand in (b"avif", b"avis")},
    (0, b"\x00\x00\x00\x0cjP  \r\n\x87\n"): ("JPEG 2000", _BUILD),
    (0, b"\xff\x4f\xff\x51"): ("JPEG 2000", _BUILD),
    **dict.fromkeys(((0, b"\xff\x0a"), (0, b"\x00\x00\x00\x0cJXL \r\n\x87\n")), ("JPEG XL", _CONVERT)),
    **dict.fromkeys(((0, b"II*\x00"), (0, b"MM\x00*")), (_TIFF, _CONVERT)),
}
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_MODES = {1: "L", 3: "RGB"}
_STRIP_PIXELS = 1 << 20
_ORIENTATION = 0x0112
_H, _W = 1, 2
# EXIF orientation -> whether to transpose rows and columns, then the axes of (C, H, W) to reverse.
_TURNS: dict[int, tuple[bool, tuple[int, ...]]] = {
    2: (False, (_W,)),
    3: (False, (_H, _W)),
    4: (False, (_H,)),
    5: (True, ()),
    6: (True, (_W,)),
    7: (True, (_H, _W)),
    8: (True, (_H,)),
}


class UnreadableImage(Exception):  # noqa: N818 - it names a finding about the data, which ingest lists
    """The bytes are not a usable image; the message is the reason."""


def decode(data: bytes, *, channels: int, size: int | None, pixel_range: int | None = None) -> UInt8Array:
    """Decodes an image file.

    Args:
        data: Content of a JPEG, PNG, BMP, GIF, TIFF, WebP, PNM or ICO file; AVIF, JPEG 2000 and HEIF if there is a
            decoder.
        channels: 1 for greyscale (ITU-R 601 luma), 3 for RGB.
        size: Side of the result, see `fit`; None keeps the image's own.
        pixel_range: Largest value of pixels of more than 8 bits; None: 65535, for pixels that need all 16 bits.

    Returns:
        (channels, H, W) uint8.

    Raises:
        UnreadableImage: For any defect of the bytes.
    """
    if not data:
        raise UnreadableImage("it is empty (0 bytes)")
    try:
        orientation = _plain_jpeg_orientation(data)
        if orientation is not None:
            try:
                return _decode_jpeg(data, channels, size, orientation)
            except ValueError as error:
                if is_damage(error):
                    raise UnreadableImage(f"its pixels are damaged: {error}") from None
                # Pillow may still read it, or reports the defect.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Without a name for the loaded image, which is as large as the result, it is freed before the next step.
            return _finish(_plain(_load(data, pixel_range)), channels, size)
    except UnreadableImage:
        raise
    except UnclearPixels as reason:
        raise UnreadableImage(str(reason)) from None
    except UnidentifiedImageError:
        raise UnreadableImage(_why_unidentified(data)) from None
    except Exception as error:
        # Pillow raises many kinds of exception for damaged bytes, and none of them may end an ingest.
        raise UnreadableImage(f"{type(error).__name__}: {error}") from None


def pixels_of(image: Image.Image, *, channels: int, size: int | None) -> UInt8Array:
    """Converts an image that Pillow has decoded; arguments, result and errors as for `decode`."""
    return _finish(_plain(image), channels, size)


def fit(image: Image.Image, size: int) -> Image.Image:
    """Resizes the shorter side to `size` (bilinear, antialiased), then crops the centre, size x size.

    Raises:
        UnreadableImage: If the result would be a decompression bomb, because the image is too elongated.
    """
    width, height = _resized(image.width, image.height, size)
    resized = image if (width, height) == image.size else image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return resized.crop((left, top, left + size, top + size))


def is_bomb(num_pixels: int) -> bool:
    """Tells whether an image has more pixels than Pillow's limit, which a program may change."""
    return Image.MAX_IMAGE_PIXELS is not None and num_pixels > Image.MAX_IMAGE_PIXELS


def _resized(width: int, height: int, size: int) -> tuple[int, int]:
    shorter = min(width, height)
    new_width, new_height = (max(size, size * side // shorter) for side in (width, height))
    if is_bomb(new_width * new_height):
        raise UnreadableImage(f"{width} x {height} is too elongated to be resized to {size}")
    return new_width, new_height


def _plain_jpeg_orientation(data: bytes) -> int | None:
    """Returns the EXIF orientation (1: upright) of a plain JPEG; None if Pillow must decode it."""
    pixels = plain_jpeg_pixels(data)
    if pixels is None or is_bomb(pixels):
        return None
    if not has_exif(data):
        return 1
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=("JPEG",)) as file:
            warnings.simplefilter("ignore")
            return int(file.getexif().get(_ORIENTATION, 1))
    except Exception:  # as in `_upright`; the slow path does not turn such an image
        return None


def _decode_jpeg(data: bytes, channels: int, size: int | None, orientation: int) -> UInt8Array:
    pixels_HWC = decode_plain_jpeg(data, channels=channels)
    if size is None:
        return np.ascontiguousarray(_turn(pixels_HWC.transpose(2, 0, 1), orientation))
    import torch
    from torch.nn import functional as F

    image_CHW = torch.from_numpy(pixels_HWC).permute(2, 0, 1)
    height, width = pixels_HWC.shape[:2]
    new_width, new_height = _resized(width, height, size)
    if (new_width, new_height) != (width, height):
        image_CHW = F.interpolate(image_CHW[None], (new_height, new_width), mode="bilinear", antialias=True)[0]
    # Turned after the resize, which is faster, but before the crop, whose offset is rounded.
    image_CHW = torch.from_numpy(_turn(image_CHW.numpy(), orientation))
    left, top = (round((side - size) / 2) for side in (image_CHW.shape[2], image_CHW.shape[1]))
    pixels_CHW: UInt8Array = image_CHW[:, top : top + size, left : left + size].contiguous().numpy()
    return pixels_CHW


def _turn(image_CHW: UInt8Array, orientation: int) -> UInt8Array:
    """Turns an image of an EXIF orientation upright; unknown orientations are ignored."""
    if orientation not in _TURNS:
        return image_CHW
    transposed, reversed_axes = _TURNS[orientation]
    turned = image_CHW.transpose(0, 2, 1) if transposed else image_CHW
    return np.ascontiguousarray(np.flip(turned, reversed_axes))


def largest_sample(data: bytes) -> int | None:
    """Returns the largest value of an image of more than 8 bits whose range its tags do not say; None for others."""
    with warnings.catch_warnings(), suppress(Exception), Image.open(io.BytesIO(data), formats=_formats()) as file:
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        pixels = deep_pixels(file, data)
        if pixels is not None and pixels.largest is None:
            return pixels.largest_sample
    return None


def _load(data: bytes, pixel_range: int | None) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=_formats()) as file:
        pixels = deep_pixels(file, data)
        if pixels is None:
            transparent = _transparent_bmp(file, data)
            file.load()
            return transparent or _upright(file)
        image = in_8_bits(pixels, pixel_range)
        image.getexif().update(file.getexif())
        return _upright(image)


def _why_unidentified(data: bytes) -> str:
    """Returns why no decoder takes the bytes: they are lost, it is missing, or there is none."""
    if not any(data):
        return f"its {len(data)} bytes are all zero, so the file, or the archive around it, is damaged"
    for (start, first), (name, remedy) in _DECODERS.items():
        if data.startswith(first, start):
            return f"it is {name}, for which no decoder is installed: {remedy}"
    return "it is not an image of a known format"


@cache
def _formats() -> tuple[str, ...]:
    """Returns the formats that can be read here."""
    Image.init()
    with suppress(ImportError):
        import pillow_heif  # type: ignore[import-not-found]

        pillow_heif.register_heif_opener()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _transparent_bmp(file: ImageFile.ImageFile, data: bytes) -> Image.Image | None:
    """Reads a BMP file of 32 bits per pixel whose fourth bytes are alpha; None: another file, or all of them are 0."""
    if file.format != "BMP" or rawmode(file) != "BGRX":
        return None
    tile: Any = file.tile[0]
    _, _, offset, (_, stride, direction) = tile
    image = Image.frombytes("RGBA", file.size, data[offset:], "raw", "BGRA", stride, direction)
    return image if image.getchannel("A").getextrema() != (0, 0) else None


def _upright(image: Image.Image) -> Image.Image:
    try:
        if image.getexif().get(_ORIENTATION) not in _TURNS:
            return image  # Pillow would copy it.
        return ImageOps.exif_transpose(image)
    except Exception:  # The pixels are complete; the EXIF reader raises many kinds of exception.
        return image


def _plain(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise UnreadableImage("its pixels are floating-point numbers of no defined range")
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        return _over_white(image)
    return image if image.mode in _MODES.values() else image.convert("L" if image.mode == "1" else "RGB")


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yields strips of whole rows, from the top, with the number of their first row."""
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _over_white(image: Image.Image) -> Image.Image:
    opaque = Image.new("RGB", image.size)
    for top, strip in _strips(image):
        white = Image.new("RGBA", strip.size, "white")
        opaque.paste(Image.alpha_composite(white, strip.convert("RGBA")).convert("RGB"), (0, top))
    return opaque


def _finish(image: Image.Image, channels: int, size: int | None) -> UInt8Array:
    if image.mode != _MODES[channels]:
        image = image.convert(_MODES[channels])
    if size is not None:
        image = fit(image, size)
    pixels_CHW = np.empty((channels, image.height, image.width), dtype=np.uint8)
    for top, strip in _strips(image):
        pixels_HWC = np.asarray(strip).reshape(strip.height, strip.width, channels)
        pixels_CHW[:, top : top + strip.height] = pixels_HWC.transpose(2, 0, 1)
    return pixels_CHW
