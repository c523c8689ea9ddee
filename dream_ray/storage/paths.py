"""Paths: text that names a file of this machine, or a URI; and what is said when one cannot be used."""

import os
import re
from functools import lru_cache
from typing import Any

import pyarrow as pa
from pyarrow.fs import FileSystem, LocalFileSystem

from dream_ray.errors import RunError, TransientError, UsageError

_LOCAL = LocalFileSystem()
# Their files appear whole when the upload ends, and directories are but parts of names.
_OBJECT_STORES = {"s3", "gs", "gcs"}
_FILE = "file://"
# Of pyarrow, such as `?region=us-east-1`; any other question mark belongs to the name of an object.
_OPTIONS = re.compile(r"\?\w+=")
# Ray sets it in the environment of a submitted job.
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


class RemoteError(TransientError):
    """Storage on another machine failed: it may answer when it is asked again."""


class NotReadable(RunError):  # noqa: N818 - it names a finding about a file
    """A file is not there, may not be read, or ends before it should; asking again does not help."""


def join(path: str, *parts: str) -> str:
    """Returns `path` with relative `parts` below it, parted by slashes."""
    return "/".join([*([path.rstrip("/")] if path else []), *parts])


def sibling(path: str, name: str) -> str:
    """Returns the path of a file in the same directory."""
    directory, separator, _ = path.rpartition("/")
    return f"{directory}{separator}{name}"


def absolute(path: str) -> str:
    """Returns a path that means the same in any working directory; a URI stays as it is.

    Raises:
        UsageError: If it is empty.
    """
    _check_given(path)
    return path if _is_uri(path) else os.path.abspath(path)


def shared_path(name: str, path: str) -> str:
    """Returns a path that means the same on every node of a cluster that mounts its directory.

    Args:
        name: Parameter that the path was given for.
        path: Path of this machine, or URI.

    Raises:
        UsageError: If it is relative in a submitted job, whose working directory is deleted with the job.
    """
    if _JOB in os.environ and path != absolute(path):
        raise UsageError(
            f"{name} must be a URI or an absolute path in a job, which runs in a copy of the directory it was "
            f"submitted from; got {path}"
        )
    return absolute(path)


def is_remote(path: str) -> bool:
    """Tells whether a path leads to another machine."""
    return _is_uri(path) and not path.startswith(_FILE)


def is_within(path: str, directory: str) -> bool:
    """Tells whether a path is a directory or below it, whatever links lead there; neither need exist."""
    (filesystem, target), (other, around) = resolve(path), resolve(directory)
    if not filesystem.equals(other):
        return False
    plain = os.path.realpath if filesystem.equals(_LOCAL) else os.path.normpath
    return f"{plain(target)}/".startswith(f"{plain(around).rstrip('/')}/")


def resolve(path: str) -> tuple[Any, str]:
    """Returns the file system of a path and its name there.

    Raises:
        UsageError: If it is empty or of no known kind, or has credentials in it.
        RunError: If its place cannot be reached.
    """
    _check_given(path)
    if not _is_uri(path):
        return _LOCAL, os.path.abspath(path)
    scheme, _, rest = path.partition("://")
    authority, slash, name = rest.partition("/")
    if "@" in authority:
        # They would end in logs, in env.json and in the product.
        place = authority.rpartition("@")[2]
        raise UsageError(f"a path must not hold credentials, which the environment gives; got {scheme}://...@{place}")
    if scheme == "file":
        # Not parsed: the names of files have blanks, %, # and ? in them as they are.
        if authority:
            raise UsageError(f"a path of this machine must begin with file:///; got {path}")
        return _LOCAL, os.path.abspath("/" + name.lstrip("/"))
    try:
        if scheme in _OBJECT_STORES and not _OPTIONS.search(path):
            filesystem, bucket = _bucket(f"{scheme}://{authority}", _environment())
            target = bucket + slash + name
        else:
            filesystem, target = FileSystem.from_uri(path)
    except pa.ArrowInvalid as error:
        raise UsageError(f"path {path} is of no kind that pyarrow can open: {error}") from None
    except OSError as error:
        raise failure("reach", path, error) from None
    return filesystem, target.rstrip("/") or target


def is_object_store(filesystem: Any) -> bool:
    """Tells whether a file of a file system appears whole, or not at all, when its upload ends."""
    return filesystem.type_name in _OBJECT_STORES


@lru_cache(maxsize=16)
def _bucket(uri: str, environment: tuple[tuple[str, str], ...]) -> tuple[Any, str]:
    """Opens a bucket once: every file system has connections and, on a cloud, credentials of its own to ask for."""
    filesystem, target = FileSystem.from_uri(uri)
    return filesystem, target


def _environment() -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith(("AWS_", "GOOGLE_"))))


def failure(verb: str, path: str, error: OSError) -> RunError:
    """Returns what to raise when something could not be done to a path."""
    message = f"cannot {verb} {path}: {reason(error)}"
    if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)):
        return NotReadable(message)
    return RemoteError(message) if is_remote(path) else TransientError(message)


def reason(error: OSError) -> str:
    """Returns why, without the path and the number."""
    return os.strerror(error.errno) if error.errno else str(error)


def _check_given(path: str) -> None:
    if not path:
        raise UsageError("a path must not be empty")


def _is_uri(path: str) -> bool:
    return "://" in path
