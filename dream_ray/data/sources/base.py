"""The form of a source of labelled images: independent shards, each of which lists its images."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from dream_ray import storage
from dream_ray.data.arrays import UInt8Array
from dream_ray.data.class_lists import composed
from dream_ray.data.file_names import is_hidden, is_other_file
from dream_ray.errors import UsageError

_ROWS_PER_BATCH = 4096
_OTHERS = b"other_files"
_NUMBER = re.compile(r"\d{1,100}(\.\d{1,100})?")

LAYOUTS = ("folders", "archives", "webdataset", "parquet")
"""What files can be: directories of classes, an archive per class, shards of a WebDataset, Parquet files."""

LISTING = pa.schema(
    [
        pa.field("class", pa.string()),  # null if unknown; `problem` then gives the reason
        pa.field("name", pa.string(), nullable=False),  # identifies the image in messages
        pa.field("path", pa.string(), nullable=False),  # file that holds the encoded image
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("length", pa.int64()),  # null: to the end of the file
        pa.field("problem", pa.string()),  # why the image cannot be used, else null
    ]
)
"""One row per image: bytes [offset, offset + length) of a file are an encoded image such as a JPEG."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Labelled images in independent shards. A source is small, holds no image and can be pickled.

    Attributes:
        class_names: Class names in label order, see `names_of`; None if only the listing contains them.
        shards: Names of the shards, for messages.
        list_shard: (index of a shard, path of a spool) -> a table of schema `LISTING` in the order of the source. A
            source without random access copies its encoded images to the spool. Raises UsageError for a shard of the
            wrong form and RunError for one that cannot be read.
        channels: Default number of channels of a store of these images: 1 or 3.
        is_in_process: Whether it holds objects of this process, which therefore lists it. It cannot be pickled then.
    """

    class_names: tuple[str, ...] | None
    shards: tuple[str, ...]
    list_shard: Callable[[int, str], pa.Table]
    channels: int = 3
    is_in_process: bool = False


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Settings of the sources; each kind of source uses some.

    Attributes:
        image_column: Parquet column of the images, or kind of their files in a WebDataset, such as ".input.jpg".
        label_column: Column of the labels in Parquet files and label files, JSON field of a WebDataset, or kind of its
            label files, such as ".output.cls".
        root: Folder of the torchvision datasets.
        download: Let torchvision download missing files.
        layout: One of `LAYOUTS`; None: the files tell.
        labels: File with the labels of the images, see `label_file.py`.
        label_pattern: What gives the class in the name of a file, see `label_patterns.py`.
        classes: Candidate names of the classes to store; None: all. A source may skip other classes.
        channels: Channels of the store; None: those of the source.
        size: Side of the store's images; None: not known yet.
        given: Images of the program by the texts that stand for them, see `in_memory.py`.
    """

    image_column: str = "image"
    label_column: str = "label"
    root: str | None = None
    download: bool = False
    layout: str | None = None
    labels: str | None = None
    label_pattern: str | None = None
    classes: tuple[str, ...] | None = None
    channels: int | None = None
    size: int | None = None
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OpenedSource:
    """The training and test images of a source.

    Attributes:
        train: Training images; all images of a source without splits.
        open_test: Opens the test images; None if the source has none.
    """

    train: Source
    open_test: Callable[[], Source] | None = None


@dataclass(frozen=True)
class SourceKind:
    """One kind of source.

    Attributes:
        accepts: Accepted texts, for messages.
        matches: Whether a text names a source of this kind.
        open: Opens a source; raises UsageError if it is missing or has the wrong form.
        uses: Names of the options that this kind reads.
        layouts: Those of `LAYOUTS` that it reads; empty: it has a form of its own.
    """

    accepts: str
    matches: Callable[[str], bool]
    open: Callable[[str, SourceOptions], OpenedSource]
    uses: frozenset[str] = frozenset()
    layouts: frozenset[str] = frozenset()


