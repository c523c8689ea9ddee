"""One file of a store: images of one class as Arrow IPC, uncompressed, so that it can be mapped into memory as it is.

`raw` files hold fixed-shape uint8 tensors, which are used where they lie. `jpeg` files hold JPEG bytes, about six times
smaller, which are decoded when they are read.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from dream_ray import storage
from dream_ray.data.images import Chunk, Int64Array, UInt8Array
from dream_ray.data.jpeg import decode_jpegs, encode_jpeg
from dream_ray.data.statistics import PixelSums
from dream_ray.errors import RunError

COLUMN = "image"
ENCODINGS = ("raw", "jpeg")
_SHAPE = b"shape_CHW"
# One batch is in memory while it is written, and is one chunk to a reader; see docs/data.md for the measurement.
BATCH_BYTES = 4 << 20


class ImageWriter:
    """Writes images one by one; at most a batch of them is in memory.

    Args:
        file: Open for writing.
        shape_CHW: Shape of every image.
        encoding: One of ENCODINGS.

    Attributes:
        rows: Images that were added.
        bytes: Bytes that were written.
        sums: Of the images that were written, as a reader will see them.
    """

    def __init__(self, file: Any, shape_CHW: tuple[int, int, int], encoding: str) -> None:
        self.rows = self.bytes = 0
        self.sums = PixelSums.zero(shape_CHW[0])
        self._digest = hashlib.sha256()
        self._file = file
        self._encoding = encoding
        self._shape = shape_CHW
        kind = pa.fixed_shape_tensor(pa.uint8(), shape_CHW) if encoding == "raw" else pa.binary()
        self._schema = pa.schema(
            [pa.field(COLUMN, kind, nullable=False)], metadata={_SHAPE: ",".join(map(str, shape_CHW)).encode()}
        )
        self._batch: list[UInt8Array] | list[bytes] = []
        self._batch_rows = max(1, BATCH_BYTES // int(np.prod(shape_CHW)))
        self._pixels: UInt8Array | None = (
            np.empty((self._batch_rows, *shape_CHW), dtype=np.uint8) if encoding == "raw" else None
        )
        self._encoded: list[bytes] = []
        self._pending = 0
        self._writer: Any = pa.ipc.new_file(self, self._schema)

    def add(self, image_CHW: UInt8Array) -> None:
        """Appends an image."""
        if self._pixels is not None:
            self._pixels[self._pending] = image_CHW
        else:
            self._encoded.append(encode_jpeg(image_CHW))
        self._pending += 1
        self.rows += 1
        if self._pending == self._batch_rows:
            self._flush()

    def close(self) -> str:
        """Ends the file; returns its SHA-256."""
        if self._pending:
            self._flush()
        self._writer.close()
        return self._digest.hexdigest()

    def release(self) -> None:
        """Lets go of the batch: Arrow's writer and this object hold each other, and nobody would see that for long."""
        self._writer = self._pixels = None

    def _flush(self) -> None:
        if self._pixels is not None:
            seen_NCHW: UInt8Array = self._pixels[: self._pending]
            values = pa.array(seen_NCHW.reshape(-1))
            lists = pa.FixedSizeListArray.from_arrays(values, int(np.prod(self._shape)))
            column: pa.Array = pa.ExtensionArray.from_storage(self._schema.field(0).type, lists)
        else:
            seen_NCHW = decode_jpegs(self._encoded, self._shape)
            column = pa.array(self._encoded, pa.binary())
        self._writer.write_batch(pa.record_batch([column], schema=self._schema))
        # A batch at a time: between two decodes it costs three times as much, for either finds the other's data in the
        # processor's cache.
        self.sums += PixelSums.of(seen_NCHW)
        self._pending = 0
        self._encoded = []
        storage.start_write_back(self._file)

    # What Arrow asks of a file: everything that passes is digested, so that the file is not read again.
    closed = False

    def write(self, data: Any) -> int:
        """Writes and digests bytes."""
        self._digest.update(data)
        self.bytes += len(data)
        return int(self._file.write(data))

    def flush(self) -> None:
        """Flushes the file."""
        self._file.flush()


@contextmanager
def new_image_file(path: str, shape_CHW: tuple[int, int, int], encoding: str) -> Iterator[ImageWriter]:
    """Opens a file for writing that appears when the block has ended well; the block closes the writer."""
    with storage.atomic_output(path) as file:
        writer = ImageWriter(file, shape_CHW, encoding)
        try:
            yield writer
        finally:
            writer.release()


def read_images(file: Any, path: str) -> list[Chunk]:
    """Maps a file's images, one chunk a record batch; reads no pixel.

    Args:
        file: Memory-mapped.
        path: Its name, for messages.

    Raises:
        RunError: If the file is damaged.
    """
    try:
        reader = pa.ipc.open_file(file)
        columns = [reader.get_batch(number).column(COLUMN) for number in range(reader.num_record_batches)]
        if reader.schema.field(COLUMN).type == pa.binary():
            shape = tuple(map(int, reader.schema.metadata[_SHAPE].decode().split(",")))
            return [EncodedImages(column, shape) for column in columns]
        return [column.to_numpy_ndarray() for column in columns]
    except (pa.ArrowException, OSError, KeyError) as error:
        raise RunError(f"{path} is damaged: {error}") from None


class EncodedImages:
    """JPEG images that look like a uint8 array (n, C, H, W) and are decoded when they are taken.

    Args:
        column: (n,) binary.
        shape_CHW: Shape of every image.
    """

    def __init__(self, column: pa.Array, shape_CHW: Sequence[int]) -> None:
        self._column = column
        self.shape = (len(column), *shape_CHW)

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, indices: Int64Array) -> UInt8Array:
        encoded = [self._column[int(index)].as_py() for index in indices]
        return decode_jpegs(encoded, self.shape[1:])
