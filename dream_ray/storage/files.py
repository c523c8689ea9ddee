"""Files and directories: open, write atomically, delete."""

import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa
from pyarrow.fs import FileType, LocalFileSystem

from dream_ray.errors import RunError, UsageError
from dream_ray.storage.paths import NotReadable, failure, is_object_store, reason, resolve

_TEMPORARY_SUFFIX = ".partial"
# Less than the smallest part of an upload in parts (5 MiB), so that it goes up in one.
_ONE_UPLOAD_BYTES = 4 << 20


def exists(path: str) -> bool:
    """Tells whether a file or directory is there."""
    return _kind(path) is not FileType.NotFound


def is_directory(path: str) -> bool:
    """Tells whether a directory is there."""
    return _kind(path) is FileType.Directory


def ensure_writable(path: str) -> None:
    """Makes a directory and proves that files can be written in it.

    Raises:
        UsageError: If they cannot.
    """
    filesystem, target = resolve(path)
    probe = _temporary_beside(f"{target}/probe")
    try:
        filesystem.create_dir(target, recursive=True)
        with filesystem.open_output_stream(probe) as file:
            file.write(b"probe")
        filesystem.delete_file(probe)
    except OSError as error:
        raise UsageError(f"{path} is not writable: {reason(error)}") from None


def open_input(path: str) -> Any:
    """Opens a file for random access, memory-mapped when it is on this machine.

    Returns:
        A `pyarrow.NativeFile`. Arrow buffers read from a mapped file stay valid after it is closed.

    Raises:
        RunError: If it is missing or cannot be read.
    """
    filesystem, target = resolve(path)
    try:
        if isinstance(filesystem, LocalFileSystem):
            return pa.memory_map(target)
        return filesystem.open_input_file(target)
    except OSError as error:
        raise failure("read", path, error) from None


def read_bytes(path: str, offset: int = 0, length: int | None = None, *, most: int | None = None) -> bytes:
    """Returns a file's content, or `length` bytes of it from `offset` on.

    Args:
        path: The file.
        offset: First byte.
        length: In bytes; None: the whole file.
        most: Largest number of bytes to read; None: any.

    Raises:
        NotReadable: If it is missing, may not be read, ends before, or has more bytes than may be read.
        RunError: If reading fails.
    """
    filesystem, target = resolve(path)
    try:
        with filesystem.open_input_file(target) as file:
            size = file.size() if length is None else length
            if most is not None and size > most:
                raise NotReadable(f"{path} must have at most {most} bytes; it has {size}")
            data = bytes(file.read() if length is None else file.read_at(length, offset))
    except OSError as error:
        raise failure("read", path, error) from None
    if length is not None and len(data) != length:
        raise NotReadable(f"{path} ends before byte {offset + length}")
    return data


def read_text(path: str) -> str:
    """Returns a file's content as UTF-8 text; raises RunError when it is missing or is no such text."""
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError:
        raise RunError(f"{path} is damaged: it is not UTF-8 text") from None


def write_bytes(path: str, data: bytes) -> None:
    """Writes a file atomically, see `atomic_output`."""
    filesystem, target = resolve(path)
    if not is_object_store(filesystem) or len(data) > _ONE_UPLOAD_BYTES:
        with atomic_output(path) as file:
            file.write(data)
        return
    try:  # one request instead of five: it is there whole, or not at all
        with filesystem.open_output_stream(target) as file:
            file.write(data)
    except OSError as error:
        raise failure("write", path, error) from None


def write_text(path: str, text: str) -> None:
    """Writes a UTF-8 file atomically, see `atomic_output`."""
    write_bytes(path, text.encode())


@contextmanager
def atomic_output(path: str) -> Iterator[Any]:
    """Opens a file for writing that appears under its name only when the block has ended well.

    The bytes go to a temporary name beside it, to the disk, then to the name in one step; missing parent directories
    are made. When the block raises, the temporary file is removed and an older file of that name is untouched.

    Args:
        path: File to write or to replace.

    Yields:
        A binary file object for sequential writing.

    Raises:
        RunError: If it cannot be written: no permission, disk full, a directory in its place.
    """
    filesystem, target = resolve(path)
    temporary = _temporary_beside(target)
    try:
        if not is_object_store(filesystem):
            filesystem.create_dir(_parent(target), recursive=True)
        try:
            with _open_output(filesystem, temporary) as file:
                yield file
                _flush_to_disk(filesystem, file)
            _rename(filesystem, temporary, target)
        except BaseException:
            with suppress(OSError):
                filesystem.delete_file(temporary)
            raise
    except OSError as error:
        raise failure("write", path, error) from None


def start_write_back(file: Any) -> None:
    """Asks the system to bring what was written to the disk from now on, so that closing need not wait for all of it.

    Args:
        file: As `atomic_output` yields it; nothing happens where it is remote, or the system has no such call.
    """
    if isinstance(file, io.BufferedWriter) and hasattr(os, "posix_fadvise"):
        file.flush()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def delete(path: str) -> None:
    """Deletes a file, or a directory with all that is in it; no error when it is absent."""
    filesystem, target = resolve(path)
    try:
        kind = filesystem.get_file_info(target).type
        if kind is FileType.Directory:
            filesystem.delete_dir(target)
        elif kind is not FileType.NotFound:
            filesystem.delete_file(target)
    except FileNotFoundError:
        return  # another process was quicker
    except OSError as error:
        raise failure("delete", path, error) from None


def _kind(path: str) -> Any:
    filesystem, target = resolve(path)
    try:
        return filesystem.get_file_info(target).type
    except OSError as error:
        raise failure("look at", path, error) from None


def _parent(target: str) -> str:
    return target.rpartition("/")[0] or "/"


def _temporary_beside(target: str) -> str:
    # The name is random because two processes may write the same file, and the last one must win with a whole one.
    directory, _, name = target.rpartition("/")
    return f"{directory}/.{name}.{uuid.uuid4().hex}{_TEMPORARY_SUFFIX}"


def is_temporary(name: str) -> bool:
    """Tells by its name whether a file is one that somebody is writing, or left when it was killed."""
    base = name.rpartition("/")[2]
    return base.startswith(".") and base.endswith(_TEMPORARY_SUFFIX)


def _open_output(filesystem: Any, target: str) -> Any:
    return open(target, "xb") if isinstance(filesystem, LocalFileSystem) else filesystem.open_output_stream(target)


def _flush_to_disk(filesystem: Any, file: Any) -> None:
    file.flush()
    if isinstance(filesystem, LocalFileSystem):
        os.fsync(file.fileno())


def _rename(filesystem: Any, temporary: str, target: str) -> None:
    if not isinstance(filesystem, LocalFileSystem):
        filesystem.move(temporary, target)
        return
    os.replace(temporary, target)
    # The new name itself must survive a power cut too.
    directory = os.open(_parent(target), os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
