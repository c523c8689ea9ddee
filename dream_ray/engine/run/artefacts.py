"""The product of a run: synthetic.parquet, which describes itself, and a picture of it.

A row is a stored image, a row group is a class; no column depends on workers, time or path. The metadata of the schema
contains everything else that training on the set needs, with a digest of this description and the pixels, because the
checksums of Parquet cover its pages only.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from dream_ray import storage
from dream_ray.core.images.synthetic import SyntheticSet
from dream_ray.data.store.image_grid import write_grid
from dream_ray.engine.networks.stored_images import in_one_array
from dream_ray.errors import RunError, UsageError

FORMAT_VERSION = 1
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
_GRID_CLASSES, _GRID_IMAGES = 20, 10


def write_synthetic(path: str, synthetic: SyntheticSet, *, recipe: dict[str, Any], cost: dict[str, Any]) -> None:
    """Writes a synthetic set as Parquet.

    Args:
        path: Target file.
        synthetic: The set.
        recipe: Settings and environment of the run that made it.
        cost: Time and memory of the run.
    """
    num_classes, ipc, channels, height, width = synthetic.images_LNCHW.shape
    description = {
        "format_version": FORMAT_VERSION,
        "num_classes": num_classes,
        "ipc": ipc,
        "shape": [channels, height, width],
        "dtype": "float32 little endian, C H W, nominally in [0, 1]",
        "factor": synthetic.factor,
        "decode": synthetic.decode_mode,
        "decode_while_matching": recipe.get("config", {}).get("decode", synthetic.decode_mode),
        "decode_bound": synthetic.decode_bound,
        "mean": list(synthetic.mean),
        "std": list(synthetic.std),
        "step_size": synthetic.step_size,
        "class_names": list(synthetic.class_names),
        "recipe": recipe,
        "cost": cost,
    }
    text = json.dumps(description).encode()
    digest = hashlib.sha256(text)
    # The writer takes the schema, with the digest, before the first row group: so the images are read twice.
    for label in range(num_classes):
        digest.update(_pixels(synthetic, label).data)
    schema = _SCHEMA.with_metadata({_METADATA_KEY: text, _DIGEST_KEY: digest.hexdigest().encode()})
    with (
        storage.atomic_output(path) as file,
        pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        for label, name in enumerate(synthetic.class_names):
            rows = [image.tobytes() for image in _pixels(synthetic, label)]
            columns = [rows, [label] * ipc, [name] * ipc, [None] * ipc]
            writer.write_table(pa.table(dict(zip(_SCHEMA.names, columns, strict=True)), schema=schema))


def _pixels(synthetic: SyntheticSet, label: int) -> np.ndarray:
    return synthetic.images_LNCHW[label].contiguous().numpy().astype("<f4", copy=False)


def read_synthetic(path: str) -> tuple[SyntheticSet, dict[str, Any]]:
    """Reads a synthetic set and its description; large images are mapped, see `in_one_array`.

    Raises:
        UsageError: If the file does not exist, is not a synthetic set or has another format version.
        RunError: If it is damaged.
    """
    with _open(path) as (file, description):
        shape = set_shape(description)
        images_LNCHW = torch.from_numpy(in_one_array(_checked_pixels(path, file, shape), shape, np.dtype("<f4")))
    synthetic = SyntheticSet(
        images_LNCHW,
        tuple(description["class_names"]),
        description["factor"],
        description["decode"],
        description["decode_bound"],
        tuple(description["mean"]),
        tuple(description["std"]),
        description.get("step_size"),
    )
    return synthetic, description


def read_description(path: str) -> dict[str, Any]:
    """Reads the description of a synthetic set from the end of its file, without the images.

    Raises:
        UsageError: As for `read_synthetic`.
        RunError: If the end of the file is damaged or missing; damaged images are not detected.
    """
    with _open(path) as (_, description):
        return description


def set_shape(description: dict[str, Any]) -> tuple[int, ...]:
    """Returns the shape (L, N, C, H, W) of the stored images of a description."""
    return (description["num_classes"], description["ipc"], *description["shape"])


@contextmanager
def _open(path: str) -> Iterator[tuple[pq.ParquetFile, dict[str, Any]]]:
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


def _description(path: str, file: pq.ParquetFile) -> dict[str, Any]:
    schema = file.schema_arrow
    metadata = schema.metadata or {}
    if _METADATA_KEY not in metadata or not schema.equals(_SCHEMA):
        raise UsageError(f"{path} is not a synthetic set of dream_ray: its columns or its metadata are different")
    try:
        description: dict[str, Any] = json.loads(metadata[_METADATA_KEY])
        version = description.get("format_version")
    except (ValueError, AttributeError) as error:
        raise RunError(f"{path} is damaged: its description is not JSON: {error}") from None
    if version != FORMAT_VERSION:
        raise UsageError(f"{path} has format_version {version}; this dream_ray reads {FORMAT_VERSION}")
    if missing := _NEEDED - description.keys():
        raise RunError(f"{path} is damaged: its description lacks {', '.join(sorted(missing))}")
    shape = set_shape(description)
    if len(shape) != 5 or any(not isinstance(size, int) or size < 1 for size in shape):
        raise RunError(f"{path} is damaged: its description has the shape {shape}")
    if (num_rows := file.metadata.num_rows) != shape[0] * shape[1]:
        raise RunError(f"{path} is damaged: it has {num_rows} images, not {shape[0]} x {shape[1]}")
    return description


def _checked_pixels(path: str, file: pq.ParquetFile, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yields the pixels of a set, float32, one row group at a time; at the end compares them with the digest."""
    metadata = file.schema_arrow.metadata
    digest = hashlib.sha256(metadata[_METADATA_KEY])
    for number in range(file.num_row_groups):
        rows = file.read_row_group(number, use_threads=False)
        pixels = b"".join(rows["image"].to_pylist())
        if len(pixels) != 4 * rows.num_rows * math.prod(shape[2:]):
            raise RunError(f"{path} is damaged: its images do not have the shape in its description, {shape[2:]}")
        digest.update(pixels)
        yield np.frombuffer(pixels, "<f4")
    if metadata.get(_DIGEST_KEY) != digest.hexdigest().encode():
        raise RunError(f"{path} is damaged: its images and description do not match the digest in its metadata")


def write_picture(path: str, synthetic: SyntheticSet) -> None:
    """Draws the stored images as PNG, one row per class, at most 20 classes and 10 images of each."""
    names = list(synthetic.class_names[:_GRID_CLASSES])
    shown = (synthetic.images_LNCHW[label][:_GRID_IMAGES] for label in range(len(names)))
    pixels = [images.clamp(0, 1).mul(255).round().to(torch.uint8).numpy() for images in shown]
    write_grid(path, np.concatenate(pixels), columns=len(pixels[0]), row_labels=names)
