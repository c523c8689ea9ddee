"""Images as bytes of picture files, without loss."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from dream_ray.data.arrays import UInt8Array
from dream_ray.errors import RunError


@dataclass(frozen=True)
class PictureKind:
    """A lossless kind of picture files.

    Attributes:
        name: Name in Pillow.
        options: Options of `Image.save`.
    """

    name: str
    options: dict[str, Any]


PICTURES = {
    "png": PictureKind("PNG", {"optimize": True}),
    # `exact` keeps the colours below transparent pixels; method 6 is the slowest and smallest.
    "webp": PictureKind("WEBP", {"lossless": True, "exact": True, "method": 6}),
}
"""Kinds by the ends of their files."""
CHANNELS = (1, 3)
"""Numbers of channels that a picture can have: grey and RGB."""


def encode(image_CHW: UInt8Array, kind: str) -> bytes:
    """Returns an image of 1 or 3 channels as the bytes of a file of a kind of `PICTURES`."""
    is_grey = len(image_CHW) == 1
    picture = Image.fromarray(image_CHW[0] if is_grey else np.ascontiguousarray(image_CHW.transpose(1, 2, 0)))
    buffer = io.BytesIO()
    picture.save(buffer, PICTURES[kind].name, **PICTURES[kind].options)
    return buffer.getvalue()


def decode(path: str, data: bytes, shape_CHW: tuple[int, ...]) -> UInt8Array:
    """Returns the image (C, H, W) in the bytes of a picture file.

    Args:
        path: Name of the file, for the error.
        data: Its bytes.
        shape_CHW: Shape that it must have.

    Raises:
        RunError: If it cannot be read or has another shape.
    """
    kinds = [kind.name for kind in PICTURES.values()]
    try:
        with Image.open(io.BytesIO(data), formats=kinds) as picture:
            image_HWC = np.asarray(picture.convert("L" if shape_CHW[0] == 1 else "RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error}") from None
    image_CHW: UInt8Array = image_HWC[None] if image_HWC.ndim == 2 else image_HWC.transpose(2, 0, 1)
    if image_CHW.shape != shape_CHW:
        raise RunError(f"{path} is damaged: it has the shape {image_CHW.shape}, not {shape_CHW}")
    return image_CHW
