"""Paths: texts that name a local file or a URI, and the errors for paths that cannot be used."""

import atexit
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import pyarrow as pa
from pyarrow.fs import FileSystem, LocalFileSystem

from dream_ray.errors import RunError, TransientError, UsageError

_LOCAL = LocalFileSystem()
# Their files appear complete when the upload ends, and their directories are only parts of names.
_OBJECT_STORES = {"s3", "gs", "gcs"}
_FILE = "file://"
# Options of pyarrow's file systems, such as `?region=us-east-1`; any other question mark belongs to the name of a file.
_OPTIONS = re.compile(
    r"\?(region|scheme|endpoint_override|allow_\w+|background_writes|check_directory_existence_before_creation|"
    r"default_bucket_location|force_virtual_addressing|project_id|retry_limit_seconds|smart_defaults|tls_\w+)="
)
# Answers of S3 to wrong credentials, which a retry does not change.
_REFUSED = re.compile(r"AWS Error (ACCESS_DENIED|INVALID_ACCESS_KEY_ID|INVALID_SIGNATURE|SIGNATURE_DOES_NOT_MATCH)\b")
# Environment variable that Ray sets for a submitted job.
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
# What a pathlib.Path leaves of a URI; a drive of Windows has one letter.
_BROKEN_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")

StrPath = str | os.PathLike[str]
"""A path as users give it; `text_path` makes the text of it that everything else takes."""


class RemoteError(TransientError):
    """Remote storage failed; a retry may succeed."""


class NotReadable(RunError):  # noqa: N818 - it names a finding about a file
    """A file is missing, not permitted or too short; a retry does not help."""


def text_path(name: str, value: StrPath) -> str:
    """Returns a path that a user gave as text.

    Args:
        name: Name of the parameter, for the error.
        value: Local path or URI.

    Raises:
        UsageError: If it is no path, or a `pathlib.Path` that was made of a URI.
    """
    if isinstance(value, str):
        return value
    text = value.__fspath__() if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise UsageError(f"{name} must be a path (str or os.PathLike[str]); got {value!r}")
    if _BROKEN_URI.match(text):
        raise UsageError(
            f"{name} must be a str if it is a URI, because a pathlib.Path drops a slash of its '://'; got {value!r}"
        )
    return text


def join(path: str, *parts: str) -> str:
    """Returns `path` and relative `parts` below it, joined by slashes."""
    return "/".join([*([path.rstrip("/")] if path else []), *parts])


def sibling(path: str, name: str) -> str:
    """Returns the path of a file in the same directory."""
    directory, separator, _ = path.rpartition("/")
    return f"{directory}{separator}{name}"


def absolute(path: str) -> str:
    """Returns a path that does not depend on the working directory; a URI stays unchanged.

    Raises:
        UsageError: If it is empty.
    """
    _check_given(path)
    return path if _is_uri(path) else _local(path)


def shared_path(name: str, path: str) -> str:
    """Returns a path that is valid on every node of a cluster that mounts its directory.

    Args:
        name: Name of the parameter, for the error.
        path: Local path or URI.

    Raises:
        UsageError: If it is relative in a submitted job, whose working directory is deleted with the job.
    """
    if _JOB in os.environ and path != absolute(path):
        raise UsageError(
            f"{name} must be a URI or an absolute path in a job, because a job runs in a copy of the submitted "
            f"directory; got {path}"
        )
    return absolute(path)


def is_remote(path: str) -> bool:
    """Tells whether a path is on another machine."""
    return _is_uri(path) and not path.startswith(_FILE)


def is_within(path: str, directory: str) -> bool:
    """Tells whether a path is a directory or below it after links are resolved; neither need exist."""
    (filesystem, target), (other, around) = resolve(path), resolve(directory)
    if not filesystem.equals(other):
        return False
    plain = os.path.realpath if filesystem.equals(_LOCAL) else os.path.normpath
    return f"{plain(target)}/".startswith(f"{plain(around).rstrip('/')}/")


