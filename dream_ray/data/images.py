"""Random access to uint8 images that lie in several arrays, usually memory-mapped files."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]


class ImageChunks:
    """A sequence of images over chunks that stay where they are.

    Args:
        chunks: At least one array (n_i, C, H, W) of uint8; all of one (C, H, W). Read-only maps are fine.
    """

    def __init__(self, chunks: Sequence[UInt8Array]) -> None:
        shapes = {chunk.shape[1:] for chunk in chunks}
        assert len(shapes) == 1, f"chunks must share one image shape; got {shapes}"
        assert all(chunk.dtype == np.uint8 and chunk.ndim == 4 for chunk in chunks)
        self._chunks = tuple(chunks)
        self._ends = np.cumsum([len(chunk) for chunk in chunks])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def shape_CHW(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self._chunks[0].shape[1:]
        return channels, height, width

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
        # Visit only the chunks that are asked for: a batch touches few of a thousand classes.
        used, firsts = np.unique(chunk_of[order], return_index=True)
        for number, places in zip(used, np.split(order, firsts[1:]), strict=True):
            chunk = self._chunks[number]
            taken[places] = chunk[indices[places] - (self._ends[number] - len(chunk))]
        return taken

    @classmethod
    def concat(cls, parts: Sequence["ImageChunks"]) -> "ImageChunks":
        """Puts sequences one after the other, without a copy."""
        return cls(list(chain.from_iterable(part._chunks for part in parts)))
