"""The function that writes stores."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dream_ray import storage
from dream_ray.api.backends import DEFAULT_WAIT
from dream_ray.config.sizes import parse_bytes, parse_seconds
from dream_ray.data.ingest import IngestSettings, Mapper
from dream_ray.data.ingest import ingest as write_store
from dream_ray.data.store.manifest import Manifest
from dream_ray.errors import UsageError


def ingest(
    settings: IngestSettings,
    store: str,
    *,
    max_rejects: float = 0.01,
    download: bool = False,
    workers: int | None = None,
    memory: int | str | None = None,
    local: bool = False,
    address: str | None = None,
    wait: float | str = DEFAULT_WAIT,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Manifest:
    """Writes an image set as a store, or continues an unfinished one, and returns its manifest.

    Args:
        settings: Content of the store; relative paths are made absolute, for the workers and the manifest.
        store: Directory to write.
        max_rejects: Largest fraction of unreadable images, see `dream_ray.data.ingest.ingest`.
        download: Let torchvision download missing files.
        workers: Ray tasks at a time, one CPU each; None: one per CPU.
        memory: Memory of all workers together, in bytes or as text such as "8GB"; fewer workers start if it is short.
            None: no limit.
        local: Run in this process, without Ray.
        address: Ray cluster; None: RAY_ADDRESS, else a private local Ray.
        wait: How long to wait for free resources of Ray, in seconds or as text such as "10min".
        progress: Called as the work proceeds: (unit, number done, total number).
    """
    settings, wait_s = settings.absolute(), parse_seconds(wait)
    if local:
        if workers not in (None, 1):
            raise UsageError(f"workers must be 1 with local, which runs in this process; got {workers}")
        if memory is not None:
            raise UsageError(f"memory must not be set with local, which runs in one process; got {memory!r}")
        runner = None
    else:
        if workers is not None and workers < 1:
            raise UsageError(f"workers must be an int >= 1; got {workers}")
        store = storage.shared_path("store", store)
        memory_bytes = None if memory is None else parse_bytes(memory)
        runner = _ray_jobs(settings, store, workers, memory_bytes, address, wait_s)
    return write_store(settings, store, max_rejects=max_rejects, download=download, runner=runner, progress=progress)


@contextmanager
def _ray_jobs(*arguments: Any) -> Iterator[Mapper]:
    """Imports Ray when the jobs begin, after all other checks."""
    from dream_ray.distributed.ingest import ray_jobs

    with ray_jobs(*arguments) as mapper:
        yield mapper
