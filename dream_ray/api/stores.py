"""Functions that make stores."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dream_ray import storage
from dream_ray.api.backends import DEFAULT_WAIT
from dream_ray.config.sizes import parse_bytes, parse_seconds
from dream_ray.data.ingest import IngestSettings
from dream_ray.data.ingest import ingest as write_store
from dream_ray.data.store.manifest import Manifest
from dream_ray.errors import UsageError

if TYPE_CHECKING:
    from dream_ray.data.ingest.jobs import Mapper


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
    """Writes an image set as a store, or goes on with one that was not finished, and returns its manifest.

    Args:
        settings: What the store is to hold; relative paths are made absolute, for the workers and the manifest.
        store: Directory to write.
        max_rejects: Largest fraction of unreadable images, see `dream_ray.data.ingest.ingest`.
        download: Let torchvision download what is missing.
        workers: Ray tasks at a time, a CPU each; None: as many as there are CPUs.
        memory: Memory of all workers together, in bytes or as text such as "8GB"; fewer of them work if need be.
            None: no limit.
        local: Run in this process, without Ray.
        address: Ray cluster; None: RAY_ADDRESS, else a private local Ray.
        wait: How long to wait for free resources of Ray, in seconds or as text such as "10min".
        progress: Called as the work goes on.
    """
    settings = settings.absolute()
    if local:
        if workers not in (None, 1):
            raise UsageError(f"workers must be 1 with local, which runs in this process; got {workers}")
        if memory is not None:
            raise UsageError("memory bounds the workers on Ray; with local there is one process, whatever it takes")
        runner = None
    else:
        if workers is not None and workers < 1:
            raise UsageError(f"workers must be an int >= 1; got {workers}")
        store = storage.shared_path("store", store)
        memory_bytes = None if memory is None else parse_bytes(memory)
        runner = _ray_jobs(settings, store, workers, memory_bytes, address, parse_seconds(wait))
    return write_store(settings, store, max_rejects=max_rejects, download=download, runner=runner, progress=progress)


@contextmanager
def _ray_jobs(*arguments: Any) -> "Iterator[Mapper]":
    """Imports Ray when the jobs begin, after everything else has been checked."""
    from dream_ray.distributed.ingest import ray_jobs

    with ray_jobs(*arguments) as mapper:
        yield mapper
