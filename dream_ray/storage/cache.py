"""A local cache of remote files, so that files in a bucket can be memory-mapped too.

A cached file has the digest of its content as its name, so all processes of a machine share it and it never becomes
stale. The cache is the directory `dream_ray-cache` in $DREAM_RAY_CACHE, else in the user's cache directory; files
beside it are never deleted. It holds at most $DREAM_RAY_CACHE_GB (100) gigabytes and evicts the least recently opened
files. A mapped file stays readable after eviction but keeps its disk space, so owners of mappings release those of
evicted files.
"""

import hashlib
import io
import os
import time
from contextlib import suppress
from typing import Any

import pyarrow as pa

from dream_ray.errors import RunError, UsageError
from dream_ray.storage.directories import file_sizes
from dream_ray.storage.files import atomic_output, delete, is_temporary, open_input
from dream_ray.storage.paths import is_remote, join
from dream_ray.storage.reading import open_raw

_NAME = "dream_ray-cache"
_DEFAULT_GB = 100.0
_BLOCK_BYTES = 8 << 20
# A temporary file that is unchanged for a day belongs to a killed process.
_WRITING_S = 24 * 3600.0


def open_cached(path: str, digest: str) -> Any:
    """Opens a file as a memory map; a remote file is fetched into the cache first.

    Args:
        path: The file.
        digest: SHA-256 of its content.

    Returns:
        A memory-mapped `pyarrow.NativeFile`.

    Raises:
        RunError: If it cannot be read, or its fetched content has another digest.
        UsageError: If the size of the cache is not a number.
    """
    if not is_remote(path):
        return open_input(path)
    cached = os.path.join(local_directory(), digest)
    while True:
        try:
            file = pa.memory_map(cached)
        except FileNotFoundError:  # never fetched, or evicted by another process at this moment
            _fetch(path, digest, cached)
            continue
        mark_used(cached)
        return file


def is_cached(path: str, digest: str) -> bool:
    """Tells whether a file is local or in the cache, so that `open_cached` need not fetch it."""
    return not is_remote(path) or os.path.exists(os.path.join(local_directory(), digest))


def local_directory() -> str:
    """Returns the directory of the cache, which need not exist."""
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
    with open_raw(path) as source:
        limit = _limit_bytes()
        num_bytes = source.seek(0, io.SEEK_END)
        source.seek(0)
        if num_bytes > limit:
            raise RunError(f"DREAM_RAY_CACHE_GB must hold a file of {num_bytes} bytes; it is {limit} bytes")
        make_room(local_directory(), num_bytes, limit)
        with atomic_output(cached) as target:
            while block := source.read(_BLOCK_BYTES):
                found.update(block)
                target.write(block)
            if found.hexdigest() != digest:
                raise RunError(f"{path} is damaged: its sha256 is {found.hexdigest()}, not {digest}")


def make_room(directory: str, num_bytes: int, limit_bytes: int) -> None:
    """Deletes the least recently used files below a directory until there is room for new ones.

    Files that other processes are writing count but stay; those of killed processes are deleted after a day.

    Args:
        directory: Any number of processes may make room in it. It need not exist, and contains nothing else.
        num_bytes: Size of the new files.
        limit_bytes: Largest total size of all files, >= num_bytes.
    """
    entries = sorted((modified, size, join(directory, name)) for name, modified, size in file_sizes(directory))
    total = sum(size for _, size, _ in entries)
    for modified, size, path in entries:
        if total + num_bytes <= limit_bytes:
            return
        if is_temporary(path) and time.time() - modified < _WRITING_S:
            continue
        delete(path)
        total -= size


def mark_used(path: str) -> None:
    """Records the use of a file for `make_room`; a bucket only records the time of writing."""
    if not is_remote(path):
        with suppress(FileNotFoundError):
            os.utime(path)
