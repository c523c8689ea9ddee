"""One file of a store: images of one class as uncompressed Arrow IPC, which can be memory-mapped."""

import hashlib
from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from dream_ray import storage
from dream_ray.data.arrays import Int64Array, UInt8Array
from dream_ray.data.store.encodings import ENCODINGS, Shape
from dream_ray.data.store.images import Chunk
from dream_ray.data.store.statistics import pixel_sums
from dream_ray.errors import RunError

COLUMN = "image"
_SHAPE = b"shape_CHW"
# A batch is in memory while it is written, and is one chunk for readers; docs/explanation/ingest.md compares sizes.
BATCH_BYTES = 4 << 20


class _DigestedFile:
    """The file interface that Arrow's writer needs. It digests all bytes, so that the file is not read again."""

    closed = False

    def __init__(self, file: Any) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.num_bytes = 0

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.num_bytes += len(data)
        return int(self._file.write(data))

    def flush(self) -> None:
        self._file.flush()


def write_images(
    path: str, images: Iterable[UInt8Array], shape_CHW: Shape, encoding: str
) -> tuple[dict[str, Any], Int64Array]:
    """Writes a file that appears when it is complete; at most a few batches of images are in memory.

    Args:
        path: The file.
        images: (C, H, W) uint8 each.
        shape_CHW: Shape of every image.
        encoding: A key of ENCODINGS.

    Returns:
        The fields `rows`, `sha256` and `bytes` of a `manifest.ImageFile`, and the `pixel_sums` of the images as a
        reader decodes them.

    Raises:
        RunError: If the file cannot be written.
    """
    kind = ENCODINGS[encoding]
    schema = pa.schema(
        [pa.field(COLUMN, kind.column_type(shape_CHW), nullable=False)],
        metadata={_SHAPE: ",".join(map(str, shape_CHW)).encode()},
    )
    rows_per_batch = max(1, BATCH_BYTES // int(np.prod(shape_CHW)))
    remaining = iter(images)
    rows, sums_3C = 0, np.zeros((3, shape_CHW[0]), dtype=np.int64)
    with storage.atomic_output(path) as file:
        digested = _DigestedFile(file)
        with pa.ipc.new_file(digested, schema) as writer:
            while batch := list(islice(remaining, rows_per_batch)):
                column, seen_NCHW = kind.encode(np.stack(batch))
                writer.write_batch(pa.record_batch([column], schema=schema))
                # Sums per image, between two decodes, cost three times as much, because they compete for the
                # processor's cache.
                sums_3C += pixel_sums(seen_NCHW)
                rows += len(batch)
                storage.start_write_back(file)
    return {"rows": rows, "sha256": digested.digest.hexdigest(), "bytes": digested.num_bytes}, sums_3C


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
