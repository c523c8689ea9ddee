"""One file of a store: images of one class as uncompressed Arrow IPC, which can be memory-mapped."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from dream_ray import storage
from dream_ray.data.arrays import UInt8Array
from dream_ray.data.store.encodings import ENCODINGS
from dream_ray.data.store.images import Chunk
from dream_ray.data.store.statistics import PixelSums
from dream_ray.errors import RunError

COLUMN = "image"
_SHAPE = b"shape_CHW"
# A batch is in memory while it is written, and is one chunk for readers; docs/explanation/ingest.md compares sizes.
BATCH_BYTES = 4 << 20


class ImageWriter:
    """Writes images one by one; at most one batch is in memory.

    Args:
        file: Open for writing.
        shape_CHW: Shape of every image.
        encoding: A key of ENCODINGS.

    Attributes:
        rows: Number of added images.
        bytes: Number of written bytes.
        sums: Pixel sums of the written images, as a reader decodes them.
    """

    def __init__(self, file: Any, shape_CHW: tuple[int, int, int], encoding: str) -> None:
        self.rows = self.bytes = 0
        self.sums = PixelSums.zero(shape_CHW[0])
        self._digest = hashlib.sha256()
        self._file = file
        kind = ENCODINGS[encoding]
        self._schema = pa.schema(
            [pa.field(COLUMN, kind.column_type(shape_CHW), nullable=False)],
            metadata={_SHAPE: ",".join(map(str, shape_CHW)).encode()},
        )
        self._batch_rows = max(1, BATCH_BYTES // int(np.prod(shape_CHW)))
        self._batch: Any = kind.new_batch(self._batch_rows, shape_CHW)
        self._pending = 0
        self._writer: Any = pa.ipc.new_file(self, self._schema)

    def add(self, image_CHW: UInt8Array) -> None:
        """Appends an image."""
        self._batch.add(image_CHW)
        self._pending += 1
        self.rows += 1
        if self._pending == self._batch_rows:
            self._flush()

    def close(self) -> str:
        """Finishes the file; returns its SHA-256."""
        if self._pending:
            self._flush()
        self._writer.close()
        return self._digest.hexdigest()

    def release(self) -> None:
        """Frees the batch at once: Arrow's writer and this object form a reference cycle."""
        self._writer = self._batch = None

    def _flush(self) -> None:
        column, seen_NCHW = self._batch.take()
        self._writer.write_batch(pa.record_batch([column], schema=self._schema))
        # Sums per image, between two decodes, cost three times as much, because they compete for the processor's cache.
        self.sums += PixelSums.of(seen_NCHW)
        self._pending = 0
        storage.start_write_back(self._file)

    # The file interface that Arrow needs. It digests all bytes, so that the file is not read again.
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
    """Opens a file for writing that appears if the block succeeds; the block closes the writer."""
    with storage.atomic_output(path) as file:
        writer = ImageWriter(file, shape_CHW, encoding)
        try:
            yield writer
        finally:
            writer.release()


def read_images(file: Any, path: str) -> list[Chunk]:
    """Maps the images of a file, one chunk per record batch; reads no pixels.

    Args:
        file: Memory-mapped.
        path: Name of the file, for messages.

    Raises:
        RunError: If the file is damaged.
    """
    try:
        reader = pa.ipc.open_file(file)
        columns = [reader.get_batch(number).column(COLUMN) for number in range(reader.num_record_batches)]
        kind, metadata = reader.schema.field(COLUMN).type, reader.schema.metadata or {}
        channels, height, width = map(int, metadata[_SHAPE].decode().split(","))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error}") from None
    shape_CHW = (channels, height, width)
    for encoding in ENCODINGS.values():
        if encoding.column_type(shape_CHW) == kind:
            return [encoding.chunk(column, shape_CHW, path) for column in columns]
    raise RunError(f"{path} is damaged: its images have type {kind}, which belongs to no encoding")
