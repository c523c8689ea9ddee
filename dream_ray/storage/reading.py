"""Files for libraries that read them piece by piece."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from dream_ray.errors import RunError
from dream_ray.storage.files import open_input
from dream_ray.storage.paths import named_errors

_HASH_BLOCK_BYTES = 1 << 20


def open_raw(path: str, offset: int = 0, length: int | None = None) -> io.RawIOBase:
    """Opens a file, or a part of one, for a library that takes Python's file objects.

    The library's exceptions about the content stay distinct from failures of the storage: a failed read raises RunError
    as `read_bytes` does, not OSError. A read beyond the end returns no bytes.

    Args:
        path: The file.
        offset: First byte of the part.
        length: Number of its bytes; None: to the end of the file.

    Raises:
        RunError: If it is missing or cannot be read.
    """
    return _RawFile(path, open_input(path), offset, length)


@contextmanager
def open_arrow(path: str) -> Iterator[Any]:
    """Opens an Arrow IPC file, see `open_input`; raises RunError if it is missing, damaged or cannot be read."""
    try:
        with named_errors("read", path), open_input(path) as file:
            yield pa.ipc.open_file(file)
    except pa.ArrowException as error:
        raise RunError(f"{path} is damaged: {error}") from None


def sha256(path: str) -> str:
    """Returns the SHA-256 of a file's content in hexadecimal; raises RunError if it cannot be read."""
    digest = hashlib.sha256()
    block = memoryview(bytearray(_HASH_BLOCK_BYTES))
    with open_raw(path) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
    return digest.hexdigest()


class _RawFile(io.RawIOBase):
    def __init__(self, path: str, file: Any, offset: int, length: int | None) -> None:
        self._path = path
        self._file = file
        self._offset = offset
        self._size = max(0, file.size() - offset)
        if length is not None:
            self._size = min(self._size, length)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        if self._position >= self._size:  # Arrow raises here, as for a lost connection.
            return 0
        with named_errors("read", self._path):
            self._file.seek(self._offset + self._position)
            count = int(self._file.readinto(memoryview(buffer)[: self._size - self._position]))
        self._position += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
