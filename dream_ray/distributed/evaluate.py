"""Evaluation fanned out over Ray: every network is a task."""

from collections.abc import Iterator, Sequence

import ray

from dream_ray.distributed.session import ray_session, require_resources
from dream_ray.engine.evaluate import EvaluationResult, EvaluationTask, run_task


def run_tasks_on_ray(
    tasks: Sequence[EvaluationTask], *, gpus_per_task: float, address: str | None
) -> Iterator[EvaluationResult]:
    """Runs evaluation tasks in parallel and yields results as they come.

    Args:
        tasks: At least one; each takes as many CPUs as it has threads.
        gpus_per_task: GPUs of each.
        address: Ray cluster, see `ray_session`.
    """
    threads = tasks[0].threads
    with ray_session(address):
        require_resources(1, threads, gpus_per_task)
        remote = ray.remote(num_cpus=threads, num_gpus=gpus_per_task)(run_task)
        pending = [remote.remote(task) for task in tasks]
        while pending:
            ready, pending = ray.wait(pending, num_returns=1)
            yield from ray.get(ready)
