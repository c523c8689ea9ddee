"""Files and directories: open, write atomically, delete."""

import io
import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa
from pyarrow.fs import FileType, LocalFileSystem

from dream_ray.errors import RunError, UsageError
from dream_ray.storage.paths import NotReadable, is_object_store, named_errors, reason, resolve

_TEMPORARY_SUFFIX = ".partial"
# Less than the smallest part of a multipart upload (5 MiB).
_ONE_UPLOAD_BYTES = 4 << 20
_JSON_READS = 3
_ROOM_BYTES = 1 << 20


def exists(path: str) -> bool:
    """Tells whether a file or directory exists."""
    return _kind(path) is not FileType.NotFound


def is_directory(path: str) -> bool:
    """Tells whether a directory exists."""
    return _kind(path) is FileType.Directory


def ensure_writable(path: str) -> None:
    """Creates a directory and writes a probe in it.

    Raises:
        UsageError: If the directory is not writable.
    """
    filesystem, target = resolve(path)
    probe = _temporary_beside(f"{target}/probe")
    try:
        filesystem.create_dir(target, recursive=True)
        with filesystem.open_output_stream(probe) as file:
            file.write(b"probe")
        filesystem.delete_file(probe)
    except OSError as error:
        with suppress(OSError):
            filesystem.delete_file(probe)
        raise UsageError(f"{path} is not writable: {reason(error)}") from None


def check_temporary_space(what: str, directory: str | None = None) -> None:
    """Raises RunError if no megabyte of temporary files can be written: libraries name other causes.

    Args:
        what: What needs them, for the error.
        directory: Directory of temporary files; None: that of the process.
    """
    directory = directory or tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(bytes(_ROOM_BYTES))
    except OSError as error:
        raise RunError(
            f"{what} needs temporary files, and {directory} cannot hold them: {reason(error)}; set TMPDIR to a "
            "directory with free space"
        ) from None


def open_input(path: str) -> Any:
    """Opens a file for random access, memory-mapped if it is local.

    Returns:
        A `pyarrow.NativeFile`. Arrow buffers of a mapped file stay valid after it is closed.

    Raises:
        RunError: If it is missing or cannot be read.
    """
    filesystem, target = resolve(path)
    with named_errors("read", path):
        if isinstance(filesystem, LocalFileSystem):
            return pa.memory_map(target)
        return filesystem.open_input_file(target)


def read_bytes(path: str, offset: int = 0, length: int | None = None, *, most: int | None = None) -> bytes:
    """Returns the content of a file, or `length` bytes of it from `offset`.

    Args:
        path: The file.
        offset: First byte.
        length: In bytes; None: the whole file.
        most: Largest number of bytes to read; None: any.

    Raises:
        NotReadable: If it is missing, not permitted, too short, or larger than `most`.
        RunError: If reading fails.
    """
    filesystem, target = resolve(path)
    with named_errors("read", path), filesystem.open_input_file(target) as file:
        size = file.size() if length is None else length
        if most is not None and size > most:
            raise NotReadable(f"{path} must have at most {most} bytes; it has {size}")
        data = bytes(file.read() if length is None else file.read_at(length, offset))
    if length is not None and len(data) != length:
        raise NotReadable(f"{path} ends before byte {offset + length}")
    return data


def read_text(path: str) -> str:
    """Returns the content of a UTF-8 file; raises RunError if it is missing or not UTF-8."""
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
    # One request instead of five, which is atomic too.
    with named_errors("write", path), filesystem.open_output_stream(target) as file:
        file.write(data)


def write_text(path: str, text: str) -> None:
    """Writes a UTF-8 file atomically, see `atomic_output`."""
    write_bytes(path, text.encode())


def read_json(path: str) -> Any:
    """Returns the value in a JSON file; raises RunError if it is missing or not JSON.

    An object of a bucket that is replaced by a longer one while it is read arrives cut off, so it is read again.
    """
    problem = ""
    for _ in range(_JSON_READS):
        try:
            return json.loads(read_text(path))
        except ValueError as error:
            problem = str(error)
    raise RunError(f"{path} is damaged: it is not JSON: {problem}")


def write_json(path: str, value: Any, *, indent: int | None = None) -> None:
    """Writes a value as a JSON file atomically; `indent` as in `json.dumps`."""
    write_text(path, json.dumps(value, indent=indent))


@contextmanager
def atomic_output(path: str) -> Iterator[Any]:
    """Opens a file for writing that appears under its name only if the block succeeds.

    The bytes are written to a temporary file in the same directory, flushed to the disk and renamed. Missing parent
    directories are created. If the block raises, the temporary file is removed and an older file stays unchanged.

    Args:
        path: File to write or replace.

    Yields:
        A binary file object for sequential writing.

    Raises:
        RunError: If it cannot be written: no permission, disk full, a directory in its place.
    """
    filesystem, target = resolve(path)
    temporary = _temporary_beside(target)
    with named_errors("write", path):
        if not is_object_store(filesystem):
            filesystem.create_dir(_parent(target), recursive=True)
        try:
            local = isinstance(filesystem, LocalFileSystem)
            with open(temporary, "xb") if local else filesystem.open_output_stream(temporary) as file:
                yield file
                file.flush()
                if local:
                    os.fsync(file.fileno())
            _rename(filesystem, temporary, target)
        except BaseException:
            with suppress(OSError):
                filesystem.delete_file(temporary)
            raise


def start_write_back(file: Any) -> None:
    """Starts to write buffered data to the disk, so that closing the file takes less time.

    Args:
        file: Yielded by `atomic_output`. Remote files, and systems without such a call, are ignored.
    """
    if isinstance(file, io.BufferedWriter) and hasattr(os, "posix_fadvise"):
        file.flush()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def delete(path: str) -> None:
    """Deletes a file, or a directory with its content; no error if it does not exist."""
    filesystem, target = resolve(path)
    with named_errors("delete", path), suppress(FileNotFoundError):  # Another process may delete it first.
        kind = filesystem.get_file_info(target).type
        if kind is FileType.Directory:
            filesystem.delete_dir(target)
        elif kind is not FileType.NotFound:
            filesystem.delete_file(target)


def _kind(path: str) -> Any:
    filesystem, target = resolve(path)
    with named_errors("access", path):
        return filesystem.get_file_info(target).type


def _parent(target: str) -> str:
    return target.rpartition("/")[0] or "/"


def _temporary_beside(target: str) -> str:
    # Two processes may write the same file: with random names, the last one wins with a complete file.
    directory, _, name = target.rpartition("/")
    return f"{directory}/.{name}.{uuid.uuid4().hex}{_TEMPORARY_SUFFIX}"


def is_temporary(name: str) -> bool:
    """Tells whether a file has the name of an unfinished one, whose process may have been killed."""
    base = name.rpartition("/")[2]
    return base.startswith(".") and base.endswith(_TEMPORARY_SUFFIX)


def _rename(filesystem: Any, temporary: str, target: str) -> None:
    if not isinstance(filesystem, LocalFileSystem):
        filesystem.move(temporary, target)
        return
    os.replace(temporary, target)
    # The new name must survive a power failure too.
    directory = os.open(_parent(target), os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
