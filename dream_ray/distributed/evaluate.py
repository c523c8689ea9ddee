"""Evaluation fanned out over Ray: every network is a task."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import ray

from dream_ray import storage
from dream_ray.distributed.place import check_seen
from dream_ray.distributed.session import default_gpus, ray_session, require_resources
from dream_ray.distributed.tasks import results
from dream_ray.engine.evaluate import EvaluationResult, EvaluationTask, run_task


def run_tasks_on_ray(tasks: Sequence[EvaluationTask], *, address: str | None) -> Iterator[EvaluationResult]:
    """Runs evaluation tasks in parallel and yields results as they come.

    Args:
        tasks: At least one; each takes as many CPUs as it has threads, and a GPU where it may and Ray has any.
        address: Ray cluster, see `ray_session`.

    Raises:
        UsageError: If Ray has no room for a task, or a node does not see the run.
        TransientError: If one of them died too often.
    """
    threads, run = tasks[0].threads, tasks[0].run_path
    with ray_session(address):
        gpus = default_gpus(tasks[0].device)
        require_resources(1, threads, gpus)
        check_seen("run", run, storage.join(run, "config.yaml"))
        remote: Any = ray.remote(num_cpus=threads, num_gpus=gpus)(run_task)
        # Ray hides no GPU from a task that reserves none, and any number of them would share it.
        placed = [replace(task, device=task.device if gpus else "cpu") for task in tasks]
        yield from results(partial(remote.remote, task) for task in placed)
