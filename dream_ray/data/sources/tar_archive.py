"""Tar archives: of an image folder, one per class, or WebDataset shards; told apart by the first files in them.

- One archive of an image folder: the directories that hold everything are skipped (`imagenet/train/CLASS/...`), then
  it is read as the directory would be, with its splits.
- Several archives of plain files: each is a class, called as the archive (ImageNet's `n01440764.tar`).
- Archives with labels beside the images: WebDataset, see `webdataset.py`.

Compressed archives (`.tar.gz`, `.tgz`) have no random access; listing one copies its images to the spool.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

from dream_ray import storage
from dream_ray.data.sources.base import (
    LISTING,
    OpenedSource,
    Source,
    SourceKind,
    SourceOptions,
    open_files,
    open_splits,
    split_names,
)
from dream_ray.data.sources.tar_members import SUFFIXES, Member, members
from dream_ray.data.sources.webdataset import LABEL_SUFFIXES, WebDataset
from dream_ray.errors import UsageError

_SNIFFED = 4


class TarFolder:
    """An image folder in one archive.

    Args:
        path: The archive.
        prefix: Directories around the class directories.
        directories: Those of all files.
    """

    channels = 3

    def __init__(self, path: str, prefix: tuple[str, ...], directories: Iterable[tuple[str, ...]]) -> None:
        depth = len(prefix)
        self._prefix = prefix
        self.class_names = tuple(sorted({parts[depth] for parts in directories if parts[:depth] == prefix}))
        self.shards = (path,)

    def list_shard(self, number: int, spool: str) -> pa.Table:
        """Lists the files below `prefix`."""
        depth = len(self._prefix)
        rows = []
        for member in members(self.shards[number], spool):
            if member.escapes:
                rows.append(row(member, self.shards[number], None, "its path leads out of the archive"))
            elif not member.is_hidden and member.parts[:depth] == self._prefix and len(member.parts) > depth + 1:
                rows.append(row(member, self.shards[number], member.parts[depth]))
        return pa.Table.from_pylist(rows, schema=LISTING)


class TarPerClass:
    """An archive per class, called as the class.

    Args:
        paths: The archives.
        only: Classes to list; None: all.
    """

    channels = 3

    def __init__(self, paths: Sequence[str], only: Sequence[str] | None) -> None:
        self.class_names = tuple(sorted(_stem(path) for path in paths))
        self.shards = tuple(path for path in paths if only is None or _stem(path) in only)

    def list_shard(self, number: int, spool: str) -> pa.Table:
        """Lists the files of a class."""
        path = self.shards[number]
        rows = [row(member, path, _stem(path)) for member in members(path, spool) if not member.is_hidden]
        return pa.Table.from_pylist(rows, schema=LISTING)


def row(member: Member, archive: str, class_name: str | None, problem: str | None = None) -> dict[str, Any]:
    """Returns the row of a listing."""
    return {
        "class": class_name,
        "name": f"{archive}: {member.name}",
        "path": member.path,
        "offset": member.offset,
        "length": member.length,
        "problem": problem,
    }


def open_tar(source: str, options: SourceOptions) -> OpenedSource:
    """Opens archives."""
    paths = storage.glob(source, *SUFFIXES)
    if not paths:
        raise UsageError(f"source {source} is not a file")
    first = [member.parts for member in islice(members(paths[0], None), _SNIFFED)]
    if any(parts[-1].endswith(LABEL_SUFFIXES) for parts in first):
        return open_files(paths, source, lambda chosen: WebDataset(chosen, options.label_column))
    if len(paths) == 1:
        return _open_folder(paths[0])
    if any(len(parts) > 1 for parts in first):
        raise UsageError(f"source {source} must be one archive, one per class, or WebDataset shards; got several")
    return OpenedSource(TarPerClass(paths, options.classes))


def _open_folder(path: str) -> OpenedSource:
    directories = {member.parts[:-1] for member in members(path, None) if not (member.escapes or member.is_hidden)} - {
        ()
    }
    if not directories:
        raise UsageError(f"source {path} has no directories in it; an image folder holds one per class")
    prefix: tuple[str, ...] = ()
    while len(tops := _names_below(directories, prefix)) == 1 and _has_depth(directories, len(prefix) + 2):
        prefix += tuple(tops)
    if not split_names(tops):
        return OpenedSource(TarFolder(path, prefix, directories))

    def open_part(name: str) -> Source:
        return TarFolder(path, (*prefix, name), directories)

    return open_splits(tops, path, open_part)


def _names_below(directories: Iterable[tuple[str, ...]], prefix: tuple[str, ...]) -> list[str]:
    depth = len(prefix)
    return sorted({parts[depth] for parts in directories if len(parts) > depth and parts[:depth] == prefix})


def _has_depth(directories: Iterable[tuple[str, ...]], depth: int) -> bool:
    return any(len(parts) >= depth for parts in directories)


def _stem(path: str) -> str:
    return path.rpartition("/")[2].partition(".")[0]


def _matches(source: str) -> bool:
    return source.endswith(SUFFIXES) or (storage.is_directory(source) and bool(storage.glob(source, *SUFFIXES)))


TAR_ARCHIVE = SourceKind(
    "tar archives (FILE.tar of an image folder, or DIR/*.tar: one per class, or WebDataset shards)",
    _matches,
    open_tar,
    frozenset({"label_column"}),
)
