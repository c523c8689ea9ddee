"""Archives: an image folder, one archive per class, or WebDataset shards; their first files tell which.

- One archive of an image folder: directories that contain everything are skipped (`imagenet/train/CLASS/...`), then
  it is read like the directory, including its splits.
- Several archives of plain files: each is a class with the name of the archive (ImageNet's `n01440764.tar`).
- Archives with an image and its label under one key: WebDataset, see `webdataset.py`.
- A tar archive of archives is read like a directory of them (`ILSVRC2012_img_train.tar`).

Compressed and zip archives have no random access; listing one copies its images to the spool.
"""

import re
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice

import pyarrow as pa

from dream_ray import storage
from dream_ray.data.archives import SUFFIXES, Archive, Member, is_archive, members, stem
from dream_ray.data.class_lists import composed
from dream_ray.data.sources.base import (
    OpenedSource,
    Source,
    SourceKind,
    SourceOptions,
    find_files,
    listing_of_files,
    names_of,
)
from dream_ray.data.sources.flat_images import with_inner
from dream_ray.data.sources.label_patterns import fitting_pattern, ways_to_labels
from dream_ray.data.sources.splits import (
    check_class,
    check_nested,
    directories_are_splits,
    look_like_splits,
    open_files,
    open_splits,
    split_pair,
)
from dream_ray.data.sources.webdataset import Kinds, has_samples, kinds_of, web_dataset
from dream_ray.errors import UsageError

# A sample of a WebDataset has a few files; some may precede the first image and its label.
_SNIFFED = 16


def open_archives(source: str, options: SourceOptions) -> OpenedSource:
    """Opens archives."""
    paths = find_files(source, options.layout, *SUFFIXES)
    archives = list(map(Archive.of_file, paths))
    if len(archives) == 1:
        archives = with_inner(archives[0])
    first = list(islice(members(archives[0], None), _SNIFFED))
    kinds = kinds_of(options.image_column, options.label_column)
    if options.layout == "webdataset" or (options.layout is None and has_samples(first, kinds)):
        return _open_web_dataset(archives, source, kinds)
    if options.layout == "folders" or (options.layout is None and len(archives) == 1):
        if len(archives) > 1:
            raise UsageError(f"source {source} must be one archive with --layout folders; got {len(archives)} archives")
        return _open_folder(archives[0], options.layout)
    if options.layout is None:
        _check_classes(source, archives, first)
    return OpenedSource(archive_per_class(archives, options.classes))


def _open_web_dataset(archives: Sequence[Archive], source: str, kinds: Kinds) -> OpenedSource:
    by_name = {archive.name: archive for archive in archives}
    return open_files(list(by_name), source, lambda chosen: web_dataset([by_name[name] for name in chosen], kinds))


def _check_classes(source: str, archives: Sequence[Archive], first: Sequence[Member]) -> None:
    """Raises UsageError if several archives may be something else than one per class.

    Args:
        source: The source, for messages.
        archives: The archives.
        first: The first files of the first archive.
    """
    names = [stem(archive) for archive in archives]
    found = [member.name for member in first]
    if _are_numbered(names):
        fitting = fitting_pattern(found)
        raise UsageError(
            f"source {source} has {len(archives)} archives with running numbers ({names[0]}, {names[1]} and so on), "
            f"which may be shards of a WebDataset or classes. The first {len(first)} files of {archives[0].name} are "
            "no image and label under one key, KEY.jpg and KEY.cls or KEY.json. Choose with --layout webdataset or "
            f"--layout archives, or give {f'--label-pattern {fitting}' if fitting else '--labels FILE'}"
        )
    deep = next((member.name for member in first if len(member.parts) > 1), None)
    if deep is not None:
        raise UsageError(
            f"source {source} must be one archive of an image folder, WebDataset shards, or an archive per class "
            f"without directories in it; got {len(archives)} archives, and {deep} in {archives[0].name}: name one of "
            "them, and another with --test; if they are classes, give --layout archives"
        )
    pair = ", ".join(names) if look_like_splits(names) else " and ".join(split_pair(names) or ())
    if pair:
        raise UsageError(
            f"source {source} must contain an archive per class, with the name of the class; got {pair}, which are "
            f"names of splits, without class directories in them: {ways_to_labels(found)}; "
            "if they are classes, give --layout archives"
        )


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


