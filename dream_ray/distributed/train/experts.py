"""The experts of trajectory matching, trained by Ray tasks: as many at a time as the cluster has room for."""

from functools import partial

import ray

from dream_ray import storage
from dream_ray.distributed.cluster.tasks import results
from dream_ray.engine.prefetch.producer import make_expert, missing_experts
from dream_ray.engine.run.directory import Run

_TRIES = 3


def train_experts(run: Run, *, gpus: float) -> None:
    """Trains the experts of a run that its cache lacks, and waits for them; does nothing for other frameworks.

    A task that dies is started again and goes on from the last network in the cache.

    Args:
        run: The run.
        gpus: GPUs of a task; it has a CPU for each of the run's threads.

    Raises:
        TransientError: If one of them died too often.
    """
    task = ray.remote(num_cpus=run.threads, num_gpus=gpus, max_retries=_TRIES)(make_expert)
    path = storage.absolute(run.path)
    for _ in results(partial(task.remote, path, number) for number in missing_experts(run)):
        pass
