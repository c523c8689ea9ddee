"""A file of a store as one chunk of images, mapped into memory when the first of them is taken."""

from functools import cached_property

from dream_ray import storage
from dream_ray.data.image_file import read_images
from dream_ray.data.images import ImageChunks, Int64Array, UInt8Array
from dream_ray.data.manifest import ImageFile
from dream_ray.errors import RunError


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
        self.shape = (file.rows, *shape_CHW)

    def __len__(self) -> int:
        return self._file.rows

    def __getitem__(self, indices: Int64Array) -> UInt8Array:
        return self._images.take(indices)

    @cached_property
    def _images(self) -> ImageChunks:
        # The arrays keep the mapping alive; the closed file gives its descriptor back, of which a process has few.
        with storage.open_cached(self._path, self._file.sha256) as mapped:
            # Looked at before reading: pages beyond the end of a file that was cut short would kill the process.
            if mapped.size() != self._file.bytes:
                raise RunError(
                    f"{self._path} is damaged: it has {mapped.size()} bytes, not {self._file.bytes}; "
                    "ingest the store again"
                )
            return ImageChunks(read_images(mapped, self._path))
