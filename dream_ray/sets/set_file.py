"""The file format of a synthetic set: Parquet that describes itself.

A row is a stored image, a row group is a class; no column depends on workers, time or path. The metadata of the schema
contains everything else that training on the set needs, with a digest of this description and the pixels, because the
checksums of Parquet cover its pages only. L classes, N = ipc stored images of a class.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dream_ray import storage
from dream_ray.data.arrays import Float32Array
from dream_ray.errors import RunError, UsageError

FORMAT_VERSION = 1
SET_FILE = "synthetic.parquet"
"""Name of the set in the directory of a run."""

_MAGIC = b"PAR1"
_METADATA_KEY, _DIGEST_KEY = b"dream_ray", b"dream_ray.sha256"
_SCHEMA = pa.schema(
    [
        pa.field("image", pa.binary(), nullable=False),
        pa.field("label", pa.int64(), nullable=False),
        pa.field("class", pa.string(), nullable=False),
        pa.field("soft_label", pa.list_(pa.float32())),
    ]
)
_NEEDED = {"num_classes", "ipc", "shape", "class_names", "factor", "decode", "decode_bound", "mean", "std", "recipe"}

Description = dict[str, Any]
"""What a set says of itself, plain values for JSON: shape, factor, decode mode, normalisation, class names, recipe."""


def describe(
    shape_LNCHW: tuple[int, ...],
    *,
    factor: int,
    decode: str,
    decode_bound: int,
    mean: Sequence[float],
    std: Sequence[float],
    step_size: float | None,
    class_names: Sequence[str],
    recipe: dict[str, Any],
) -> Description:
    """Returns the description of a set; values as for `SyntheticSet`, recipe as for `write_synthetic`.

    The cost of the run is no part of it: a resumed run costs more, and writes the same bytes.
    """
    num_classes, ipc, *shape_CHW = shape_LNCHW
    return {
        "format_version": FORMAT_VERSION,
        "num_classes": num_classes,
        "ipc": ipc,
        "shape": shape_CHW,
        "dtype": "float32 little endian, C H W, nominally in [0, 1]",
        "factor": factor,
        "decode": decode,
        "decode_while_matching": recipe.get("config", {}).get("decode", decode),
        "decode_bound": decode_bound,
        "mean": list(mean),
        "std": list(std),
        "step_size": step_size,
        "class_names": list(class_names),
        "recipe": recipe,
    }


def write_set(path: str, description: Description, images_of: Callable[[int], Float32Array]) -> None:
    """Writes a synthetic set.

    Args:
        path: Target file.
        description: From `describe`.
        images_of: Returns the stored images (N, C, H, W) of a class, float32, nominally in [0, 1]; it is called twice
            for each class.

    Raises:
        RunError: If a pixel is not finite.
    """
    text, ipc = json.dumps(description).encode(), description["ipc"]
    digest = hashlib.sha256(text)
    # The writer takes the schema, with the digest, before the first row group: so the images are read twice.
    for label in range(description["num_classes"]):
        images_NCHW = _little_endian(images_of(label))
        _check_finite(path, [label * ipc + image for image in _not_finite(images_NCHW)], ipc)
        digest.update(images_NCHW.data)
    schema = _SCHEMA.with_metadata({_METADATA_KEY: text, _DIGEST_KEY: digest.hexdigest().encode()})
    with (
        storage.atomic_output(path) as file,
        pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        for label, name in enumerate(description["class_names"]):
            rows = [image.tobytes() for image in _little_endian(images_of(label))]
            columns = [rows, [label] * ipc, [name] * ipc, [None] * ipc]
            writer.write_table(pa.table(dict(zip(_SCHEMA.names, columns, strict=True)), schema=schema))


def _little_endian(images_NCHW: Float32Array) -> Float32Array:
    return np.ascontiguousarray(images_NCHW, dtype="<f4")


def _not_finite(images: Float32Array) -> list[int]:
    """Returns the positions of the images (n, ...) that have a pixel that is not finite."""
    return list(map(int, np.flatnonzero(~np.isfinite(images).reshape(len(images), -1).all(axis=1))))


def _check_finite(path: str, not_finite: Sequence[int], ipc: int) -> None:
    """Raises RunError for the first image that is not finite, given by its row in the file."""
    if not_finite:
        label, image = divmod(not_finite[0], ipc)
        raise RunError(f"images must be finite; image {image} of class {label} for {path} has NaN or infinity")


def read_set(path: str) -> tuple[Float32Array, Description]:
    """Reads the stored images (L, N, C, H, W) of a set and its description; large images are mapped.

    Raises:
        UsageError: If the file does not exist, is not a synthetic set or has another format version.
        RunError: If it is damaged or a pixel is not finite.
    """
    with _open(path) as (file, description):
        shape = set_shape(description)
        return storage.in_one_array(_checked_pixels(path, file, shape), shape, np.dtype("<f4")), description


def read_description(path: str) -> Description:
    """Reads the description of a synthetic set from the end of its file, without the images.

    Raises:
        UsageError: As for `read_set`.
        RunError: If the end of the file is damaged or missing; damaged images are not detected.
    """
    with _open(path) as (_, description):
        return description


def read_digest(path: str) -> str:
    """Returns the SHA-256 of description and pixels that the file of a set states; errors as for `read_description`."""
    with _open(path) as (file, _):
        return str(file.schema_arrow.metadata.get(_DIGEST_KEY, b"").decode())


def set_shape(description: Description) -> tuple[int, ...]:
    """Returns the shape (L, N, C, H, W) of the stored images of a description."""
    return (description["num_classes"], description["ipc"], *description["shape"])


def check_description(path: str, description: Description) -> None:
    """Raises UsageError if a description has another format version, and RunError if it lacks a value."""
    if (version := description.get("format_version")) != FORMAT_VERSION:
        raise UsageError(f"{path} has format_version {version}; this dream_ray reads {FORMAT_VERSION}")
    if missing := _NEEDED - description.keys():
        raise RunError(f"{path} is damaged: its description lacks {', '.join(sorted(missing))}")
    shape = set_shape(description)
    if len(shape) != 5 or any(not isinstance(size, int) or size < 1 for size in shape):
        raise RunError(f"{path} is damaged: its description has the shape {shape}")


@contextmanager
def _open(path: str) -> Iterator[tuple[pq.ParquetFile, Description]]:
    """Opens a synthetic set; errors as for `read_description`, and RunError if Arrow cannot read in the block."""
    if not storage.exists(path):
        raise UsageError(f"synthetic set {path} does not exist")
    with storage.open_raw(path) as raw:
        if raw.read(len(_MAGIC)) != _MAGIC:
            raise UsageError(f"{path} is not a synthetic set of dream_ray: it is not a Parquet file")
        try:
            # If torch is loaded too, threads of Arrow sometimes abort the process at its end, so nothing is read ahead.
            with pq.ParquetFile(raw, page_checksum_verification=True, pre_buffer=False) as file:
                yield file, _description(path, file)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last one for names that are not UTF-8
            raise RunError(f"{path} is damaged: {error}") from None


def _description(path: str, file: pq.ParquetFile) -> Description:
    schema = file.schema_arrow
    metadata = schema.metadata or {}
    if _METADATA_KEY not in metadata or not schema.equals(_SCHEMA):
        raise UsageError(f"{path} is not a synthetic set of dream_ray: its columns or its metadata are different")
    try:
        description: Description = json.loads(metadata[_METADATA_KEY])
        check_description(path, description)
    except (ValueError, AttributeError) as error:
        if isinstance(error, UsageError):
            raise
        raise RunError(f"{path} is damaged: its description is not JSON: {error}") from None
    num_classes, ipc, *_ = set_shape(description)
    if (num_rows := file.metadata.num_rows) != num_classes * ipc:
        raise RunError(f"{path} is damaged: it has {num_rows} images, not {num_classes} x {ipc}")
    return description


def _checked_pixels(path: str, file: pq.ParquetFile, shape: tuple[int, ...]) -> Iterator[Float32Array]:
    """Yields the pixels of a set, float32, one row group at a time; at the end compares them with the digest."""
    metadata = file.schema_arrow.metadata
    digest, not_finite = hashlib.sha256(metadata[_METADATA_KEY]), list[int]()
    for number in range(file.num_row_groups):
        rows = file.read_row_group(number, use_threads=False)
        pixels = b"".join(rows["image"].to_pylist())
        if len(pixels) != 4 * rows.num_rows * math.prod(shape[2:]):
            raise RunError(f"{path} is damaged: its images do not have the shape in its description, {shape[2:]}")
        digest.update(pixels)
        values = np.frombuffer(pixels, "<f4")
        not_finite += [number * shape[1] + row for row in _not_finite(values.reshape(rows.num_rows, -1))]
        yield values
    if metadata.get(_DIGEST_KEY) != digest.hexdigest().encode():
        raise RunError(f"{path} is damaged: its images and description do not match the digest in its metadata")
    _check_finite(path, not_finite, shape[1])
