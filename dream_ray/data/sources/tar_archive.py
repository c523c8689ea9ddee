"""Tar archives: an image folder, one archive per class, or WebDataset shards; their first files tell which.

- One archive of an image folder: directories that contain everything are skipped (`imagenet/train/CLASS/...`), then
  it is read like the directory, including its splits.
- Several archives of plain files: each is a class with the name of the archive (ImageNet's `n01440764.tar`).
- Archives with an image and its label under one key: WebDataset, see `webdataset.py`.

Compressed archives (`.tar.gz`, `.tgz`) have no random access; listing one copies its images to the spool.
"""

import re
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice

import pyarrow as pa

from dream_ray import storage
from dream_ray.data.class_lists import composed
from dream_ray.data.sources.base import (
    OpenedSource,
    Source,
    SourceKind,
    SourceOptions,
    find_files,
    listing_of,
    names_of,
)
from dream_ray.data.sources.splits import directories_are_splits, look_like_splits, open_files, open_splits
from dream_ray.data.sources.tar_members import SUFFIXES, members
from dream_ray.data.sources.webdataset import has_samples, web_dataset
from dream_ray.errors import UsageError

# A sample of a WebDataset has a few files; some may precede the first image and its label.
_SNIFFED = 16


def open_tar(source: str, options: SourceOptions) -> OpenedSource:
    """Opens archives."""
    paths = find_files(source, *SUFFIXES)
    first = list(islice(members(paths[0], None), _SNIFFED))
    if options.layout == "webdataset" or (options.layout is None and has_samples(first)):
        return open_files(paths, source, lambda chosen: web_dataset(chosen, options.label_column))
    if len(paths) == 1:
        return _open_folder(paths[0])
    names = [_class_of(path) for path in paths]
    if options.layout is None and _are_numbered(names):
        raise UsageError(
            f"source {source} has {len(paths)} archives with running numbers ({names[0]}, {names[1]} and so on), which "
            f"may be shards of a WebDataset or classes. The first {len(first)} files of {paths[0]} are no image and "
            "label under one key, KEY.jpg and KEY.cls or KEY.json. Choose with --layout webdataset or --layout archives"
        )
    deep = next((member.name for member in first if len(member.parts) > 1), None)
    if deep is not None:
        raise UsageError(
            f"source {source} must be one archive of an image folder, WebDataset shards, or an archive per class "
            f"without directories in it; got {len(paths)} archives, and {deep} in {paths[0]}"
        )
    classes = tar_per_class(paths, options.classes)
    if look_like_splits(classes.class_names or ()):
        raise UsageError(
            f"source {source} must contain an archive per class, with the name of the class; got "
            f"{', '.join(classes.class_names or ())}, which are names of splits, without class directories in them"
        )
    return OpenedSource(classes)


def _are_numbered(names: Sequence[str]) -> bool:
    """Tells whether names differ in one number alone, and these numbers follow each other or have leading zeros."""
    parts = [re.split(r"(\d+)", name) for name in names]
    if len({len(part) for part in parts}) > 1:
        return False
    varied = [texts for texts in zip(*parts, strict=True) if len(set(texts)) > 1]
    if len(varied) != 1 or not all(text.isdecimal() for text in varied[0]):
        return False
    numbers = sorted(map(int, varied[0]))
    return numbers == list(range(numbers[0], numbers[0] + len(numbers))) or any(
        len(text) > 1 and text.startswith("0") and parts[0][0] == "" for text in varied[0]
    )


def tar_per_class(paths: Sequence[str], only: Sequence[str] | None) -> Source:
    """Opens archives of one class each; `only` are the classes to list, None: all."""
    class_of = {path: _class_of(path) for path in paths}
    shards = {path: name for path, name in class_of.items() if only is None or composed(name) in only}
    list_shard = partial(_list_class, tuple(shards.items()))
    class_names = names_of(class_of.values(), storage.sibling(paths[0], "*"))
    return Source(class_names=class_names, shards=tuple(shards), list_shard=list_shard)


def _list_class(shards: Sequence[tuple[str, str]], number: int, spool: str) -> pa.Table:
    path, class_name = shards[number]
    return listing_of(member.row(class_name) for member in members(path, spool))


def _open_folder(path: str) -> OpenedSource:
    directories = {member.parts[:-1] for member in members(path, None) if len(member.parts) > 1 and not member.escapes}
    if not directories:
        raise UsageError(f"source {path} contains no directories; an image folder contains one per class")
    prefix: tuple[str, ...] = ()
    while len(tops := _names_below(directories, prefix)) == 1 and any(
        len(parts) > len(prefix) + 1 for parts in directories
    ):
        prefix += tuple(tops)

    def open_part(*inner: str) -> Source:
        around = (*prefix, *inner)
        class_names = names_of(_names_below(directories, around), path)
        return Source(class_names=class_names, shards=(path,), list_shard=partial(_list_folder, path, around))

    if directories_are_splits(tops, path):
        return open_splits(tops, path, open_part)
    return OpenedSource(open_part())


def _list_folder(path: str, prefix: tuple[str, ...], number: int, spool: str) -> pa.Table:
    """Lists the files below the directories `prefix`, and those whose paths lead out of the archive."""
    depth = len(prefix)
    return listing_of(
        member.row(None if member.escapes else member.parts[depth])
        for member in members(path, spool)
        if member.escapes or (member.parts[:depth] == prefix and len(member.parts) > depth + 1)
    )


def _names_below(directories: Iterable[tuple[str, ...]], prefix: tuple[str, ...]) -> list[str]:
    depth = len(prefix)
    return sorted({parts[depth] for parts in directories if len(parts) > depth and parts[:depth] == prefix})


def _class_of(path: str) -> str:
    name = path.rpartition("/")[2]
    return name[: -len(next(suffix for suffix in SUFFIXES if name.endswith(suffix)))]


TAR_ARCHIVE = SourceKind(
    "tar archives (FILE.tar of an image folder, or DIR/*.tar: one per class, or WebDataset shards)",
    lambda source: (
        source.endswith(SUFFIXES) or (storage.is_directory(source) and bool(storage.glob(source, *SUFFIXES)))
    ),
    open_tar,
    frozenset({"label_column", "layout"}),
)
