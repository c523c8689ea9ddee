"""Evaluation fanned out over Ray: every network is a task."""

from collections.abc import Iterator, Sequence
from functools import partial

import ray

from dream_ray import storage
from dream_ray.distributed.place import check_seen
from dream_ray.distributed.session import ray_session, require_resources
from dream_ray.distributed.tasks import results
from dream_ray.engine.evaluate import EvaluationResult, EvaluationTask, run_task


def run_tasks_on_ray(
    tasks: Sequence[EvaluationTask], *, gpus_per_task: float, address: str | None
) -> Iterator[EvaluationResult]:
    """Runs evaluation tasks in parallel and yields results as they come.

    Args:
        tasks: At least one; each takes as many CPUs as it has threads.
        gpus_per_task: GPUs of each.
        address: Ray cluster, see `ray_session`.

    Raises:
        UsageError: If Ray has no room for a task, or a node does not see the run.
        TransientError: If one of them died too often.
    """
    threads, run = tasks[0].threads, tasks[0].run_path
    with ray_session(address):
        require_resources(1, threads, gpus_per_task)
        check_seen("run", run, storage.join(run, "config.yaml"))
        remote = ray.remote(num_cpus=threads, num_gpus=gpus_per_task)(run_task)
        yield from results(partial(remote.remote, task) for task in tasks)
