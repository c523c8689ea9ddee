"""One file of a store: uint8 images as Arrow IPC, uncompressed, so that it can be mapped into memory as it is."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from dream_ray import storage
from dream_ray.data.images import Int64Array, UInt8Array
from dream_ray.errors import RunError

COLUMN = "image"
_BATCH_BYTES = 64 << 20


def batches(images_NCHW: UInt8Array, rows: Int64Array) -> Iterator[UInt8Array]:
    """Yields the chosen rows as contiguous arrays of at most about 64 MB."""
    rows_per_batch = max(1, _BATCH_BYTES // max(1, images_NCHW[0].nbytes))
    for start in range(0, len(rows), rows_per_batch):
        yield images_NCHW[rows[start : start + rows_per_batch]]


def write_images(path: str, images_NCHW: UInt8Array, rows: Int64Array) -> None:
    """Writes the chosen rows atomically, in their order.

    Args:
        path: Target file.
        images_NCHW: uint8 images.
        rows: (n,) indices of the images to write.
    """
    shape_CHW = images_NCHW.shape[1:]
    kind = pa.fixed_shape_tensor(pa.uint8(), shape_CHW)
    schema = pa.schema([pa.field(COLUMN, kind, nullable=False)])
    with storage.atomic_output(path) as file, pa.ipc.new_file(file, schema) as writer:
        for batch in batches(images_NCHW, rows):
            pixels = pa.FixedSizeListArray.from_arrays(pa.array(batch.reshape(-1)), int(np.prod(shape_CHW)))
            tensors = pa.ExtensionArray.from_storage(kind, pixels)
            writer.write_batch(pa.record_batch([tensors], schema=schema))


def read_images(path: str) -> list[UInt8Array]:
    """Maps a file's images, one read-only array (n, C, H, W) a record batch; reads no pixel.

    Raises:
        RunError: If the file is missing or damaged.
    """
    try:
        # The arrays keep the mapping alive; the closed file gives its descriptor back, of which a process has few.
        with storage.open_input(path) as file:
            reader = pa.ipc.open_file(file)
            return [_pixels(reader.get_batch(number)) for number in range(reader.num_record_batches)]
    except (pa.ArrowException, OSError, KeyError) as error:
        raise RunError(f"{path} is damaged: {error}") from None


def _pixels(batch: pa.RecordBatch) -> UInt8Array:
    images: UInt8Array = batch.column(COLUMN).to_numpy_ndarray()
    return images
