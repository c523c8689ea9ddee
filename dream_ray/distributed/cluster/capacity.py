"""The capacity of Ray: the number of workers that fit into its nodes, and the wait until a run or a trial fits.

Ray queues requests that do not fit and adds nodes if it can. A private local Ray adds none, so a request that can never
fit is refused at once.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import ray
from ray._private import worker
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.util import placement_group, remove_placement_group

from dream_ray.errors import TransientError, UsageError
from dream_ray.sweeps.file import RunResources

_LOG = logging.getLogger(__name__)
_LOG_S = 10.0
_LOOK_S = 1.0
_DRIVER_CPUS = 0.5

Node = Mapping[str, float]
"""Resources of a node, by name."""


@dataclass(frozen=True)
class Needs:
    """The resources that a run, or a trial of a sweep, requests.

    Attributes:
        workers: Number of workers.
        cpus: CPUs per worker.
        gpus: GPUs per worker.
        device: Device of the workers: "cpu" or "cuda".
        driver_cpus: CPUs of the trial's own process, if that process is not the worker.
    """

    workers: int = 1
    cpus: int = 1
    gpus: float = 0
    device: str = "cpu"
    driver_cpus: float = 0

    @property
    def bundles(self) -> list[dict[str, float]]:
        """The bundles to request from Ray; each one lies on one node."""
        each = {"CPU": self.cpus, "GPU": self.gpus}
        bundles: list[dict[str, float]] = [{name: amount for name, amount in each.items() if amount}] * self.workers
        return [*bundles, {"CPU": self.driver_cpus}] if self.driver_cpus else bundles

    def __str__(self) -> str:
        gpus = f" and {_count(self.gpus, 'GPU')}" if self.gpus else ""
        each = " each" if self.workers > 1 else ""
        driver = f", and {self.driver_cpus:g} CPUs for the trial itself" if self.driver_cpus else ""
        return f"{_count(self.workers, 'worker')} of {_count(self.cpus, 'CPU')}{gpus}{each}{driver}"


def needs_of(wanted: RunResources, device: str) -> Needs:
    """Returns the resources of a trial.

    A trial without a reserved GPU computes on the CPU, even if it sees GPUs of other processes. A trial with a reserved
    GPU never falls back to the CPU: if its process sees no GPU, it fails with an error.

    Args:
        wanted: The resources in the file of the sweep or experiment.
        device: "auto", "cpu" or "cuda".

    Raises:
        UsageError: If the device is cuda and there is no GPU.
    """
    gpus = default_gpus(device) if wanted.gpus is None else wanted.gpus
    if gpus == 0 and device == "cuda":
        said = "Ray has none" if wanted.gpus is None else "resources.gpus is 0"
        raise UsageError(f"device must be auto or cpu where a trial has no GPU ({said}); got cuda")
    used = "cuda" if gpus and device != "cpu" else "cpu"
    return Needs(wanted.workers, wanted.cpus, gpus, used, _DRIVER_CPUS if wanted.workers > 1 else 0)


def worker_slots(needs: Needs, nodes: Sequence[Node]) -> int:
    """Returns the number of workers that fit into the nodes; a worker lies on one node."""
    return sum(_slots_of(needs, node) for node in nodes)


def trials_at_a_time(needs: Needs, nodes: Sequence[Node]) -> int:
    """Returns the number of trials that fit into the nodes with all of their workers.

    The number holds wherever Ray places the trials' own processes: these must never fill the nodes so that no trial
    gets its workers. In the worst case each process takes the slot of one worker, or all of them lie on one node.
    """
    slots = worker_slots(needs, nodes)
    for trials in range(slots // needs.workers, 0, -1):
        beside = [{**node, "CPU": node.get("CPU", 0) - trials * needs.driver_cpus} for node in nodes]
        if trials * needs.workers <= max(slots - trials, worker_slots(needs, beside)):
            return trials
    return 0


def cpus_for_tasks(nodes: Sequence[Node]) -> int:
    """Returns the CPUs for tasks without GPUs: those of nodes without a GPU, or all CPUs if every node has one."""
    without = sum(node.get("CPU", 0) for node in nodes if not node.get("GPU"))
    return int(without or sum(node.get("CPU", 0) for node in nodes))


class Patience:
    """Limits a wait for resources and logs it every ten seconds.

    Args:
        needs: The requested resources.
        wait_s: Longest wait in seconds.
    """

    def __init__(self, needs: Needs, wait_s: float) -> None:
        self._needs, self._wait_s = needs, wait_s
        self._since = self._logged = monotonic()

    def look(self) -> None:
        """Logs a line if ten seconds have passed since the last one.

        Raises:
            TransientError: If the wait is over.
        """
        now = monotonic()
        waited_s = now - self._since
        if waited_s >= self._wait_s:
            raise TransientError(
                f"{self._needs} found no free resources within {self._wait_s:g} s: {describe_capacity()}. Ask for "
                f"fewer or smaller workers, wait longer (--wait), or add nodes"
            )
        if now - self._logged >= _LOG_S:
            self._logged = now
            left_s = self._wait_s - waited_s
            _LOG.warning("Waiting for %s: %s. Giving up after %.0f s more.", self._needs, describe_capacity(), left_s)


def check_local_capacity(needs: Needs) -> None:
    """Raises UsageError if a private local Ray can never satisfy the request."""
    nodes = present_nodes()
    if not is_cluster() and trials_at_a_time(needs, nodes) == 0:
        raise UsageError(
            f"workers must fit into this machine; got {needs}, and Ray has {_amounts(nodes)}, which hold "
            f"{_count(worker_slots(needs, nodes), 'such worker')}. Ask for fewer or smaller workers, or name a cluster "
            f"with --address"
        )


def wait_for_workers(needs: Needs, wait_s: float) -> None:
    """Waits until all workers of a run or a trial fit at once; Ray must be connected.

    The function reserves their resources, so that the autoscaler adds nodes, and then releases them.

    Args:
        needs: The resources of the run or the trial.
        wait_s: Longest wait in seconds.

    Raises:
        UsageError: See `check_local_capacity`.
        TransientError: If they do not fit in time.
    """
    check_local_capacity(needs)
    patience = Patience(needs, wait_s)
    group = placement_group(needs.bundles)
    try:
        while not group.wait(_LOOK_S):
            patience.look()
    finally:
        remove_placement_group(group)


def is_cluster() -> bool:
    """Tells whether Ray may have or get other nodes; a private local Ray, started by this process, never does."""
    node: Any = worker._global_node
    return node is None or not node.head


def present_nodes() -> list[dict[str, float]]:
    """Returns the resources of each live node."""
    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def default_gpus(device: str) -> float:
    """Returns the GPUs per worker if the user names no number: 1 for cuda; for auto, 1 if Ray has any.

    Args:
        device: "auto", "cpu" or "cuda".
    """
    has_any = any(node.get("GPU") for node in present_nodes())
    return float(device != "cpu" and (has_any or (device == "cuda" and is_cluster())))


def describe_capacity() -> str:
    """Returns the total and the free resources of Ray, and the number of nodes that are starting, as text."""
    total: Node = ray.cluster_resources()  # type: ignore[no-untyped-call]
    free: Node = ray.available_resources()  # type: ignore[no-untyped-call]
    text = f"Ray has {_amounts([total])}, of which {_amounts([free])} are free"
    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    starting = len(status.pending_nodes) + sum(launch.count for launch in status.pending_launches)
    return f"{text}; {_count(starting, 'node')} being started" if starting else text


def _slots_of(needs: Needs, node: Node) -> int:
    slots = int(node.get("CPU", 0) // needs.cpus)
    if needs.gpus >= 1:
        slots = min(slots, int(node.get("GPU", 0) // needs.gpus))
    elif needs.gpus > 0:  # workers share a GPU
        slots = min(slots, int(node.get("GPU", 0)) * int(1 / needs.gpus))
    return max(slots, 0)


def _amounts(nodes: Sequence[Node]) -> str:
    cpus, gpus = (sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU"))
    return f"{_count(cpus, 'CPU')} and {_count(gpus, 'GPU')}"


def _count(number: float, name: str) -> str:
    return f"{number:g} {name}" if number == 1 else f"{number:g} {name}s"
