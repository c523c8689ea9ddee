"""One process at a time works on the directory of a run or a sweep."""

from collections.abc import Iterator
from contextlib import contextmanager

from dream_ray import storage
from dream_ray.errors import UsageError


@contextmanager
def running_alone(path: str) -> Iterator[None]:
    """Keeps other processes from a run or a sweep: they would take what this one has begun for that of a dead one.

    In a bucket, and on a file system without locks, it cannot.

    Args:
        path: Directory of the run or the sweep.

    Raises:
        UsageError: If another process is at it.
    """
    with storage.claimed(storage.join(path, storage.CLAIM)) as ours:
        if not ours:
            raise UsageError(f"{path} must be worked on by one process at a time; another one runs it now")
        yield
