"""What a source of labelled images is: a list of pieces, each of which says where its images lie."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import pyarrow as pa

from dream_ray import storage
from dream_ray.errors import UsageError

_SPLITS = ("train", "val", "validation", "test")
# What splits are called elsewhere, in any case of letters. They are not guessed at: refused, for the user to say.
_TRAIN_WORDS = frozenset({"train", "training"})
_SPLIT_WORDS = _TRAIN_WORDS | {"val", "valid", "validation", "dev", "test", "testing", "eval"}

_ROWS_PER_BATCH = 4096

LISTING = pa.schema(
    [
        pa.field("class", pa.string()),  # null where `problem` says that it could not be found out
        pa.field("name", pa.string(), nullable=False),  # what a user knows the image by
        pa.field("path", pa.string(), nullable=False),  # file that holds the encoded image
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("length", pa.int64()),  # null: to the end of the file
        pa.field("problem", pa.string()),  # why there is no image to be had, else null
    ]
)
"""One row an image: bytes [offset, offset + length) of a file are an image file such as a JPEG."""


class Source(Protocol):
    """Labelled images in one or more pieces (shards), which are listed independently of each other.

    A source is a small value that travels to other processes; it holds no image.
    """

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes in their order; None where only the listing tells, see `order_of_names`."""

    @property
    def channels(self) -> int:
        """Channels that a store of these images has unless told otherwise: 1 or 3."""

    @property
    def shards(self) -> tuple[str, ...]:
        """What a user knows each shard by."""

    def list_shard(self, number: int, spool: str) -> pa.Table:
        """Lists the images of a shard.

        Args:
            number: Index into `shards`.
            spool: File to write the encoded images to, where the source itself has no random access to them.

        Returns:
            A table of schema `LISTING`, in the order of the source.

        Raises:
            UsageError: If the shard is not of its form.
            RunError: If it cannot be read.
        """


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Settings of the sources; each kind of source uses some.

    Attributes:
        image_column: Parquet column of the images.
        label_column: Parquet column, or JSON field of a WebDataset, of the labels.
        root: Folder of the torchvision datasets.
        download: Let torchvision download what is missing.
        classes: Names among which are those of the classes that will be stored; None: all. A source may leave out
            other classes.
    """

    image_column: str = "image"
    label_column: str = "label"
    root: str | None = None
    download: bool = False
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class OpenedSource:
    """What a source holds.

    Attributes:
        train: Its training images; all of its images if it knows no splits.
        open_test: Opens the test images that belong to it; None if it has none.
    """

    train: Source
    open_test: Callable[[], Source] | None = None


@dataclass(frozen=True)
class SourceKind:
    """One kind of source.

    Attributes:
        accepts: How it is written, for messages.
        matches: Whether a text given by the user means this kind.
        open: Opens it; raises UsageError if it is missing or not of its form.
        uses: Names of the options that it looks at.
    """

    accepts: str
    matches: Callable[[str], bool]
    open: Callable[[str, SourceOptions], OpenedSource]
    uses: frozenset[str] = frozenset()


def find_files(source: str, *suffixes: str) -> list[str]:
    """Returns the files that a user means, see `storage.glob`.

    Raises:
        UsageError: If there are none, or they lie beside directories, which may be the classes of an image folder.
    """
    paths = storage.glob(source, *suffixes)
    if paths and storage.is_directory(source):
        directories = [name for name in storage.list_directories(source) if not is_hidden(name)]
        if directories:
            name = paths[0].rpartition("/")[2]
            pattern = storage.join(source, "*" + next(suffix for suffix in suffixes if name.endswith(suffix)))
            raise UsageError(
                f"source {source} must have either directories of classes in it or files such as {name!r}; got "
                f"{name!r} beside {directories[0]}/: move one of them, or give the files by a pattern such as {pattern}"
            )
    if not paths:
        raise UsageError(f"source must be a file, or a pattern with * that files match; got {source!r}: there is none")
    return paths


def is_hidden(path: str) -> bool:
    """Tells whether a relative path has a part that starts with a dot."""
    return any(part.startswith(".") for part in path.split("/"))


def listing_of(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Returns the table of some rows, of schema `LISTING`; only a batch of them is held as Python objects at a time."""
    remaining = iter(rows)
    batches = []
    while some := list(islice(remaining, _ROWS_PER_BATCH)):
        batches.append(pa.RecordBatch.from_pylist(some, schema=LISTING))
    return pa.Table.from_batches(batches, schema=LISTING)


