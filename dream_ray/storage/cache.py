"""A local cache of remote files, so that what lies in a bucket can be memory-mapped too.

A file is known by the digest of its content: it can be shared by all processes of a machine and never grows old. The
cache is `dream_ray-cache` in $DREAM_RAY_CACHE, else in the user's cache directory: what else lies there is never
deleted. It holds at most $DREAM_RAY_CACHE_GB (100) gigabytes: the files that were not opened for the longest time go
first. A file that is mapped stays readable when it is removed, and on the disk for so long: who keeps mappings lets
those go whose file is no longer cached.
"""

import hashlib
import os
import time
from contextlib import suppress
from typing import Any

import pyarrow as pa

from dream_ray.errors import RunError, UsageError
from dream_ray.storage.directories import file_sizes
from dream_ray.storage.files import atomic_output, delete, is_temporary, open_input
from dream_ray.storage.paths import failure, is_remote, join

_NAME = "dream_ray-cache"
_DEFAULT_GB = 100.0
_BLOCK_BYTES = 8 << 20
# Who has not written to a temporary file for a day was killed.
_WRITING_S = 24 * 3600.0


def open_cached(path: str, digest: str) -> Any:
    """Opens a file for random access in memory, fetching it into the cache first where it is remote.

    Args:
        path: The file.
        digest: SHA-256 of its content.

    Returns:
        A memory-mapped `pyarrow.NativeFile`.

    Raises:
        RunError: If it cannot be read or, when it was fetched, has another content.
        UsageError: If the size of the cache is no number.
    """
    if not is_remote(path):
        return open_input(path)
    cached = os.path.join(_directory(), digest)
    while True:
        try:
            file = pa.memory_map(cached)
        except FileNotFoundError:  # never fetched, or another process made room at this moment
            _fetch(path, digest, cached)
            continue
        mark_used(cached)
        return file


def is_cached(path: str, digest: str) -> bool:
    """Tells whether `open_cached` would not fetch a file: it is in the cache, or on this machine anyway."""
    return not is_remote(path) or os.path.exists(os.path.join(_directory(), digest))


def _directory() -> str:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(os.environ.get("DREAM_RAY_CACHE") or home, _NAME)


def _limit_bytes() -> int:
    text = os.environ.get("DREAM_RAY_CACHE_GB", str(_DEFAULT_GB))
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if limit <= 0:
        raise UsageError(f"DREAM_RAY_CACHE_GB must be a number of gigabytes > 0; got {text!r}")
    return int(limit * 1e9)


def _fetch(path: str, digest: str, cached: str) -> None:
    found = hashlib.sha256()
    with open_input(path) as source:
        limit = _limit_bytes()
        if source.size() > limit:
            raise RunError(f"DREAM_RAY_CACHE_GB must hold a file of {source.size()} bytes; it is {limit} bytes")
        make_room(_directory(), source.size(), limit)
        with atomic_output(cached) as target:
            while block := _read_block(path, source):
                found.update(block)
                target.write(block)
            if found.hexdigest() != digest:
                raise RunError(f"{path} is damaged: its sha256 is {found.hexdigest()}, not {digest}")


def _read_block(path: str, source: Any) -> bytes:
    try:
        return bytes(source.read(_BLOCK_BYTES))
    except OSError as error:
        raise failure("read", path, error) from None


def make_room(directory: str, num_bytes: int, limit_bytes: int) -> None:
    """Deletes the files below a directory that were not used for the longest time until there is room for others.

    What another process is writing counts, but is left to it; what a killed one left goes after a day.

    Args:
        directory: Which need not be there, and has nothing else in it. Any number of processes may make room in it.
        num_bytes: Of what is to be written.
        limit_bytes: Most bytes that all files may have then, >= num_bytes.
    """
    entries = _files_by_age(directory) if is_remote(directory) else _local_files_by_age(directory)
    total = sum(size for _, size, _ in entries)
    for modified, size, path in entries:
        if total + num_bytes <= limit_bytes:
            return
        if is_temporary(path) and time.time() - modified < _WRITING_S:
            continue
        delete(path)
        total -= size


def mark_used(path: str) -> None:
    """Notes that a file is used now, so that `make_room` keeps it; a bucket knows only when it was written."""
    if not is_remote(path):
        with suppress(FileNotFoundError):
            os.utime(path)


def _files_by_age(directory: str) -> list[tuple[float, int, str]]:
    return sorted((modified, size, join(directory, name)) for name, modified, size in file_sizes(directory))


def _local_files_by_age(directory: str) -> list[tuple[float, int, str]]:
    entries = []
    for parent, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(parent, name)
            with suppress(FileNotFoundError):  # another process makes room too
                entries.append((os.stat(path).st_mtime, os.stat(path).st_size, path))
    return sorted(entries)
