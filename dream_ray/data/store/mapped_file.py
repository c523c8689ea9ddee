"""A file of a store as one chunk of images, memory-mapped at its first use."""

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
    """The images of one file, see `images.Chunk`.

    Args:
        store: Directory of the store.
        file: Its entry in the manifest.
        shape_CHW: Shape of every image.
    """

    def __init__(self, store: str, file: ImageFile, shape_CHW: tuple[int, int, int]) -> None:
        self._path = storage.join(store, file.path)
        self._file = file
        self._images: ImageChunks | None = None
        self.shape = (file.rows, *shape_CHW)

    def __len__(self) -> int:
        return self._file.rows

    def __getitem__(self, indices: Int64Array) -> UInt8Array:
        images = self._images  # Another thread may release the mapping, which stays valid for this call.
        if images is None:
            was_cached = self.is_cached
            images = self._images = self._map()
            with _lock:
                _mapped.add(self)
                if not was_cached:
                    # Mappings of files that were evicted for the fetched one still use disk space.
                    for file in [file for file in _mapped if not file.is_cached]:
                        file._images = None
                        _mapped.remove(file)
        return images.take(indices)

    @property
    def is_cached(self) -> bool:
        """Whether the file is on this machine."""
        return storage.is_cached(self._path, self._file.sha256)

    def _map(self) -> ImageChunks:
        # The arrays keep the mapping alive. Closing the file frees its descriptor, of which a process has few.
        with storage.open_cached(self._path, self._file.sha256) as mapped:
            # Checked before reading: access beyond the end of a truncated file would kill the process.
            if mapped.size() != self._file.bytes:
                raise RunError(
                    f"{self._path} is damaged: it has {mapped.size()} bytes, not {self._file.bytes}; "
                    "ingest the store again"
                )
            return ImageChunks(read_images(mapped, self._path))
