"""A directory with a subdirectory per class: ROOT/CLASS/.../IMAGE, the layout of torchvision's ImageFolder.

If the subdirectories of ROOT are `train` and any of `val`, `validation` and `test`, each of them is such a directory.
`train` holds the training images and the other one the test images, unless `--test` names others. If there are several,
`--test` must name one. The validation split of the store always comes from the training images.

Every file in a class directory is listed, at any depth, except hidden ones (".name") and other files, see
`file_names.py`. Unreadable images become rejects. Links are followed, except those to a parent directory.
"""

import re
from collections.abc import Collection, Sequence
from functools import partial

import pyarrow as pa

from dream_ray import storage
from dream_ray.data.archives import SUFFIXES
from dream_ray.data.class_lists import composed
from dream_ray.data.file_names import is_hidden
from dream_ray.data.sources.base import (
    OpenedSource,
    Source,
    SourceKind,
    SourceOptions,
    listing_of_files,
    names_of,
    rows_below,
)
from dream_ray.data.sources.label_patterns import image_names, ways_to_labels
from dream_ray.data.sources.splits import check_class, check_nested, directories_are_splits, open_splits
from dream_ray.errors import RunError, UsageError

_TORCHVISION_FILES = r"(data|test)_batch(_\d)?(\.bin)?|(train|test)(\.bin)?|.*-ubyte(\.gz)?"
"""Names of the files that CIFAR and MNIST consist of."""


def open_image_folder(source: str, options: SourceOptions) -> OpenedSource:
    """Opens an image folder, or one per split."""
    names = _subdirectories(source)
    _check_classes(source, names)

    def open_part(root: str) -> Source:
        return _open_folder(root, options.classes, options.layout)

    if not directories_are_splits(names, source, options.layout):
        return OpenedSource(open_part(source))
    return open_splits(names, source, lambda name: open_part(storage.join(source, name)))


def _check_classes(source: str, names: Sequence[str]) -> None:
    """Raises UsageError if directories are no classes: there is none, or one that contains archives."""
    if not names:
        files = storage.list_directory(source)
        ways = f": {ways_to_labels(files)}" if image_names(files) else ""
        if any(re.fullmatch(_TORCHVISION_FILES, name) for name in files):
            ways = ": for the files of CIFAR and MNIST, ingest torchvision:NAME with --root DIR"
        raise UsageError(f"source {source} has no subdirectories; an image folder contains one per class{ways}")
    if len(names) == 1 and (files := storage.glob(storage.join(source, names[0]), ".parquet", *SUFFIXES)):
        raise UsageError(
            f"source {source} must contain at least 2 class directories; got {names[0]} alone, which contains "
            f"{files[0].rpartition('/')[2]}: did you mean {storage.join(source, names[0])}?"
        )


def _open_folder(root: str, only: Collection[str] | None, layout: str | None) -> Source:
    """Opens a directory of class directories, which are the shards; `only` are the classes to list, None: all."""
    names = _subdirectories(root)
    if not names:
        _check_classes(root, names)
    if layout is None:
        check_nested(root, names, lambda name: _visible_directories(storage.join(root, name)))
    shards = tuple(name for name in names if only is None or composed(name) in only)
    list_shard = partial(_list_class, root, shards, layout)
    return Source(class_names=names_of(names, root), shards=shards, list_shard=list_shard)


def _list_class(root: str, class_names: tuple[str, ...], layout: str | None, number: int, spool: str) -> pa.Table:
    directory = storage.join(root, class_names[number])
    if not storage.is_directory(directory):
        raise RunError(f"cannot list {directory}: it does not exist on this machine")
    rows = rows_below(directory)
    inner = {file.partition("/")[0] for file in rows if "/" in file}
    check_class(directory, inner, layout)
    return listing_of_files({**row, "class": class_names[number]} for row in rows.values())


def _subdirectories(root: str) -> list[str]:
    """Returns the names of the directories that are not hidden.

    Raises:
        UsageError: If there is a link to nothing: without that class, the labels of later classes would change.
    """
    lost = [name for name in storage.list_dangling(root) if not is_hidden(name)]
    if lost:
        raise UsageError(
            f"links in source {root} must lead to an existing target; got {lost[0]}, a link to nothing: restore its "
            "target, or delete the link"
        )
    return _visible_directories(root)


def _visible_directories(root: str) -> list[str]:
    return [name for name in storage.list_directories(root) if not is_hidden(name)]


IMAGE_FOLDER = SourceKind(
    "a directory (DIR/CLASS/IMAGE, or DIR/train and DIR/val or DIR/test of that form)",
    storage.is_directory,
    open_image_folder,
    frozenset({"layout"}),
    frozenset({"folders"}),
)
