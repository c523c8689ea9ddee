"""The resources of the runs of a sweep or an experiment on Ray, how many fit at a time, and what executes them."""

import os
from typing import Any

from dream_ray import storage
from dream_ray.data.store.manifest import MANIFEST
from dream_ray.distributed.cluster.capacity import (
    Needs,
    is_cluster,
    needs_of,
    present_nodes,
    trials_at_a_time,
    wait_for_workers,
)
from dream_ray.distributed.cluster.driver_placement import check_visible_on_all_nodes, use_gpu
from dream_ray.distributed.ray_backend import RayBackend
from dream_ray.distributed.train.metrics import report_to_ray
from dream_ray.engine.local_backend import LocalBackend
from dream_ray.sweeps.file import RunResources
from dream_ray.sweeps.trial import TrialExecutor


def check_cluster(wanted: RunResources, device: str, store: str, wait_s: float) -> Needs:
    """Waits until one run fits into the connected cluster, and returns the resources of a run.

    Raises:
        UsageError: If it never fits into a private local Ray, or a node does not see the store.
        TransientError: If it found no free resources.
    """
    needs = needs_of(wanted, device)
    wait_for_workers(needs, wait_s)
    check_visible_on_all_nodes("store", store, storage.join(store, MANIFEST))
    return needs


def at_a_time(needs: Needs, most: int | None) -> int:
    """Returns the number of runs at a time: those that fit now or, on a cluster that may grow, the user's number."""
    fitting = trials_at_a_time(needs, present_nodes())
    if is_cluster():
        return most or max(fitting, 1)
    return min(fitting, most or fitting)


def resources_of(needs: Needs) -> dict[str, float]:
    """Returns the resources of the process of a run, by name."""
    return {"cpu": needs.driver_cpus} if needs.driver_cpus else {"cpu": needs.cpus, "gpu": needs.gpus}


def use_some_gpu(executor: TrialExecutor) -> None:
    """Chooses a GPU if the process has reserved none, because the workers of its runs have."""
    use_gpu(executor.options["device"], os.getpid())


def executor_of(needs: Needs, wait_s: float, **caches: Any) -> TrialExecutor:
    """Returns what executes runs in their processes; `caches` are fields of `RunSpec`."""
    is_local = needs.workers == 1
    options = {
        "compile": "off",
        "device": needs.device,
        "threads": needs.cpus,
        "local": is_local,
        "workers": needs.workers,
        "gpus_per_worker": needs.gpus,
        # The admission of runs does not know the resources of producers. Several workers train the same networks, and
        # share them in the cache.
        "producers": 0,
        **caches,
    }
    return TrialExecutor(LocalBackend(report_to_ray) if is_local else RayBackend(wait_s=wait_s), options)
