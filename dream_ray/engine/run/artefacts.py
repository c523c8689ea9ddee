"""The product of a run: synthetic.parquet, which describes itself, and a picture of it.

A row is a stored image, a row group is a class; no column depends on workers, time or path. The metadata of the schema
contains everything else that training on the set needs, with a digest of this description and the pixels, because the
checksums of Parquet cover its pages only.
"""

import hashlib
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dream_ray import storage
from dream_ray.core.images.normalisation import Normalisation, Normalise
from dream_ray.core.images.synthetic import SyntheticSet
from dream_ray.data.store.image_grid import write_grid
from dream_ray.engine.run.directory import WHITENING_FILE
from dream_ray.engine.run.normalisation import read_whitening
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
    images_LNCHW = synthetic.images_LNCHW.cpu().numpy().astype("<f4")
    text = json.dumps(description).encode()
    schema = _SCHEMA.with_metadata({_METADATA_KEY: text, _DIGEST_KEY: _digest(text, images_LNCHW.tobytes())})
    with (
        storage.atomic_output(path) as file,
        pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        for label, name in enumerate(synthetic.class_names):
            rows = [image.tobytes() for image in images_LNCHW[label]]
            columns = [rows, [label] * ipc, [name] * ipc, [None] * ipc]
            writer.write_table(pa.table(dict(zip(_SCHEMA.names, columns, strict=True)), schema=schema))


def read_synthetic(path: str) -> tuple[SyntheticSet, dict[str, Any]]:
    """Reads a synthetic set and its description.

    Raises:
        UsageError: If the file does not exist, is not a synthetic set or has another format version.
        RunError: If it is damaged.
    """
    if not storage.exists(path):
        raise UsageError(f"synthetic set {path} does not exist")
    table = _read_table(path)
    metadata = table.schema.metadata or {}
    if _METADATA_KEY not in metadata or not table.schema.equals(_SCHEMA):
        raise UsageError(f"{path} is not a synthetic set of dream_ray: its columns or its metadata are different")
    try:
        description = json.loads(metadata[_METADATA_KEY])
    except ValueError as error:
        raise RunError(f"{path} is damaged: its description is not JSON: {error}") from None
    if (version := description.get("format_version")) != FORMAT_VERSION:
        raise UsageError(f"{path} has format_version {version}; this dream_ray reads {FORMAT_VERSION}")
    pixels = b"".join(table["image"].to_pylist())
    if metadata.get(_DIGEST_KEY) != _digest(metadata[_METADATA_KEY], pixels):
        raise RunError(f"{path} is damaged: its images and description do not match the digest in its metadata")
    shape = (description["num_classes"], description["ipc"], *description["shape"])
    synthetic = SyntheticSet(
        torch.from_numpy(np.frombuffer(pixels, dtype="<f4").reshape(shape).copy()),
        tuple(description["class_names"]),
        description["factor"],
        description["decode"],
        description["decode_bound"],
        tuple(description["mean"]),
        tuple(description["std"]),
        description.get("step_size"),
    )
    return synthetic, description


def _read_table(path: str) -> pa.Table:
    """Reads a Parquet file; raises UsageError if it is another kind of file, RunError if it is damaged."""
    data = storage.read_bytes(path)
    if not data.startswith(_MAGIC):
        raise UsageError(f"{path} is not a synthetic set of dream_ray: it is not a Parquet file")
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        # If torch is loaded too, threads of Arrow sometimes abort the process at its end.
        return file.read(use_threads=False)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last one for names that are not UTF-8
        raise RunError(f"{path} is damaged: {error}") from None


def _digest(description: bytes, pixels: bytes) -> bytes:
    digest = hashlib.sha256(description)
    digest.update(pixels)
    return digest.hexdigest().encode()


def read_dataset(path: str) -> "SyntheticDataset":
    """Reads a synthetic set as a dataset; for a whitened run, the whitening must be in the same directory.

    Raises:
        UsageError: As for `read_synthetic`.
        RunError: If it is damaged, or the whitening is missing or damaged.
    """
    synthetic, description = read_synthetic(path)
    if not description["recipe"].get("config", {}).get("data", {}).get("zca"):
        return SyntheticDataset(synthetic)
    beside = storage.sibling(path, WHITENING_FILE)
    return SyntheticDataset(synthetic, read_whitening(beside, synthetic.images_LNCHW.device))


def write_picture(path: str, synthetic: SyntheticSet) -> None:
    """Draws the stored images as PNG, one row per class, at most 20 classes and 10 images of each."""
    shown = synthetic.images_LNCHW[:_GRID_CLASSES, :_GRID_IMAGES]
    pixels = shown.clamp(0, 1).mul(255).round().to(torch.uint8).flatten(0, 1).cpu().numpy()
    names = list(synthetic.class_names[:_GRID_CLASSES])
    write_grid(path, pixels, columns=shown.shape[1], row_labels=names)


class SyntheticDataset(Dataset[tuple[Tensor, int]]):
    """A synthetic set as a PyTorch dataset of decoded, normalised images (C, H, W) float32 and labels.

    Attributes:
        images_NCHW: All images, float32, normalised.
        labels_N: Their labels, int64.
        class_names: Name of every class, by label.
        normalise: Maps images in [0, 1] to network inputs; apply it to test images too.
        mean: Mean of each channel of the real images, in [0, 1].
        std: Standard deviation of each channel of the real images, in [0, 1].
        step_size: Learning rate that was learned with the images, or None.
    """

    def __init__(self, synthetic: SyntheticSet, normalise: Normalise | None = None) -> None:
        decoded, self.labels_N = synthetic.decoded()
        self.normalise = normalise or Normalisation.of(synthetic.mean, synthetic.std, decoded.device)
        self.images_NCHW = self.normalise(decoded)
        self.class_names, self.mean, self.std = synthetic.class_names, synthetic.mean, synthetic.std
        self.step_size = synthetic.step_size

    def __len__(self) -> int:
        return len(self.labels_N)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images_NCHW[index], int(self.labels_N[index])
