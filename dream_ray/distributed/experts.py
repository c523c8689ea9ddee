"""The experts of trajectory matching, trained by Ray tasks: as many at a time as the cluster has room for."""

import ray
from ray.exceptions import RayTaskError

from dream_ray import storage
from dream_ray.engine.run import Run
from dream_ray.engine.trajectories.experts import make_expert, missing_experts
from dream_ray.errors import RunError

_TRIES = 3


def train_experts(run: Run, *, gpus: float) -> None:
    """Trains the experts of a run that its bank lacks, and waits for them; does nothing for other frameworks.

    A task that dies is started again and goes on from the last network in the bank.

    Args:
        run: The run.
        gpus: GPUs of a task; it has a CPU for each of the run's threads.

    Raises:
        RunError: If one of them died too often.
    """
    task = ray.remote(num_cpus=run.threads, num_gpus=gpus, max_retries=_TRIES)(make_expert)
    path = storage.absolute(run.path)
    waiting = [task.remote(path, number) for number in missing_experts(run)]
    if not waiting:
        return
    try:
        ray.get(waiting)
    except RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise RunError(
            f"a task that trained an expert died {_TRIES + 1} times; what is trained is kept, continue with "
            f"`dream-ray resume`. Last reason: {error}"
        ) from None
    finally:
        # Of those that have ended, none may be cancelled: now and then that ends this process (Ray 2.60).
        _, unfinished = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        for reference in unfinished:
            ray.cancel(reference, force=True)
