"""Tar archives: of an image folder, one per class, or WebDataset shards; told apart by the first files in them.

- One archive of an image folder: the directories that hold everything are skipped (`imagenet/train/CLASS/...`), then
  it is read as the directory would be, with its splits.
- Several archives of plain files: each is a class, called as the archive (ImageNet's `n01440764.tar`).
- Archives with an image and its label under one key: WebDataset, see `webdataset.py`.

Compressed archives (`.tar.gz`, `.tgz`) have no random access; listing one copies its images to the spool.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

from dream_ray import storage
from dream_ray.data.sources.base import (
    OpenedSource,
    Source,
    SourceKind,
    SourceOptions,
    directories_are_splits,
    find_files,
    is_hidden,
    listing_of,
    look_like_splits,
    open_files,
    open_splits,
)
from dream_ray.data.sources.tar_members import SUFFIXES, members
from dream_ray.data.sources.webdataset import WebDataset, has_samples
from dream_ray.errors import UsageError

# A sample of a WebDataset has a few files; some may come before the first image and its label.
_SNIFFED = 16


class TarFolder:
    """An image folder in one archive.

    Args:
        path: The archive.
        prefix: Directories around the class directories.
        directories: Those of all files.
    """

    channels = 3

    def __init__(self, path: str, prefix: tuple[str, ...], directories: Iterable[tuple[str, ...]]) -> None:
        self._prefix = prefix
        self.class_names = tuple(_names_below(directories, prefix))
        self.shards = (path,)

    def list_shard(self, number: int, spool: str) -> pa.Table:
        """Lists the files below `prefix`."""
        return listing_of(self._rows(self.shards[number], spool))

    def _rows(self, path: str, spool: str) -> Iterator[dict[str, Any]]:
        depth = len(self._prefix)
        for member in members(path, spool):
            if member.escapes:
                yield member.row(None)
            elif not is_hidden(member.name) and member.parts[:depth] == self._prefix and len(member.parts) > depth + 1:
                yield member.row(member.parts[depth])


class TarPerClass:
    """An archive per class, called as the class.

    Args:
        paths: The archives.
        only: Classes to list; None: all.
    """

    channels = 3

    def __init__(self, paths: Sequence[str], only: Sequence[str] | None) -> None:
        self.class_names = tuple(sorted(_class_of(path) for path in paths))
        self.shards = tuple(path for path in paths if only is None or _class_of(path) in only)

    def list_shard(self, number: int, spool: str) -> pa.Table:
        """Lists the files of a class."""
        path = self.shards[number]
        return listing_of(
            member.row(_class_of(path))
            for member in members(path, spool)
            if member.escapes or not is_hidden(member.name)
        )


def open_tar(source: str, options: SourceOptions) -> OpenedSource:
    """Opens archives."""
    paths = find_files(source, *SUFFIXES)
    first = list(islice(members(paths[0], None), _SNIFFED))
    if has_samples(first):
        return open_files(paths, source, lambda chosen: WebDataset(chosen, options.label_column))
    if len(paths) == 1:
        return _open_folder(paths[0])
    deep = next((member.name for member in first if len(member.parts) > 1), None)
    if deep is not None:
        raise UsageError(
            f"source {source} must be one archive of an image folder, WebDataset shards, or an archive per class, "
            f"without directories in it; got {len(paths)} archives, and {deep} in {paths[0]}"
        )
    classes = TarPerClass(paths, options.classes)
    if look_like_splits(classes.class_names):
        raise UsageError(
            f"source {source} must have an archive per class, which is called as the class; got "
            f"{', '.join(classes.class_names)}, which are called as splits, without directories of classes in them"
        )
    return OpenedSource(classes)


def _open_folder(path: str) -> OpenedSource:
    directories = {
        member.parts[:-1]
        for member in members(path, None)
        if len(member.parts) > 1 and not (member.escapes or is_hidden(member.name))
    }
    if not directories:
        raise UsageError(f"source {path} has no directories in it; an image folder holds one per class")
    prefix: tuple[str, ...] = ()
    while len(tops := _names_below(directories, prefix)) == 1 and _has_depth(directories, len(prefix) + 2):
        prefix += tuple(tops)
    if not directories_are_splits(tops, path):
        return OpenedSource(TarFolder(path, prefix, directories))

    def open_part(name: str) -> Source:
        return TarFolder(path, (*prefix, name), directories)

    return open_splits(tops, path, open_part)


def _names_below(directories: Iterable[tuple[str, ...]], prefix: tuple[str, ...]) -> list[str]:
    depth = len(prefix)
    return sorted({parts[depth] for parts in directories if len(parts) > depth and parts[:depth] == prefix})


def _has_depth(directories: Iterable[tuple[str, ...]], depth: int) -> bool:
    return any(len(parts) >= depth for parts in directories)


def _class_of(path: str) -> str:
    name = path.rpartition("/")[2]
    return name[: -len(next(suffix for suffix in SUFFIXES if name.endswith(suffix)))]


def _matches(source: str) -> bool:
    return source.endswith(SUFFIXES) or (storage.is_directory(source) and bool(storage.glob(source, *SUFFIXES)))


TAR_ARCHIVE = SourceKind(
    "tar archives (FILE.tar of an image folder, or DIR/*.tar: one per class, or WebDataset shards)",
    _matches,
    open_tar,
    frozenset({"label_column"}),
)