def rows_below(directory: str) -> dict[str, dict[str, Any]]:
    """Returns the rows of a listing, without class, of what lies below a directory, by relative path; hidden names not.

    What is there but cannot be an image is a problem, and no image that was left out without a word.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, is_file in storage.list_leaves(directory):
        if not is_hidden(name):
            path = storage.join(directory, name)
            problem = None if is_file else "a link to nothing, or no regular file"
            rows[name] = {"name": path, "path": path, "offset": 0, "problem": problem}
    return rows


def order_of_names(names: set[str]) -> tuple[str, ...]:
    """Returns discovered class names in order: as numbers if all are numbers, else as text."""
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def split_names(names: Sequence[str]) -> bool:
    """Tells whether the parts of a set are its splits: `train` and nothing but `val`, `validation` and `test`."""
    return "train" in names and set(names) <= set(_SPLITS)


def look_like_splits(names: Iterable[str]) -> bool:
    """Tells whether the parts of a set are called as splits are, in whatever spelling: training images and others."""
    words = {name.casefold() for name in names}
    return words <= _SPLIT_WORDS and not words.isdisjoint(_TRAIN_WORDS) and not words <= _TRAIN_WORDS


def directories_are_splits(directories: Sequence[str], source: str) -> bool:
    """Tells whether the directories of an image folder are its splits, see `split_names`, or else its classes.

    Raises:
        UsageError: If training images and another split lie beside directories that are none, or are called otherwise.
    """
    if split_names(directories):
        return True
    splits = [name for name in directories if name.casefold() in _SPLIT_WORDS]
    if not look_like_splits(splits):
        return False
    others = [name for name in directories if name not in splits]
    found = ", ".join(splits) + (f" beside {others[0]}: move that away" if others else ": rename them")
    raise UsageError(
        f"source {source} must have either directories of classes in it, or train and val or test alone; got {found}, "
        "or name the training images and --test each"
    )


def open_splits(names: Sequence[str], source: str, open_part: Callable[[str], Source]) -> OpenedSource:
    """Opens a set that is parted into splits.

    Args:
        names: Its splits, see `split_names`.
        source: The set, for messages.
        open_part: Opens one of them.
    """
    others = [name for name in names if name != "train"]

    def open_test() -> Source:
        if len(others) > 1:
            raise UsageError(f"source {source} holds {' and '.join(others)}: name the one to test on with --test")
        return open_part(others[0])

    return OpenedSource(open_part("train"), open_test if others else None)


def open_files(paths: Sequence[str], source: str, open_part: Callable[[Sequence[str]], Source]) -> OpenedSource:
    """Opens a set of files whose names may tell their splits: `train-00000.tar`, `imagenet_validation_3.parquet`.

    Args:
        paths: The files; where all names tell the same split, or none, they are one set.
        source: The set, for messages.
        open_part: Opens some of them.

    Raises:
        UsageError: If only some names tell a split, or one tells several, or none is `train`, or they tell splits by
            other words.
    """
    by_split = _by_words(paths, _SPLITS)
    if len(by_split) == 1:
        called = _by_words(paths, sorted(_SPLIT_WORDS))
        if not look_like_splits(called):
            return OpenedSource(open_part(paths))
        by_split = called
    if not split_names(list(by_split)):
        pattern = _pattern(next((by_split[word] for word in by_split if word in _TRAIN_WORDS), paths)[0])
        found = ", ".join(f"{of_split[0].rpartition('/')[2]} ({split})" for split, of_split in by_split.items())
        raise UsageError(
            f"files of {source} must all be of one split, or each have one of {', '.join(_SPLITS)} in its name, train "
            f"among them; got {found}: give those to use by a pattern such as {pattern}"
        )
    return open_splits(list(by_split), source, lambda name: open_part(by_split[name]))


def _by_words(paths: Sequence[str], words: Sequence[str]) -> dict[str, list[str]]:
    """Sorts files by which of some words are words, which are runs of letters, of their names."""
    by_words: dict[str, list[str]] = {}
    for path in paths:
        of_name = re.findall(r"[^\W\d_]+", path.rpartition("/")[2].lower())
        by_words.setdefault(" and ".join(word for word in words if word in of_name) or "none", []).append(path)
    return by_words


def _pattern(path: str) -> str:
    """Returns a pattern for a file and those that are called alike but for their numbers."""
    return storage.sibling(path, re.sub(r"\d+", "*", path.rpartition("/")[2]))
