"""Spools: files of concatenated encoded images, which give random access to sources that have none."""

from typing import Any

import numpy as np

from dream_ray.data.arrays import UInt8Array


def append(file: Any, data: Any) -> dict[str, int]:
    """Appends an encoded image to a spool; returns its offset and length as fields of a listing."""
    offset = file.tell()
    file.write(data)
    return {"offset": offset, "length": len(data)}


def pnm(pixels: UInt8Array) -> bytes:
    """Encodes pixels (H, W) or (H, W, 3) as PGM or PPM: a header line and the raw bytes."""
    kind = "P5" if pixels.ndim == 2 else "P6"
    height, width = pixels.shape[:2]
    return f"{kind} {width} {height} 255\n".encode() + np.ascontiguousarray(pixels).tobytes()