def archive_per_class(archives: Sequence[Archive], only: Sequence[str] | None) -> Source:
    """Opens archives of one class each; `only` are the classes to list, None: all."""
    named = [(archive, stem(archive)) for archive in archives]
    shards = [(archive, name) for archive, name in named if only is None or composed(name) in only]
    class_names = names_of((name for _, name in named), storage.sibling(archives[0].path, "*"))
    names = tuple(archive.name for archive, _ in shards)
    return Source(class_names=class_names, shards=names, list_shard=partial(_list_class, shards))


def _list_class(shards: Sequence[tuple[Archive, str]], number: int, spool: str) -> pa.Table:
    archive, class_name = shards[number]
    return listing_of_files(member.row(class_name) for member in members(archive, spool))


def _open_folder(archive: Archive, layout: str | None) -> OpenedSource:
    directories: set[tuple[str, ...]] = set()
    flat: list[str] = []
    for member in members(archive, None):
        if len(member.parts) > 1 and not member.escapes:
            directories.add(member.parts[:-1])
        if len(flat) < _SNIFFED:
            flat.append(member.name)
    prefix: tuple[str, ...] = ()
    while len(tops := _names_below(directories, prefix)) == 1 and any(
        len(parts) > len(prefix) + 1 for parts in directories
    ):
        prefix += tuple(tops)
    if len(tops) < 2:
        _check_no_arrays(archive, flat)
        what = f"contains {'the directory ' + tops[0] + ' alone' if tops else 'no directories'}"
        raise UsageError(
            f"source {archive.name} {what}; an image folder contains one per class: {ways_to_labels(flat)}"
        )

    def open_part(*inner: str) -> Source:
        around = (*prefix, *inner)
        names = _names_below(directories, around)
        for name in names:
            within = _names_below(directories, (*around, name))
            check_class(f"{archive.name}: {'/'.join((*around, name))}", within, layout)
        if layout is None:
            check_nested(archive.name, names, lambda name: _names_below(directories, (*around, name)))
        class_names = names_of(names, archive.name)
        list_shard = partial(_list_folder, archive, around)
        return Source(class_names=class_names, shards=(archive.name,), list_shard=list_shard)

    if directories_are_splits(tops, archive.name, layout):
        return open_splits(tops, archive.name, open_part)
    return OpenedSource(open_part())


def _check_no_arrays(archive: Archive, files: Sequence[str]) -> None:
    """Raises UsageError if all files are arrays: NumPy's .npz files are zip archives."""
    if files and all(name.endswith(".npy") for name in files):
        raise UsageError(
            f"source {archive.name} contains arrays, such as {files[0]}: pass them to dream_ray.ingest in Python as "
            "(images, labels)"
        )


def _list_folder(archive: Archive, prefix: tuple[str, ...], number: int, spool: str) -> pa.Table:
    """Lists the files below the directories `prefix`, and those whose paths lead out of the archive."""
    depth = len(prefix)
    return listing_of_files(
        member.row(None if member.escapes else member.parts[depth])
        for member in members(archive, spool)
        if member.escapes or (member.parts[:depth] == prefix and len(member.parts) > depth + 1)
    )


def _names_below(directories: Iterable[tuple[str, ...]], prefix: tuple[str, ...]) -> list[str]:
    depth = len(prefix)
    return sorted({parts[depth] for parts in directories if len(parts) > depth and parts[:depth] == prefix})


ARCHIVE = SourceKind(
    "tar archives, compressed or not, and zip archives (FILE.tar of an image folder, or DIR/*.tar: one per class, or "
    "WebDataset shards)",
    lambda source: (
        source.lower().endswith(SUFFIXES)
        or (bool(storage.glob(source, *SUFFIXES)) if storage.is_directory(source) else _is_archive_file(source))
    ),
    open_archives,
    frozenset({"image_column", "label_column", "layout"}),
    frozenset({"folders", "archives", "webdataset"}),
)


def _is_archive_file(source: str) -> bool:
    return "*" not in source and storage.exists(source) and is_archive(source)
