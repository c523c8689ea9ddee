"""The encodings of the images in a store.

`raw` images are fixed-shape uint8 tensors, which are read without decoding. `jpeg` images are JPEG bytes, about six
times smaller, which are decoded on every read.
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
        """Returns the column of the images, and (n, C, H, W) as a reader decodes them, valid until the next `add`."""


@dataclass(frozen=True)
class Encoding:
    """An encoding of images.

    Attributes:
        column_type: (C, H, W) -> Arrow type of a column, which is unique to the encoding.
        new_batch: (maximal number of images, (C, H, W)) -> an empty batch.
        chunk: (column, (C, H, W), name of the file for messages) -> access to the images.
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
    """A column of JPEG images with the interface of a uint8 array (n, C, H, W); indexing decodes them."""

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
"""Encodings by the values of `--encoding`."""
