"""Claims: a process claims a piece of work, so that others wait for it instead of repeating it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from dream_ray.errors import UsageError
from dream_ray.storage.files import delete
from dream_ray.storage.paths import is_remote, join, resolve

CLAIM = ".claim.partial"
"""Name of the file that claims a directory. Like other temporary files it is neither listed nor removed for space."""


@contextmanager
def claimed(path: str) -> Iterator[bool]:
    """Claims the work that a path stands for, if it is free, until the end of the block or of the process.

    A claim saves work but guards nothing: on a file system without locks, and in a bucket, every process gets it.

    Args:
        path: A file that is created for the claim, with its directory.

    Yields:
        Whether this process has the claim.
    """
    if is_remote(path):
        yield True
        return
    from filelock import FileLock, Timeout  # `dream_ray.sets` reads files without it

    _, target = resolve(path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    # A soft lock is a file that a killed process leaves behind: no process on another host would ever get the claim.
    lock = FileLock(target, fallback_to_soft=False)
    ours = True
    try:
        lock.acquire(blocking=False)
    except Timeout:
        ours = False
    except (OSError, NotImplementedError):  # The file system has no locks.
        pass
    try:
        yield ours
    finally:
        lock.release()


def is_in_use(directory: str) -> bool | None:
    """Tells whether a process has the `exclusive_lock` of a directory; None where there are no locks.

    For the moment of the question, another process cannot take the lock.
    """
    claim = join(directory, CLAIM)
    if is_remote(claim):
        return None
    from filelock import FileLock, Timeout

    _, target = resolve(claim)
    if not os.path.exists(target):
        return False
    lock = FileLock(target, fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # The file system has no locks, or is read-only.
        return None
    lock.release()
    return False


@contextmanager
def exclusive_lock(kind: str, directory: str) -> Iterator[None]:
    """Locks a directory, because another process would take unfinished work for that of a killed process.

    In a bucket, and on a file system without locks, it locks nothing. A killed process leaves an unlocked file behind,
    which the next process reuses.

    Args:
        kind: Content of the directory, for the error.
        directory: An existing directory.

    Raises:
        UsageError: If another process has the lock.
    """
    claim = join(directory, CLAIM)
    with claimed(claim) as ours:
        if not ours:
            raise UsageError(f"only one process at a time may use {kind} {directory}; another one uses it")
        try:
            yield
        finally:
            if not is_remote(directory):  # A bucket has no claim file.
                delete(claim)
