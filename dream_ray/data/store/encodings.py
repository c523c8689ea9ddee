"""How the images of a file of a store are encoded, and the table of the ways.

`raw` images are fixed-shape uint8 tensors, which are used where they lie. `jpeg` images are JPEG bytes, about six times
smaller, which are decoded when they are read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from dream_ray.data.arrays import Int64Array, UInt8Array
from dream_ray.data.decoding.jpeg import decode_jpegs, encode_jpeg
from dream_ray.data.store.images import Chunk
from dream_ray.errors import RunError

Shape = tuple[int, int, int]


class Batch(Protocol):
    """Images that are written together."""

    def add(self, image_CHW: UInt8Array) -> None:
        """Appends an image."""

    def take(self) -> tuple[pa.Array, UInt8Array]:
        """Returns the column of the images and (n, C, H, W) as a reader will see them, until the next `add`."""


@dataclass(frozen=True)
class Encoding:
    """A way to encode images.

    Attributes:
        column_type: Arrow type of a column of images of a shape (C, H, W); no other encoding has the same.
        new_batch: Makes an empty batch of at most so many images of a shape.
        chunk: Gives access to a column of images of a shape, in the file of a name, which is for messages.
    """

    column_type: Callable[[Shape], pa.DataType]
    new_batch: Callable[[int, Shape], Batch]
    chunk: Callable[[pa.Array, Shape, str], Chunk]


class _RawBatch:
    def __init__(self, max_rows: int, shape_CHW: Shape) -> None:
        self._pixels_NCHW: UInt8Array = np.empty((max_rows, *shape_CHW), dtype=np.uint8)
        self._rows = 0

    def add(self, image_CHW: UInt8Array) -> None:
        self._pixels_NCHW[self._rows] = image_CHW
        self._rows += 1

    def take(self) -> tuple[pa.Array, UInt8Array]:
        seen_NCHW = self._pixels_NCHW[: self._rows]
        self._rows = 0
        shape_CHW = seen_NCHW.shape[1:]
        lists = pa.FixedSizeListArray.from_arrays(pa.array(seen_NCHW.reshape(-1)), int(np.prod(shape_CHW)))
        return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.uint8(), shape_CHW), lists), seen_NCHW


class _JpegBatch:
    def __init__(self, max_rows: int, shape_CHW: Shape) -> None:
        self._shape_CHW = shape_CHW
        self._encoded: list[bytes] = []

    def add(self, image_CHW: UInt8Array) -> None:
        self._encoded.append(encode_jpeg(image_CHW))

    def take(self) -> tuple[pa.Array, UInt8Array]:
        encoded, self._encoded = self._encoded, []
        return pa.array(encoded, pa.binary()), decode_jpegs(encoded, self._shape_CHW)


class _JpegImages:
    """A column of JPEG images that looks like a uint8 array (n, C, H, W); they are decoded when they are taken."""

    def __init__(self, column: pa.Array, shape_CHW: Shape, path: str) -> None:
        self._column = column
        self._path = path
        self.shape = (len(column), *shape_CHW)

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, indices: Int64Array) -> UInt8Array:
        encoded: list[Any] = [self._column[int(index)].as_py() for index in indices]
        try:
            return decode_jpegs(encoded, self.shape[1:])
        except ValueError as error:
            raise RunError(f"{self._path} is damaged: {error}; ingest the store again") from None


ENCODINGS: dict[str, Encoding] = {
    "raw": Encoding(
        column_type=lambda shape_CHW: pa.fixed_shape_tensor(pa.uint8(), shape_CHW),
        new_batch=_RawBatch,
        chunk=lambda column, shape_CHW, path: column.to_numpy_ndarray(),
    ),
    "jpeg": Encoding(column_type=lambda shape_CHW: pa.binary(), new_batch=_JpegBatch, chunk=_JpegImages),
}
"""By name, as `--encoding` takes it."""
