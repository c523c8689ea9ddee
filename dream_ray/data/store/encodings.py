"""The encodings of the images in a store.

`raw` images are fixed-shape uint8 tensors, which are read without decoding. `jpeg` images are JPEG bytes, about six
times smaller, which are decoded on every read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from dream_ray.data.arrays import Int64Array, UInt8Array
from dream_ray.data.decoding.jpeg import decode_jpegs, encode_jpeg
from dream_ray.data.store.images import Chunk
from dream_ray.errors import RunError

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Encoding:
    """An encoding of images.

    Attributes:
        column_type: (C, H, W) -> Arrow type of a column, which is unique to the encoding.
        encode: (n, C, H, W) uint8 -> the column of the images, and the images as a reader decodes them.
        chunk: (column, (C, H, W), name of the file for messages) -> access to the images.
    """

    column_type: Callable[[Shape], pa.DataType]
    encode: Callable[[UInt8Array], tuple[pa.Array, UInt8Array]]
    chunk: Callable[[pa.Array, Shape, str], Chunk]


def _encode_raw(images_NCHW: UInt8Array) -> tuple[pa.Array, UInt8Array]:
    shape_CHW = images_NCHW.shape[1:]
    lists = pa.FixedSizeListArray.from_arrays(pa.array(images_NCHW.reshape(-1)), int(np.prod(shape_CHW)))
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.uint8(), shape_CHW), lists), images_NCHW


def _encode_jpeg(images_NCHW: UInt8Array) -> tuple[pa.Array, UInt8Array]:
    encoded = [encode_jpeg(image_CHW) for image_CHW in images_NCHW]
    return pa.array(encoded, pa.binary()), decode_jpegs(encoded, images_NCHW.shape[1:])


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
        encode=_encode_raw,
        chunk=lambda column, shape_CHW, path: column.to_numpy_ndarray(),
    ),
    "jpeg": Encoding(column_type=lambda shape_CHW: pa.binary(), encode=_encode_jpeg, chunk=_JpegImages),
}
"""Encodings by the values of `--encoding`."""
