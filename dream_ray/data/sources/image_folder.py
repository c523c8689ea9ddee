"""A directory with a subdirectory per class: ROOT/CLASS/.../IMAGE, as torchvision's ImageFolder reads it.

When the subdirectories of ROOT are `train` and any of `val`, `validation` and `test`, each of them is such a directory:
`train` holds the training images and the other one the test images, unless `--test` names others. With more than one
of them the user must say so. The validation split is carved from the training images all the same.

Every file in a class directory counts as an image, at any depth, except hidden ones (".name"): those that are none end
up among the rejects.
"""

import numpy as np

from dream_ray import storage
from dream_ray.data.decode import UnreadableImage
from dream_ray.data.images import Int64Array
from dream_ray.data.sources.base import OpenedSource, SourceKind, SourceOptions
from dream_ray.errors import RunError, UsageError

_TRAIN = "train"
_HELD_OUT = ("test", "val", "validation")


class ImageFolder:
    """Images of one directory; the classes are its subdirectories in the order of their names.

    Args:
        root: The directory.
    """

    channels = 3

    def __init__(self, root: str) -> None:
        self._root = root
        self.class_names = tuple(_subdirectories(root))
        if not self.class_names:
            raise UsageError(f"source {root} has no subdirectories; an image folder holds one per class")
        self._files: list[str] = []
        counts = []
        for name in self.class_names:
            files = [file for file in storage.list_files(storage.join(root, name)) if not _is_hidden(file)]
            self._files += [f"{name}/{file}" for file in files]
            counts.append(len(files))
        self.labels_N: Int64Array = np.repeat(np.arange(len(counts), dtype=np.int64), counts)

    def name(self, row: int) -> str:
        """Returns the path of the file."""
        return storage.join(self._root, self._files[row])

    def read(self, row: int) -> bytes:
        """Returns the bytes of the file."""
        try:
            return storage.read_bytes(self.name(row))
        except RunError as error:
            raise UnreadableImage(str(error)) from None


def open_image_folder(source: str, options: SourceOptions) -> OpenedSource:
    """Opens an image folder; one that is parted into `train` and others has the training images in `train`."""
    names = _subdirectories(source)
    if _TRAIN not in names or not set(names) <= {_TRAIN, *_HELD_OUT}:
        return OpenedSource(ImageFolder(source))
    others = [name for name in names if name != _TRAIN]

    def open_test() -> ImageFolder:
        if len(others) > 1:
            raise UsageError(f"source {source} holds {' and '.join(others)}: name the one to test on with --test")
        return ImageFolder(storage.join(source, others[0]))

    return OpenedSource(ImageFolder(storage.join(source, _TRAIN)), open_test if others else None)


def _subdirectories(root: str) -> list[str]:
    names = [name for name in storage.list_directory(root) if not _is_hidden(name)]
    return [name for name in names if storage.is_directory(storage.join(root, name))]


def _is_hidden(file: str) -> bool:
    return any(part.startswith(".") for part in file.split("/"))


IMAGE_FOLDER = SourceKind(
    "a directory (DIR/CLASS/IMAGE, or DIR/train and DIR/val or DIR/test of that form)",
    storage.is_directory,
    open_image_folder,
)
