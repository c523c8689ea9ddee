"""Encoded images back to back in one file: random access for sources that have none themselves."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dream_ray import storage
from dream_ray.data.arrays import UInt8Array


class Spool:
    """A file that grows by one image after the other.

    Args:
        path: Its name, for the listing.
        file: Open for writing.
    """

    def __init__(self, path: str, file: Any) -> None:
        self.path = path
        self._file = file
        self._end = 0

    def add(self, data: bytes) -> tuple[int, int]:
        """Appends an image, or more of the last one; returns (offset, length)."""
        self._file.write(data)
        offset, self._end = self._end, self._end + len(data)
        return offset, len(data)


@contextmanager
def new_spool(path: str) -> Iterator[Spool]:
    """Opens a spool that appears under its name when the block has ended well."""
    with storage.atomic_output(path) as file:
        yield Spool(path, file)


def pnm(pixels: UInt8Array) -> bytes:
    """Encodes pixels (H, W) or (H, W, 3) as PGM or PPM: a line of header and the bytes as they are."""
    kind = "P5" if pixels.ndim == 2 else "P6"
    height, width = pixels.shape[:2]
    return f"{kind} {width} {height} 255\n".encode() + np.ascontiguousarray(pixels).tobytes()
