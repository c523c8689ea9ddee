"""The form of a source of labelled images: independent shards, each of which lists its images."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from dream_ray import storage
from dream_ray.data.arrays import UInt8Array
from dream_ray.data.class_lists import composed
from dream_ray.errors import UsageError

_SPLITS = ("train", "val", "validation", "test")
# Other common names of splits, in any case of letters. They are refused: their meaning is not guessed.
_TRAIN_WORDS = frozenset({"train", "training"})
_SPLIT_WORDS = _TRAIN_WORDS | {"val", "valid", "validation", "dev", "test", "testing", "eval"}

_ROWS_PER_BATCH = 4096

LAYOUTS = ("archives", "webdataset")
"""What several tar archives can be: one per class, or shards of a WebDataset."""

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
        image_column: Parquet column of the images.
        label_column: Parquet column, or JSON field of a WebDataset, of the labels.
        root: Folder of the torchvision datasets.
        download: Let torchvision download missing files.
        layout: Key of `LAYOUTS`; None: the first files of the archives tell.
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
    """

    accepts: str
    matches: Callable[[str], bool]
    open: Callable[[str, SourceOptions], OpenedSource]
    uses: frozenset[str] = frozenset()


def find_files(source: str, *suffixes: str) -> list[str]:
    """Returns the files that a text names, see `storage.glob`.

    Raises:
        UsageError: If there are none, or if they lie beside directories, which may be the classes of an image folder.
    """
    paths = storage.glob(source, *suffixes)
    if not paths:
        raise UsageError(f"source must be a file, or a pattern with * that matches files; got {source!r}: no such file")
    beside = storage.list_directories(source) if storage.is_directory(source) else []
    directories = [name for name in beside if not is_hidden(name)]
    if directories:
        name = paths[0].rpartition("/")[2]
        pattern = storage.join(source, "*" + next(suffix for suffix in suffixes if name.endswith(suffix)))
        raise UsageError(
            f"source {source} must contain either class directories or files such as {name!r}; got "
            f"{name!r} beside {directories[0]}/: move one of them, or name the files by a pattern such as {pattern}"
        )
    return paths


def is_hidden(path: str) -> bool:
    """Tells whether a part of a relative path starts with a dot."""
    return any(part.startswith(".") for part in path.split("/"))


