"""What a store says about itself: `manifest.json`, written last, so that a store without one is not whole."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from dream_ray import storage
from dream_ray.errors import UsageError

SPLITS = ("train", "validation", "test")
SCHEMA_VERSION = 2
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class ImageFile:
    """One file of images: some of those of one class in one split; files of both follow in the order of the manifest.

    Attributes:
        split: One of SPLITS.
        label: Label of the class.
        path: Relative to the store.
        rows: Images in it.
        sha256: Digest of the file.
        bytes: Its size.
    """

    split: str
    label: int
    path: str
    rows: int
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """Description of a store.

    Attributes:
        schema_version: Version of the layout.
        class_names: By label.
        channels: 1 or 3.
        height: Of every image, in pixels.
        width: Likewise.
        encoding: A key of `encodings.ENCODINGS`.
        counts: Images by split and label; a split that the store does not have counts 0 everywhere.
        mean: Per channel, over the pixels of train and validation scaled to [0, 1].
        std: Population standard deviation, likewise.
        files: Image files; a class without images in a split has none there.
        source: Where the images came from, as given.
        settings: What else was given to `ingest`.
        num_rejects: Images that could not be read; rejects.parquet lists them.
        versions: Libraries that wrote the store.
    """

    schema_version: int
    class_names: tuple[str, ...]
    channels: int
    height: int
    width: int
    encoding: str
    counts: dict[str, tuple[int, ...]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    files: tuple[ImageFile, ...]
    source: str
    settings: dict[str, Any]
    num_rejects: int
    versions: dict[str, str]

    @property
    def checksum(self) -> str:
        """SHA-256 over class names, shape and the files' digests: the same content has the same, wherever it lies."""
        files = sorted((file.split, file.label, file.path, file.rows, file.sha256) for file in self.files)
        content = [self.class_names, [self.channels, self.height, self.width], files]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def write(self, store: str) -> None:
        """Writes it to a store, which is whole from then on."""
        storage.write_json(storage.join(store, MANIFEST), asdict(self), indent=1)

    @classmethod
    def read(cls, store: str) -> "Manifest":
        """Reads the manifest of a store.

        Raises:
            UsageError: If there is no store, or none that this version reads.
            RunError: If the manifest is damaged.
        """
        path = storage.join(store, MANIFEST)
        if not storage.exists(path):
            raise UsageError(f"store {store} does not exist: there is no {MANIFEST} in it; make it with `ingest`")
        values = storage.read_json(path)
        try:
            version = values["schema_version"]
        except (KeyError, TypeError) as error:
            raise UsageError(f"{path} is not the manifest of a store: {_describe(error)}") from None
        if version != SCHEMA_VERSION:
            raise UsageError(f"store {store} has schema_version {version}; this dream_ray reads {SCHEMA_VERSION}")
        try:
            return cls._from_values(values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path} is not a whole manifest: {_describe(error)}") from None

    @classmethod
    def _from_values(cls, values: dict[str, Any]) -> "Manifest":
        plain = {field.name: values[field.name] for field in fields(cls)}
        plain["counts"] = {split: tuple(values["counts"][split]) for split in SPLITS}
        plain["files"] = tuple(ImageFile(**file) for file in values["files"])
        for name in ("class_names", "mean", "std"):
            plain[name] = tuple(values[name])
        return cls(**plain)


def _describe(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
