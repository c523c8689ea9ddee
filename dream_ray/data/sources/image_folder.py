"""A directory with a subdirectory per class: ROOT/CLASS/.../IMAGE, as torchvision's ImageFolder reads it.

When the subdirectories of ROOT are `train` and any of `val`, `validation` and `test`, each of them is such a directory:
`train` holds the training images and the other one the test images, unless `--test` names others. With more than one
of them the user must say so. The validation split is carved from the training images all the same.

Every file in a class directory counts as an image, at any depth, except hidden ones (".name"): those that are none end
up among the rejects. Links to files and directories are followed, but for those that lead back to a directory that
they are in.
"""

from collections.abc import Collection

import pyarrow as pa

from dream_ray import storage
from dream_ray.data.sources.base import (
    LISTING,
    OpenedSource,
    SourceKind,
    SourceOptions,
    directories_are_splits,
    is_hidden,
    open_splits,
    rows_below,
)
from dream_ray.data.sources.tar_members import SUFFIXES
from dream_ray.errors import RunError, UsageError


class ImageFolder:
    """Images of one directory; the classes are its subdirectories in the order of their names, a shard each.

    Args:
        root: The directory.
        only: Classes to list; None: all.
    """

    channels = 3

    def __init__(self, root: str, only: Collection[str] | None) -> None:
        self._root = root
        self.class_names = tuple(_subdirectories(root))
        if not self.class_names:
            raise UsageError(f"source {root} has no subdirectories; an image folder holds one per class")
        self.shards = tuple(name for name in self.class_names if only is None or name in only)

    def list_shard(self, number: int, spool: str) -> pa.Table:
        """Lists the files of a class."""
        class_name = self.shards[number]
        directory = storage.join(self._root, class_name)
        if not storage.is_directory(directory):
            raise RunError(f"cannot list {directory}: it is not there, or this machine does not see it")
        rows = [{**row, "class": class_name} for row in rows_below(directory).values()]
        return pa.Table.from_pylist(rows, schema=LISTING)


def open_image_folder(source: str, options: SourceOptions) -> OpenedSource:
    """Opens an image folder; one that is parted into `train` and others has the training images in `train`."""
    names = _subdirectories(source)
    within = storage.join(source, names[0]) if len(names) == 1 else None
    if within is not None and (files := storage.glob(within, ".parquet", *SUFFIXES)):
        raise UsageError(
            f"source {source} must have at least 2 directories of classes in it; got {names[0]} alone, which holds "
            f"{files[0].rpartition('/')[2]}: did you mean {within}?"
        )
    if not directories_are_splits(names, source):
        return OpenedSource(ImageFolder(source, options.classes))
    return open_splits(names, source, lambda name: ImageFolder(storage.join(source, name), options.classes))


def _subdirectories(root: str) -> list[str]:
    """Returns the names of the directories that are not hidden.

    Raises:
        UsageError: If there is a link to nothing, which may be a class that other labels would move up for.
    """
    lost = [name for name in storage.list_dangling(root) if not is_hidden(name)]
    if lost:
        raise UsageError(
            f"links in source {root} must lead to what is there; got {lost[0]}, a link to nothing: restore what it "
            "leads to, or delete it"
        )
    return [name for name in storage.list_directories(root) if not is_hidden(name)]


IMAGE_FOLDER = SourceKind(
    "a directory (DIR/CLASS/IMAGE, or DIR/train and DIR/val or DIR/test of that form)",
    storage.is_directory,
    open_image_folder,
)