def listing_of(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Returns a table of schema `LISTING`; missing fields are null, and at most one batch of rows is in memory."""
    remaining = iter(rows)
    batches = []
    while some := list(islice(remaining, _ROWS_PER_BATCH)):
        batches.append(pa.RecordBatch.from_pylist(some, schema=LISTING))
    return pa.Table.from_batches(batches, schema=LISTING)


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
    """Returns discovered class names in order: by value if all are numbers, else as text."""
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def look_like_splits(names: Iterable[str]) -> bool:
    """Tells whether names are those of splits in any spelling: training images and others."""
    words = {name.casefold() for name in names}
    return words <= _SPLIT_WORDS and not words.isdisjoint(_TRAIN_WORDS) and not words <= _TRAIN_WORDS


def directories_are_splits(directories: Sequence[str], source: str) -> bool:
    """Tells whether directories are splits (`train` and any of `val`, `validation`, `test`) rather than classes.

    Raises:
        UsageError: If splits lie beside other directories, or have other names.
    """
    if _are_splits(directories):
        return True
    words = [_split_word(name) for name in directories]
    plain = {name.casefold() for name in directories} <= _SPLIT_WORDS
    if not plain and None not in words and look_like_splits(filter(None, words)):
        train, other = (
            next(name for name, word in zip(directories, words, strict=True) if (word in _TRAIN_WORDS) == is_train)
            for is_train in (True, False)
        )
        named = f"name the training images, {storage.join(source, train)}, with --test {storage.join(source, other)}"
        raise UsageError(
            f"source {source} has directories with names of splits ({', '.join(directories)}), which are no classes: "
            + (named if storage.is_directory(source) else "rename them to train and test")
        )
    splits = [name for name in directories if name.casefold() in _SPLIT_WORDS]
    if not look_like_splits(splits):
        return False
    others = [name for name in directories if name not in splits]
    found = ", ".join(splits) + (f" beside {others[0]}: move it away" if others else ": rename them")
    raise UsageError(
        f"source {source} must contain either class directories, or only train and val or test; got {found}, "
        "or name the training images and --test separately"
    )


def _split_word(name: str) -> str | None:
    """Returns the one word of a split in a name such as seg_train or val2012; None if there is none, or several."""
    found = [word for word in re.findall(r"[^\W\d_]+", name.casefold()) if word in _SPLIT_WORDS]
    return found[0] if len(found) == 1 else None


def _are_splits(names: Sequence[str]) -> bool:
    return "train" in names and set(names) <= set(_SPLITS)


def open_splits(names: Sequence[str], source: str, open_part: Callable[[str], Source]) -> OpenedSource:
    """Opens a set that is divided into splits.

    Args:
        names: Its splits: `train` and any of `val`, `validation` and `test`.
        source: The set, for messages.
        open_part: Opens one split.
    """
    others = [name for name in names if name != "train"]

    def open_test() -> Source:
        if len(others) > 1:
            raise UsageError(f"source {source} contains {' and '.join(others)}: name the test split with --test")
        return open_part(others[0])

    return OpenedSource(open_part("train"), open_test if others else None)


def open_files(paths: Sequence[str], source: str, open_part: Callable[[Sequence[str]], Source]) -> OpenedSource:
    """Opens files whose names may contain their split: `train-00000.tar`, `imagenet_validation_3.parquet`.

    Args:
        paths: The files. If all names contain the same split, or none, the files are one set.
        source: The set, for messages.
        open_part: Opens some of the files.

    Raises:
        UsageError: If only some names contain a split, one contains several, none contains `train`, or they use other
            words for splits.
    """
    by_split = _by_words(paths, _SPLITS)
    if len(by_split) == 1:
        called = _by_words(paths, sorted(_SPLIT_WORDS))
        if not look_like_splits(called):
            return OpenedSource(open_part(paths))
        by_split = called
    if not _are_splits(list(by_split)):
        path = next((by_split[word] for word in by_split if word in _TRAIN_WORDS), paths)[0]
        pattern = storage.sibling(path, re.sub(r"\d+", "*", path.rpartition("/")[2]))
        found = ", ".join(f"{of_split[0].rpartition('/')[2]} ({split})" for split, of_split in by_split.items())
        raise UsageError(
            f"files of {source} must all belong to one split, or each contain one of {', '.join(_SPLITS)} in its name, "
            f"train among them; got {found}: select files by a pattern such as {pattern}"
        )
    return open_splits(list(by_split), source, lambda name: open_part(by_split[name]))


def _by_words(paths: Sequence[str], words: Sequence[str]) -> dict[str, list[str]]:
    """Groups files by the given words that occur in their names; a word is a run of letters."""
    by_words: dict[str, list[str]] = {}
    for path in paths:
        of_name = re.findall(r"[^\W\d_]+", path.rpartition("/")[2].lower())
        by_words.setdefault(" and ".join(word for word in words if word in of_name) or "none", []).append(path)
    return by_words


def append(file: Any, data: Any) -> dict[str, int]:
    """Appends an encoded image to a spool; returns its offset and length as fields of a listing."""
    offset = file.tell()
    file.write(data)
    return {"offset": offset, "length": len(data)}


def pnm(pixels: UInt8Array) -> bytes:
    """Encodes pixels (H, W) or (H, W, 3) as PGM or PPM: a header line and the raw bytes."""
    kind = "P5" if pixels.ndim == 2 else "P6"
    height, width = pixels.shape[:2]
    return f"{kind} {width} {height} 255\n".encode() + np.ascontiguousarray(pixels).tobytes()
