"""Random access to uint8 images in several arrays, usually memory-mapped files."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from itertools import chain
from typing import Protocol

import numpy as np

from dream_ray.data.arrays import Int64Array, UInt8Array
from dream_ray.data.store.parallel_reading import Reading, read_ahead


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
        decoders: Threads that decode the images, for chunks that decode on every read; None: the calling thread reads.
    """

    def __init__(self, chunks: Sequence[Chunk], decoders: Executor | None = None) -> None:
        shapes = {chunk.shape[1:] for chunk in chunks}
        assert len(shapes) == 1, f"chunks must share one image shape; got {shapes}"
        assert all(len(shape) == 3 for shape in shapes)
        self._chunks, self._decoders = tuple(chunks), decoders
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
        checked = self._checked(indices)
        if self._decoders is None:
            return self._copy(checked)
        return Reading(self._copy, checked, self.shape_CHW, self._decoders).result()

    def batches(self, batches: Iterable[Int64Array]) -> Iterator[UInt8Array]:
        """Yields `take(indices)` for the indices of every batch; encoded images are decoded a batch ahead of their use.

        Raises:
            IndexError: If an index is out of range.
        """
        checked = map(self._checked, batches)
        decoders = self._decoders
        if decoders is None:
            return map(self._copy, checked)
        return read_ahead(checked, lambda indices: Reading(self._copy, indices, self.shape_CHW, decoders))

    def _checked(self, indices: Int64Array) -> Int64Array:
        indices = np.asarray(indices, dtype=np.int64)
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"indices must be in [0, {len(self)}); got {indices.min()} to {indices.max()}")
        return indices

    def _copy(self, indices: Int64Array) -> UInt8Array:
        """Copies images out in this thread."""
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
        decoders = {part._decoders for part in parts}
        assert len(decoders) == 1, "parts must share their decoders"
        return cls(list(chain.from_iterable(part._chunks for part in parts)), decoders.pop())

    def resident(self) -> "ImageChunks":
        """Reads all images into memory."""
        return ImageChunks([self.take(np.arange(len(self)))])
