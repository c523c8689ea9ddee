"""The image store: memory-mapped uint8 images by split and class."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from threading import Lock
from weakref import WeakSet

import numpy as np

from dream_ray import storage
from dream_ray.data.arrays import Int64Array, UInt8Array
from dream_ray.data.store.image_file import read_images
from dream_ray.data.store.images import Chunk, ImageChunks
from dream_ray.data.store.manifest import SPLITS, ImageFile, Manifest
from dream_ray.errors import RunError, UsageError

_mapped: "WeakSet[_MappedFile]" = WeakSet()
_lock = Lock()


class Store:
    """A store that `ingest` wrote. Opening it reads only the manifest; images are mapped at their first use.

    Attributes:
        path: Directory of the store.
        manifest: Its content.
    """

    def __init__(self, path: str, manifest: Manifest, decoders: Executor | None = None) -> None:
        self.path = path
        self.manifest = manifest
        self._decoders = None if manifest.encoding == "raw" else decoders
        self._files: dict[tuple[str, int], list[ImageFile]] = {}
        for file in manifest.files:
            self._files.setdefault((file.split, file.label), []).append(file)

    @classmethod
    def open(cls, path: str, decoders: Executor | None = None) -> "Store":
        """Opens a store.

        Args:
            path: Directory of the store.
            decoders: Threads that decode its images if they are encoded; None: the thread that reads them.

        Raises:
            UsageError: If `path` has no store, or one of another schema version.
        """
        return cls(path, Manifest.read(path), decoders)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.manifest.class_names)

    @property
    def shape_CHW(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return self.manifest.shape_CHW

    def count(self, split: str, label: int) -> int:
        """Returns the number of images of a class in a split."""
        self._check(split, label)
        return self.manifest.counts[split][label]

    def splits(self) -> tuple[str, ...]:
        """Returns the splits that have images."""
        return tuple(split for split in SPLITS if any(self.manifest.counts[split]))

    def images(self, label: int, splits: Sequence[str]) -> ImageChunks:
        """Returns access to the images of a class; a file is mapped, and fetched from a bucket, at its first use.

        Args:
            label: Label of the class.
            splits: One or more of SPLITS; their images are concatenated in this order.

        Returns:
            Their images, uint8, not copied; there may be none.

        Raises:
            UsageError: If there is no such label or split.

        A missing or truncated file raises RunError at its first use; only `verify` detects changed pixels.
        """
        chunks: list[Chunk] = []
        for split in splits:
            self._check(split, label)
            chunks += (_MappedFile(self.path, file, self.shape_CHW) for file in self._files.get((split, label), []))
        return ImageChunks(chunks or [np.empty((0, *self.shape_CHW), dtype=np.uint8)], self._decoders)

    def training_set(self, splits: Sequence[str]) -> tuple[ImageChunks, Int64Array]:
        """Returns access to the images of all classes, in label order.

        Args:
            splits: As in `images`.

        Returns:
            The images and their labels (N,), int64.
        """
        parts = [self.images(label, splits) for label in range(self.num_classes)]
        labels_N = np.repeat(np.arange(len(parts), dtype=np.int64), [len(part) for part in parts])
        return ImageChunks.concat(parts), labels_N

    def verify(self, progress: Callable[[str, int, int], None] = lambda name, done, total: None) -> None:
        """Reads all files and compares their digests.

        Args:
            progress: Called before every file with its name, the number of read files and the total number.

        Raises:
            RunError: Naming the first damaged file.
        """
        for done, file in enumerate(self.manifest.files):
            progress(file.path, done, len(self.manifest.files))
            path = storage.join(self.path, file.path)
            digest = storage.sha256(path)
            if digest != file.sha256:
                raise RunError(f"{path} is damaged: its sha256 is {digest}, not {file.sha256}; ingest the store again")

    def _check(self, split: str, label: int) -> None:
        if split not in SPLITS:
            raise UsageError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
        if not 0 <= label < self.num_classes:
            raise UsageError(f"label must be in [0, {self.num_classes}); got {label}")


class _MappedFile:
    """The images of one file as an `images.Chunk`; the file is memory-mapped at its first use.

    Args:
        store: Directory of the store.
        file: Its entry in the manifest.
        shape_CHW: Shape of every image.
    """

    def __init__(self, store: str, file: ImageFile, shape_CHW: tuple[int, int, int]) -> None:
        self._path = storage.join(store, file.path)
        self._file = file
        self._images: ImageChunks | None = None
        self._mapping = Lock()
        self.shape = (file.rows, *shape_CHW)

    def __len__(self) -> int:
        return self._file.rows

    def __getitem__(self, indices: Int64Array) -> UInt8Array:
        images = self._images  # Another thread may release the mapping, which stays valid for this call.
        if images is None:
            with self._mapping:  # so that one of several threads fetches the file
                images = self._images
                if images is None:
                    images = self._map()
        return images.take(indices)

    @property
    def is_cached(self) -> bool:
        """Whether the file is on this machine."""
        return storage.is_cached(self._path, self._file.sha256)

    def _map(self) -> ImageChunks:
        was_cached = self.is_cached
        images = self._images = self._open()
        with _lock:
            _mapped.add(self)
            if not was_cached:
                # Mappings of files that were evicted for the fetched one still use disk space.
                for file in [file for file in _mapped if not file.is_cached]:
                    file._images = None
                    _mapped.remove(file)
        return images

    def _open(self) -> ImageChunks:
        # The arrays keep the mapping alive. Closing the file frees its descriptor, of which a process has few.
        with storage.open_cached(self._path, self._file.sha256) as mapped:
            # Checked before reading: access beyond the end of a truncated file would kill the process.
            if mapped.size() != self._file.bytes:
                raise RunError(
                    f"{self._path} is damaged: it has {mapped.size()} bytes, not {self._file.bytes}; "
                    "ingest the store again"
                )
            return ImageChunks(read_images(mapped, self._path))
