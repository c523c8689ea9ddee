"""Random access to uint8 images in several arrays, usually memory-mapped files."""

from collections.abc import Sequence
from itertools import chain
from typing import Protocol

import numpy as np

from dream_ray.data.arrays import Int64Array, UInt8Array


class Chunk(Protocol):
    """Images (n, C, H, W) of uint8: an array, or an object with its interface."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, C, H, W)."""

    def __len__(self) -> int:
        """Returns n."""

    def __getitem__(self, indices: Int64Array) -> UInt8Array:
        """Copies images out, in the order of `indices`."""


class ImageChunks:
    """A sequence of images over chunks, which are not copied.

    Args:
        chunks: At least one (n_i, C, H, W), all with the same (C, H, W). They may be read-only.
    """

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        shapes = {chunk.shape[1:] for chunk in chunks}
        assert len(shapes) == 1, f"chunks must share one image shape; got {shapes}"
        assert all(len(shape) == 3 for shape in shapes)
        self._chunks = tuple(chunks)
        self._ends = np.cumsum([len(chunk) for chunk in chunks])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def shape_CHW(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self._chunks[0].shape[1:]
        return channels, height, width

    @property
    def nbytes(self) -> int:
        """Bytes of all images, decoded."""
        channels, height, width = self.shape_CHW
        return len(self) * channels * height * width

    def take(self, indices: Int64Array) -> UInt8Array:
        """Copies images out.

        Args:
            indices: (n,) int64, each in [0, len(self)), in any order and with repeats.

        Returns:
            (n, C, H, W) uint8, writable, in the order of `indices`.

        Raises:
            IndexError: If an index is out of range.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"indices must be in [0, {len(self)}); got {indices.min()} to {indices.max()}")
        if len(self._chunks) == 1 or not len(indices):
            return self._chunks[0][indices]
        taken = np.empty((len(indices), *self.shape_CHW), dtype=np.uint8)
        chunk_of = np.searchsorted(self._ends, indices, side="right")
        order = np.argsort(chunk_of, kind="stable")
        # Visit only the requested chunks: a batch touches few of a thousand classes.
        used, firsts = np.unique(chunk_of[order], return_index=True)
        for number, places in zip(used, np.split(order, firsts[1:]), strict=True):
            chunk = self._chunks[number]
            taken[places] = chunk[indices[places] - (self._ends[number] - len(chunk))]
        return taken

    @classmethod
    def concat(cls, parts: Sequence["ImageChunks"]) -> "ImageChunks":
        """Concatenates sequences without a copy."""
        return cls(list(chain.from_iterable(part._chunks for part in parts)))

    def resident(self) -> "ImageChunks":
        """Reads all images into memory."""
        return ImageChunks([self.take(np.arange(len(self)))])
