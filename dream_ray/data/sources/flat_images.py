"""Images without class directories, in a directory or in archives: a file has their labels, or their names have them.

`--labels` and `--test-labels` name such a file, see `label_file.py`. It may name an image by its path in the source, by
its path from the directory of the label file, or, if names are unique, by its name alone. ImageNet's validation set has
this form: `ILSVRC2012_img_val.tar`, or its content, with Kaggle's `LOC_val_solution.csv`.

`--label-pattern` finds the class in the path of an image in the source, see `label_patterns.py`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from dream_ray import storage
from dream_ray.data.archives import SUFFIXES, Archive, inner_archives, is_archive, members
from dream_ray.data.class_lists import composed
from dream_ray.data.file_names import is_hidden, is_other_file
from dream_ray.data.sources.base import (
    OpenedSource,
    Source,
    SourceKind,
    SourceOptions,
    listing_of_files,
    rows_below,
)
from dream_ray.data.sources.label_file import Entry, check_labels, class_of, read_labels
from dream_ray.data.sources.label_patterns import class_in, compiled
from dream_ray.data.sources.splits import directories_are_splits, look_like_splits, open_files, open_splits
from dream_ray.errors import UsageError


def open_flat_images(source: str, options: SourceOptions) -> OpenedSource:
    """Opens the images that `labels` or `label_pattern` give classes to."""
    if options.labels is not None:
        return OpenedSource(images_with_labels(source, options.labels, (), options.label_column, parameter="source"))
    assert options.label_pattern is not None
    return _open_by_names(source, options.label_pattern)


def images_with_labels(
    root: str,
    labels: str,
    class_names: tuple[str, ...],
    label_column: str = "label",
    *,
    parameter: str = "test",
) -> Source:
    """Opens images that a file labels.

    Args:
        root: Directory of images or of archives, an archive, or a pattern of archives.
        labels: The label file.
        class_names: Training classes, for labels that are numbers. Empty for training images, and if only the listing
            of the training images contains them; every label is then a name.
        label_column: Column of the classes, if the file has names of columns.
        parameter: "source" or "test", for errors.
    """
    option = "labels" if parameter == "source" else f"{parameter}_labels"
    if not storage.is_directory(root) and not _are_archives(storage.glob(root)):
        raise UsageError(f"{parameter} must be a directory or archives of images if {option} is given; got {root}")
    if storage.is_directory(labels) or not storage.exists(labels):
        raise UsageError(f"{option} must be a file; got {labels}")
    if storage.is_directory(root) and look_like_splits(storage.list_directories(root)):
        splits = [name for name in storage.list_directories(root) if not is_hidden(name)]
        raise UsageError(
            f"{parameter} must be the directory of one split if {option} is given; {root} contains {', '.join(splits)}"
            f": name {storage.join(root, splits[-1])}, or another of them"
        )
    class_names = tuple(map(composed, class_names))
    list_shard = partial(_list_labelled, root, labels, class_names, label_column, option)
    return Source(class_names=class_names or None, shards=(root,), list_shard=list_shard)


def _list_labelled(
    root: str, labels: str, class_names: tuple[str, ...], column: str, option: str, number: int, spool: str
) -> pa.Table:
    """Lists the images; an image that the file does not name, or that does not exist, has a problem.

    Raises:
        UsageError: If the file has the wrong form, names an image twice, or names none.
    """
    rows = _unlabelled_rows(root, labels, spool)
    images = sorted(file for file in rows if not is_other_file(file))
    file_of, entries = _entries(root, labels, images, class_names, column, option)
    named: dict[str, str] = {}
    missing: list[dict[str, Any]] = []
    for entry in entries:
        class_name = class_of(labels, entry, class_names)
        file = file_of.get(entry.name)
        if file is not None and named.setdefault(file, entry.name) != entry.name:
            raise UsageError(f"{labels} must name an image once; {file!r} occurs twice")
        if file is not None:
            rows[file]["class"] = class_name
        # Missing images of classes that are not stored may have been removed on purpose.
        elif not class_names or class_name in class_names:
            problem = f"{labels} names it, but it does not exist"
            known = class_name if class_names else None
            missing.append({"class": known, "name": entry.name, "path": root, "offset": 0, "problem": problem})
    for file in images:
        rows[file]["problem"] = rows[file]["problem"] or (None if file in named else f"{labels} does not name it")
    others = [rows[file] for file in rows if is_other_file(file)]
    # Missing images come last, so that `max_per_class` prefers existing ones.
    return listing_of_files([*(rows[file] for file in images), *missing, *others])


def _unlabelled_rows(root: str, labels: str, spool: str) -> dict[str, dict[str, Any]]:
    """Returns the files by their paths in the directory or in their archive, without the label file."""
    if not storage.is_directory(root):
        return _rows_of_archives(storage.glob(root), spool)
    rows = {file: row for file, row in rows_below(root).items() if row["path"] != labels}
    paths = [row["path"] for file, row in rows.items() if not is_other_file(file)]
    if paths and all(path.lower().endswith(SUFFIXES) for path in paths):
        return _rows_of_archives(paths, spool)
    return rows


def _rows_of_archives(paths: Sequence[str], spool: str) -> dict[str, dict[str, Any]]:
    """Returns the files in archives; raises UsageError if two archives have a file of the same name."""
    rows: dict[str, dict[str, Any]] = {}
    for number, archive in enumerate(inner for path in paths for inner in with_inner(Archive.of_file(path))):
        found = list(members(archive, f"{spool}-{number:06d}"))
        # A single directory around all files is not part of their names.
        around = len({member.parts[:-1] for member in found}) == 1
        for member in found:
            name = member.parts[-1] if around else member.name
            if name in rows and not is_other_file(name):
                raise UsageError(
                    f"names of images in archives with one label file must be unique; got {rows[name]['name']} and "
                    f"{archive.name}: {member.name}"
                )
            rows[name] = {"class": None, **member.row(None)}
    return rows


def _are_archives(paths: Sequence[str]) -> bool:
    return bool(paths) and all(map(is_archive, paths))


def _entries(
    root: str, labels: str, images: Sequence[str], class_names: tuple[str, ...], column: str, option: str
) -> tuple[Mapping[str, str], list[Entry]]:
    """Returns the images by the names that the label file uses, and its entries."""
    ways = _ways_to_name(root, labels, images)
    way, entries = read_labels(labels, [frozenset(known) for known in ways], class_names, column)
    if not any(entry.name for entry in entries):
        _check_list(labels, entries, images)
        entries = [Entry(file, entry.label) for file, entry in zip(images, entries, strict=True)]
        return {file: file for file in images}, entries
    if not any(entry.name in ways[way] for entry in entries):
        raise UsageError(
            f"{option} must name images of {root}, which contains {len(images)}"
            f"{f', such as {images[0]}' if images else ''}; {labels} names none of them, but for example "
            f"{entries[min(1, len(entries) - 1)].name!r}"
        )
    check_labels(labels, entries, class_names)
    classes = {class_of(labels, entry, ()) for entry in entries}
    if not class_names and len(entries) > 2 and len(classes) == len(entries):
        raise UsageError(
            f"{option} must give several images the same class; {labels} gives each of {len(entries)} images another "
            f"one, such as {entries[0].label!r}: name the column of the classes with --label-column"
        )
    return ways[way], entries


def _ways_to_name(root: str, labels: str, images: Sequence[str]) -> list[dict[str, str]]:
    """Returns the images by the names that a label file may use, in three ways, with and without extension."""
    bases = [file.rpartition("/")[2] for file in images]
    ways = [list(images)]
    prefix = f"{root.rstrip('/')}/".removeprefix(storage.sibling(labels, ""))
    if prefix and not prefix.startswith("/") and "://" not in prefix:
        ways.append([prefix + file for file in images])
    if len(set(bases)) == len(bases) and bases != list(images):
        ways.append(bases)
    return [_with_stems(zip(map(composed, names), images, strict=True)) for names in ways]


def _with_stems(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    known: dict[str, str] = {}
    for name, file in pairs:
        known[name] = file
        known.setdefault(re.sub(r"\.[^./]*$", "", name), file)
    return known


def _check_list(labels: str, entries: Sequence[Entry], images: Sequence[str]) -> None:
    """Raises UsageError if classes alone are not one per image, or are empty or numbers."""
    if len(entries) != len(images):
        raise UsageError(f"{labels} must have one line per image; it has {len(entries)} for {len(images)} images")
    if not all(entry.label for entry in entries):
        raise UsageError(f"lines of {labels} must all contain a class, or a file name and a class")
    if all(entry.label.isdecimal() for entry in entries):
        raise UsageError(
            f"{labels} must contain class names, or image and class names; it contains only numbers, whose "
            "order of classes is unknown. For ImageNet use Kaggle's LOC_val_solution.csv, or lines of file name "
            "and WordNet id: only meta.mat explains the numbers of ILSVRC2012_validation_ground_truth.txt"
        )


def _open_by_names(source: str, label_pattern: str) -> OpenedSource:
    """Opens images whose names contain the class; directories and archives may be splits."""
    compiled(label_pattern)
    is_directory = storage.is_directory(source)
    paths = storage.glob(source, *SUFFIXES)
    if is_directory and not paths:
        names = [name for name in storage.list_directories(source) if not is_hidden(name)]
        if not directories_are_splits(names, source, None):
            return OpenedSource(_directory_by_names(source, label_pattern))
        return open_splits(names, source, lambda name: _directory_by_names(storage.join(source, name), label_pattern))
    if not _are_archives(paths):
        raise UsageError(
            f"source must be a directory or archives of images if label_pattern is given; got {source}"
            f"{'' if paths else ': no such file'}"
        )
    return open_files(paths, source, lambda chosen: _archives_by_names(chosen, label_pattern))


def _directory_by_names(root: str, label_pattern: str) -> Source:
    return Source(class_names=None, shards=(root,), list_shard=partial(_list_directory, root, label_pattern))


def _list_directory(root: str, label_pattern: str, number: int, spool: str) -> pa.Table:
    return listing_of_files(_with_class(file, row, label_pattern) for file, row in rows_below(root).items())


def _archives_by_names(paths: Sequence[str], label_pattern: str) -> Source:
    archives = [inner for path in paths for inner in with_inner(Archive.of_file(path))]
    return Source(
        class_names=None,
        shards=tuple(archive.name for archive in archives),
        list_shard=partial(_list_archive, archives, label_pattern),
    )


def with_inner(archive: Archive) -> list[Archive]:
    """Returns the archives in an archive of archives; any other archive alone."""
    return inner_archives(archive) or [archive]


def _list_archive(archives: Sequence[Archive], label_pattern: str, number: int, spool: str) -> pa.Table:
    found = members(archives[number], spool)
    return listing_of_files(_with_class(member.name, member.row(None), label_pattern) for member in found)


def _with_class(file: str, row: dict[str, Any], label_pattern: str) -> dict[str, Any]:
    """Returns the row of a file with the class that its name contains."""
    if row["problem"] is not None or is_other_file(file):
        return {"class": None, **row}
    class_name = class_in(compiled(label_pattern), file)
    problem = None if class_name else f"label_pattern {label_pattern} finds no class in its name"
    return {**row, "class": class_name, "problem": problem}


FLAT_IMAGES = SourceKind(
    "a directory or archives of images with --labels FILE or --label-pattern NAME|REGEX",
    lambda source: False,
    open_flat_images,
    frozenset({"label_column", "labels", "label_pattern"}),
)
