"""A part of a file as a Python file."""

import io
from typing import Any

from dream_ray import storage
from dream_ray.data.archives.member import Archive


def open_window(archive: Archive) -> io.RawIOBase:
    """Opens the bytes of an archive for random access; raises RunError if the file is missing or cannot be read."""
    file = storage.open_raw(archive.path)
    return file if archive.length is None else _Window(file, archive.offset, archive.length)


class _Window(io.RawIOBase):
    def __init__(self, file: io.RawIOBase, offset: int, length: int) -> None:
        self._file, self._offset, self._length = file, offset, length
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        left = max(0, self._length - self._position)
        self._file.seek(self._offset + self._position)
        count = int(self._file.readinto(memoryview(buffer)[:left]) or 0)
        self._position += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
