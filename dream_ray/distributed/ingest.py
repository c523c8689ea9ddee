"""Ingest as a streaming Ray Data pipeline: every job is a task, and only numbers pass through the object store."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import ray
import ray.data

from dream_ray import storage
from dream_ray.data.ingest import IDENTITY, PATHS, IngestSettings, Mapper, with_retries
from dream_ray.distributed.cluster.capacity import (
    Needs,
    check_local_capacity,
    cpus_for_tasks,
    present_nodes,
    wait_for_workers,
)
from dream_ray.distributed.cluster.driver_placement import check_visible_on_all_nodes
from dream_ray.distributed.cluster.session import ray_session
from dream_ray.errors import RunError, UsageError

# A task with photographs at 224 px takes 0.89 GB of resident memory at its peak; docs/explanation/ingest.md.
TASK_BYTES = 1_000_000_000
_JOBS_PER_TASK = 32
_TASKS_PER_WORKER = 4
_ERRORS = {kind.__name__: kind for kind in (UsageError, RunError)}


@contextmanager
def ray_jobs(
    settings: IngestSettings,
    store: str,
    workers: int | None,
    memory_bytes: int | None,
    address: str | None,
    wait_s: float,
) -> Iterator[Mapper]:
    """Yields a function that runs the jobs of an ingest on Ray.

    Args:
        settings: Settings of the ingest. All nodes must see its sources; otherwise images would be missing silently.
        store: The store to write; all nodes must see it.
        workers: Tasks at a time, one CPU each; None: one per CPU of the nodes without GPUs, or of all nodes if each has
            a GPU.
        memory_bytes: Memory of all tasks together, which limits their number; None: no limit.
        address: Ray cluster, see `ray_session`.
        wait_s: Seconds that the first task waits for a free CPU.

    Raises:
        UsageError: If a private local Ray has too few CPUs, a node does not see the store or a source, or the memory is
            too small for one task.
        RunError: If the cluster cannot be reached or has no free CPU.
    """
    most = None if memory_bytes is None else tasks_in(memory_bytes)
    with ray_session(address):
        check_local_capacity(Needs(workers or 1))
        wait_for_workers(Needs(), wait_s)
        tasks = workers or cpus_for_tasks(present_nodes())
        check_visible_on_all_nodes("store", store, storage.join(store, IDENTITY))
        for name, path in _places(settings).items():
            check_visible_on_all_nodes(name, path, path)
        yield partial(_run, tasks if most is None else min(tasks, most))


def _places(settings: IngestSettings) -> dict[str, str]:
    """Returns the paths of the sources by parameter; a pattern is replaced by its directory."""
    named = {name: getattr(settings, name) for name in PATHS}
    places = {name: path.rpartition("/")[0] if "*" in path else path for name, path in named.items() if path}
    return {name: path for name, path in places.items() if path and storage.exists(path)}


def tasks_in(memory_bytes: int) -> int:
    """Returns the number of tasks that fit into a memory; raises UsageError if none does."""
    if memory_bytes < TASK_BYTES:
        raise UsageError(
            f"memory must have room for a worker, {TASK_BYTES / 1e6:.0f} MB; got {memory_bytes / 1e6:g} MB"
        )
    return memory_bytes // TASK_BYTES


def _run(workers: int, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
    if not jobs:
        return
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.memory_usage_poll_interval_s = None  # no polling thread in every worker
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    task = partial(_run_job, function, ray.put(list(jobs)))
    # A CPU idles for some tenths of a second between two tasks. So a task takes many jobs, but all workers get tasks.
    num_tasks = min(len(jobs), max(_TASKS_PER_WORKER * workers, len(jobs) // _JOBS_PER_TASK))
    rows = ray.data.range(len(jobs), override_num_blocks=num_tasks)
    outcomes = rows.map(task, num_cpus=1, concurrency=min(workers, num_tasks))
    for row in outcomes.iter_rows():
        outcome = json.loads(row["outcome"])
        if "error" in outcome:
            raise _ERRORS[outcome["error"]](outcome["message"])
        yield outcome["value"]


def _run_job(function: Callable[[Any], Any], reference: Any, row: dict[str, Any]) -> dict[str, str]:
    """Runs one job in a Ray worker. Errors are returned as values, because Ray would wrap them and print tracebacks."""
    try:
        outcome = {"value": with_retries(function, _fetched(reference)[row["id"]])}
    except (UsageError, RunError) as error:
        outcome = {"error": "UsageError" if isinstance(error, UsageError) else "RunError", "message": str(error)}
    return {"outcome": json.dumps(outcome)}


@lru_cache(maxsize=1)
def _fetched(reference: Any) -> Sequence[Any]:
    """Fetches the jobs once per process instead of once per job: there may be thousands."""
    jobs: Sequence[Any] = ray.get(reference)
    return jobs
