"""The manifest of a store: `manifest.json`, written last, so that a store without one is incomplete."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dream_ray import storage
from dream_ray.core.tables import ShownAsTables, Table
from dream_ray.errors import UsageError

SPLITS = ("train", "validation", "test")
SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
_MOST_NAMES = 5
_MOST_ROWS = 20


@dataclass(frozen=True)
class ImageFile:
    """One file of images of one class in one split; the manifest lists the files of both in order.

    Attributes:
        split: One of SPLITS.
        label: Label of the class.
        path: Relative to the store.
        rows: Number of images.
        sha256: Digest of the file.
        bytes: Size of the file.
    """

    split: str
    label: int
    path: str
    rows: int
    sha256: str
    bytes: int


@dataclass(frozen=True, repr=False)
class Manifest(ShownAsTables):
    """Description of a store; a console and a notebook show its classes as a table.

    Attributes:
        schema_version: Version of the layout.
        class_names: By label.
        channels: 1 or 3.
        height: Height of every image in pixels.
        width: Width of every image in pixels.
        encoding: A key of `encodings.ENCODINGS`.
        counts: Number of images by split and label; 0 for the labels of a missing split.
        mean: Per channel, over the pixels of train and validation scaled to [0, 1].
        std: Population standard deviation, likewise.
        files: Image files.
        source: Source of the images, as given.
        settings: The other settings of the ingest.
        num_rejects: Number of images that could not be read; rejects.parquet lists them.
        versions: Versions of the libraries that wrote the store.
        equal_images: Numbers of images with equal pixels, see `count_equal_images` of the ingest; empty in stores of
            earlier versions.
        other_files: Numbers of files that are no images by the ends of their names, which the ingest left out.
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
    equal_images: dict[str, int] = field(default_factory=dict)
    other_files: dict[str, int] = field(default_factory=dict)

    @property
    def shape_CHW(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return self.channels, self.height, self.width

    @property
    def checksum(self) -> str:
        """SHA-256 over class names, shape and digests of the files; independent of the location."""
        files = sorted((file.split, file.label, file.path, file.rows, file.sha256) for file in self.files)
        content = [self.class_names, [self.channels, self.height, self.width], files]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def tables(self) -> list[Table]:
        """Returns the images of each class by split, of the first classes if there are many."""
        splits = [split for split, counts in self.counts.items() if any(counts)]
        rows = [
            [name, *(str(self.counts[split][label]) for split in splits)]
            for label, name in enumerate(self.class_names[:_MOST_ROWS])
        ]
        if (others := len(self.class_names) - _MOST_ROWS) > 0:
            rows.append([f"and {others} more", *("" for _ in splits)])
        images, shape = sum(map(sum, self.counts.values())), " x ".join(map(str, self.shape_CHW))
        title = f"{images} images of {len(self.class_names)} classes, {shape}; {self.num_rejects} rejects"
        return [Table(title, ["class", *splits], rows)]

    def write(self, store: str) -> None:
        """Writes the manifest, which completes the store."""
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
            found = "is no store" if storage.list_directory(store) else "does not exist"
            raise UsageError(
                f"store {store} {found}: it contains no {MANIFEST}. `dream-ray ingest IMAGES STORE` makes a store"
            )
        values = storage.read_json(path)
        version = values.get("schema_version") if isinstance(values, dict) else None
        if version != SCHEMA_VERSION:
            raise UsageError(
                f"{path} must have schema_version {SCHEMA_VERSION}, which this dream_ray reads; got {version}"
            )
        try:
            manifest = TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise UsageError(f"{path} is not a complete manifest: {place}: {first['msg']}") from None
        if missing := set(SPLITS) - set(manifest.counts):
            raise UsageError(f"{path} is not a complete manifest: counts: {', '.join(sorted(missing))} missing")
        return manifest


def shown_names(names: Sequence[str]) -> str:
    """Returns the number of classes and the first names as text, such as "2 classes: cat, dog"."""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{len(names)} classes: {', '.join(names[:_MOST_NAMES])}{more}"
