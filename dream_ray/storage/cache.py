"""A local cache of remote files, so that what lies in a bucket can be memory-mapped too.

A file is known by the digest of its content: it can be shared by all processes of a machine and never grows old. The
cache is $DREAM_RAY_CACHE, else `dream_ray` in the user's cache directory, and holds at most $DREAM_RAY_CACHE_GB (100)
gigabytes: the files that were not opened for the longest time go first. A file that is mapped stays readable when it
is removed.
"""

import hashlib
import os
from contextlib import suppress
from typing import Any

import pyarrow as pa

from dream_ray.errors import RunError, UsageError
from dream_ray.storage.files import atomic_output, open_input
from dream_ray.storage.paths import is_remote

_DEFAULT_GB = 100.0
_BLOCK_BYTES = 8 << 20


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
        os.utime(cached)  # its last use
        return file


def _directory() -> str:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.environ.get("DREAM_RAY_CACHE") or os.path.join(home, "dream_ray")


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
        _make_room(source.size())
        with atomic_output(cached) as target:
            while block := source.read(_BLOCK_BYTES):
                found.update(block)
                target.write(block)
            if found.hexdigest() != digest:
                raise RunError(f"{path} is damaged: its sha256 is {found.hexdigest()}, not {digest}")


def _make_room(num_bytes: int) -> None:
    """Removes the files that were not used for the longest time until there is room for another one."""
    limit = _limit_bytes()
    if num_bytes > limit:
        raise RunError(f"DREAM_RAY_CACHE_GB must hold at least one file of {num_bytes} bytes; it is {limit} bytes")
    os.makedirs(_directory(), exist_ok=True)
    entries = []
    for entry in os.scandir(_directory()):
        with suppress(FileNotFoundError):  # another process makes room too
            entries.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total + num_bytes <= limit:
            return
        with suppress(FileNotFoundError):
            os.unlink(path)
        total -= size