def resolve(path: str) -> tuple[Any, str]:
    """Returns the file system of a path and the name on that file system.

    Raises:
        UsageError: If it is empty or of an unknown kind, or contains credentials.
        RunError: If its file system cannot be reached.
    """
    _check_given(path)
    if not _is_uri(path):
        return _LOCAL, _local(path)
    scheme, _, rest = path.partition("://")
    authority, slash, name = rest.partition("/")
    if "@" in authority:
        # Credentials would end up in logs, in env.json and in the artefacts.
        place = authority.rpartition("@")[2]
        raise UsageError(
            f"a path must not contain credentials: set them in the environment; got {scheme}://...@{place}"
        )
    if scheme == "file":
        # Not parsed: file names contain blanks, %, # and ? literally.
        if authority:
            raise UsageError(f"the URI of a local file must begin with file:///; got {path}")
        return _LOCAL, os.path.abspath("/" + name.lstrip("/"))
    try:
        with named_errors("reach", path):
            if scheme in _OBJECT_STORES:
                names = [name for name in sorted(os.environ) if name.startswith(("AWS_", "GOOGLE_"))]
                environment = tuple((name, os.environ[name]) for name in names)
                name, options = _without_options(name)
                filesystem, bucket = _bucket(f"{scheme}://{authority}{options}", environment)
                target = bucket + slash + name
            else:
                filesystem, target = FileSystem.from_uri(path)
    except pa.ArrowInvalid as error:
        raise UsageError(f"path {path} is of a kind that pyarrow cannot open: {error}") from None
    return filesystem, target.rstrip("/") or target


def _without_options(name: str) -> tuple[str, str]:
    """Returns a name without the options of its file system, and them; names that were joined to it follow them."""
    found = _OPTIONS.search(name)
    if found is None:
        return name, ""
    options, slash, below = name[found.start() :].partition("/")
    return name[: found.start()] + slash + below, options


def is_object_store(filesystem: Any) -> bool:
    """Tells whether a file system makes a file visible only when its upload is complete."""
    return filesystem.type_name in _OBJECT_STORES


@lru_cache(maxsize=16)
def _bucket(uri: str, environment: tuple[tuple[str, str], ...]) -> tuple[Any, str]:
    """Opens a bucket once: each file system opens its own connections and requests its own credentials."""
    opened: tuple[Any, str] = FileSystem.from_uri(uri)
    return opened


# With credentials by web identity, a file system that lives at the end of the process blocks it (apache/arrow#50188).
atexit.register(_bucket.cache_clear)


@contextmanager
def named_errors(verb: str, path: str) -> Iterator[None]:
    """Turns an OSError of the block into an error that names the operation and the path.

    Args:
        verb: The operation.
        path: Local path or URI.

    Raises:
        NotReadable: If the file is missing or not permitted, or a directory and a file are confused.
        RunError: If a bucket refuses the credentials.
        RemoteError: If another operation on a remote path fails.
        TransientError: If another operation on a local path fails.
    """
    try:
        yield
    except OSError as error:
        message = f"cannot {verb} {path}: {reason(error)}"
        if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)):
            raise NotReadable(message) from None
        if _REFUSED.search(message):
            raise RunError(
                f"{message.rstrip('. ')}. Check the credentials in the environment (AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY, AWS_PROFILE) and what they permit"
            ) from None
        kind = RemoteError if is_remote(path) else TransientError
        raise kind(message) from None


def reason(error: OSError) -> str:
    """Returns the message of an error without path and number."""
    return os.strerror(error.errno) if error.errno else str(error)


def _local(path: str) -> str:
    """Returns the absolute form of a local path; `~` is the home directory, which shells leave in `--out=~/run`."""
    return os.path.abspath(os.path.expanduser(path))


def _check_given(path: str) -> None:
    if not path:
        raise UsageError("a path must not be empty")


def _is_uri(path: str) -> bool:
    return "://" in path
