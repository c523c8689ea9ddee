"""Paths: text that names a file of this machine, or a URI; and what is said when one cannot be used."""

import os
from typing import Any

import pyarrow as pa
from pyarrow.fs import FileSystem, LocalFileSystem

from dream_ray.errors import RunError, UsageError

_LOCAL = LocalFileSystem()


class RemoteError(RunError):
    """Storage on another machine failed: it may answer when it is asked again."""


class NotReadable(RunError):  # noqa: N818 - it names a finding about a file
    """A file is not there, may not be read, or ends before it should; asking again does not help."""


def join(path: str, *parts: str) -> str:
    """Returns `path` with relative `parts` below it, parted by slashes."""
    return "/".join([*([path.rstrip("/")] if path else []), *parts])


def absolute(path: str) -> str:
    """Returns a path that means the same in any working directory; a URI stays as it is."""
    return path if _is_uri(path) else os.path.abspath(path)


def is_remote(path: str) -> bool:
    """Tells whether a path leads to another machine."""
    return _is_uri(path) and not path.startswith("file://")


def resolve(path: str) -> tuple[Any, str]:
    """Returns the file system of a path and its name there.

    Raises:
        UsageError: If it is empty or of no known kind.
        RunError: If its place cannot be reached.
    """
    if not path:
        raise UsageError("a path must not be empty")
    if not _is_uri(path):
        return _LOCAL, os.path.abspath(path)
    try:
        filesystem, target = FileSystem.from_uri(path)
    except pa.ArrowInvalid as error:
        raise UsageError(f"path {path} is of no kind that pyarrow can open: {error}") from None
    except OSError as error:
        raise failure("reach", path, error) from None
    return filesystem, target.rstrip("/") or target


def failure(verb: str, path: str, error: OSError) -> RunError:
    """Returns what to raise when something could not be done to a path."""
    message = f"cannot {verb} {path}: {reason(error)}"
    if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)):
        return NotReadable(message)
    return RemoteError(message) if is_remote(path) else RunError(message)


def reason(error: OSError) -> str:
    """Returns why, without the path and the number."""
    return os.strerror(error.errno) if error.errno else str(error)


def _is_uri(path: str) -> bool:
    return "://" in path