def find_files(source: str, layout: str | None, *suffixes: str) -> list[str]:
    """Returns the files that a text names, see `storage.glob`.

    Args:
        source: The text.
        layout: The layout that the user chose.
        suffixes: Ends of the names of the files.

    Raises:
        UsageError: If there are none, or if they lie beside directories, which may be the classes of an image folder,
            and no layout is chosen.
    """
    paths = storage.glob(source, *suffixes)
    if not paths:
        raise UsageError(f"source must be a file, or a pattern with * that matches files; got {source!r}: no such file")
    beside = storage.list_directories(source) if storage.is_directory(source) else []
    directories = [name for name in beside if not is_hidden(name)]
    if directories and layout is None:
        name = paths[0].rpartition("/")[2]
        pattern = storage.join(source, "*" + next(suffix for suffix in suffixes if name.endswith(suffix)))
        raise UsageError(
            f"source {source} must contain either class directories or files such as {name!r}; got "
            f"{name!r} beside {directories[0]}/: name the files by a pattern such as {pattern}, or choose the "
            "directories with --layout folders"
        )
    return paths


def listing_of(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Returns a table of schema `LISTING`; missing fields are null, and at most one batch of rows is in memory."""
    remaining = iter(rows)
    batches = []
    while some := list(islice(remaining, _ROWS_PER_BATCH)):
        batches.append(pa.RecordBatch.from_pylist(some, schema=LISTING))
    return pa.Table.from_batches(batches, schema=LISTING)


def listing_of_files(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Returns the listing of files without other files (`is_other_file`), whose numbers it keeps, see `other_files`."""
    others: Counter[str] = Counter()

    def images() -> Iterator[dict[str, Any]]:
        for row in rows:
            if is_other_file(row["name"]) and row["problem"] is None:
                others[_kind(row["name"])] += 1
            else:
                yield row

    table = listing_of(images())
    return table.replace_schema_metadata({_OTHERS: json.dumps(others)})


def other_files(listing: pa.Table) -> dict[str, int]:
    """Returns the numbers of other files that a listing left out, by the ends of their names."""
    found: dict[str, int] = json.loads((listing.schema.metadata or {}).get(_OTHERS, b"{}"))
    return found


def _kind(name: str) -> str:
    base = name.rpartition("/")[2].lower()
    return base[base.rindex(".") :] if "." in base else base


def rows_below(directory: str) -> dict[str, dict[str, Any]]:
    """Returns listing rows without class for everything below a directory that is not hidden, by relative path.

    Links to nothing, pipes and devices become rows with a problem, so that no image is skipped silently.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, is_file in storage.list_leaves(directory):
        if not is_hidden(name):
            path = storage.join(directory, name)
            problem = None if is_file else "a link to nothing, or no regular file"
            rows[name] = {"name": path, "path": path, "offset": 0, "problem": problem}
    return rows


def names_of(files: Iterable[str], source: str) -> tuple[str, ...]:
    """Returns the class names that files or directories have, in the order of labels.

    Args:
        files: Names of the files or directories.
        source: The source, for the error.

    Raises:
        UsageError: If two of them differ in their Unicode form only.
    """
    named: dict[str, str] = {}
    for file in files:
        if named.setdefault(composed(file), file) != file:
            raise UsageError(
                f"class names of {source} must be unique; {composed(file)!r} occurs twice, in two Unicode forms (NFC "
                "and NFD): rename one, or move its images to the other"
            )
    return order_of_names(set(named))


def order_of_names(names: set[str]) -> tuple[str, ...]:
    """Returns discovered class names in order: by value if all are numbers, such as 9 and 10.5, else as text."""
    if all(_NUMBER.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (Fraction(name), name)))
    return tuple(sorted(names))


def pnm(pixels: UInt8Array) -> bytes:
    """Encodes pixels (H, W) or (H, W, 3) as PGM or PPM: a header line and the raw bytes."""
    kind = "P5" if pixels.ndim == 2 else "P6"
    height, width = pixels.shape[:2]
    return f"{kind} {width} {height} 255\n".encode() + np.ascontiguousarray(pixels).tobytes()
