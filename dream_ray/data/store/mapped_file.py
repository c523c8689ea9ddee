"""A file of a store as one chunk of images, mapped into memory when the first of them is taken."""

from threading import Lock
from weakref import WeakSet

from dream_ray import storage
from dream_ray.data.arrays import Int64Array, UInt8Array
from dream_ray.data.store.image_file import read_images
from dream_ray.data.store.images import ImageChunks
from dream_ray.data.store.manifest import ImageFile
from dream_ray.errors import RunError

_mapped: "WeakSet[MappedFile]" = WeakSet()
_lock = Lock()


class MappedFile:
    """Images of one file; see `images.Chunk`.

    Args:
        store: Directory of the store.
        file: Its entry in the manifest.
        shape_CHW: Of every image.
    """

    def __init__(self, store: str, file: ImageFile, shape_CHW: tuple[int, int, int]) -> None:
        self._path = storage.join(store, file.path)
        self._file = file
        self._images: ImageChunks | None = None
        self.shape = (file.rows, *shape_CHW)

    def __len__(self) -> int:
        return self._file.rows

    def __getitem__(self, indices: Int64Array) -> UInt8Array:
        images = self._images
        if images is None:
            was_cached = self.is_cached
            images = self._images = self._map()
            with _lock:
                _mapped.add(self)
                if not was_cached:
                    _let_go()
        return images.take(indices)

    @property
    def is_cached(self) -> bool:
        """Whether the file is on this machine."""
        return storage.is_cached(self._path, self._file.sha256)

    def let_go(self) -> None:
        """Ends the mapping, once nobody reads from it; the next use makes another."""
        self._images = None

    def _map(self) -> ImageChunks:
        # The arrays keep the mapping alive; the closed file gives its descriptor back, of which a process has few.
        with storage.open_cached(self._path, self._file.sha256) as mapped:
            # Looked at before reading: pages beyond the end of a file that was cut short would kill the process.
            if mapped.size() != self._file.bytes:
                raise RunError(
                    f"{self._path} is damaged: it has {mapped.size()} bytes, not {self._file.bytes}; "
                    "ingest the store again"
                )
            return ImageChunks(read_images(mapped, self._path))


def _let_go() -> None:
    """Ends the mappings of files that made room for one that was fetched: they would go on taking their place."""
    for file in [file for file in _mapped if not file.is_cached]:
        file.let_go()
        _mapped.remove(file)
