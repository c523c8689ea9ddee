"""How many workers of a run, or trials of a sweep, there is room for, so that none waits for what others keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dream_ray.errors import UsageError
from dream_ray.sweep.config_sections import Resources

DRIVER_CPUS = 0.5
"""Of the process of a trial whose run has Ray Train workers of its own."""


@dataclass(frozen=True)
class Needs:
    """What a trial, or a worker of a run, takes of a cluster.

    Attributes:
        workers: Of a trial; one is its own process.
        cpus: Of a worker.
        gpus: Of a worker.
        device: Of the workers: "cpu" or "cuda".
    """

    workers: int = 1
    cpus: int = 1
    gpus: float = 0
    device: str = "cpu"


def needs_of(wanted: Resources, device: str, default_gpus: float) -> Needs:
    """Returns what a trial takes; without a GPU of its own it computes on the CPU, though it may see those of others.

    With one it never falls back to the CPU: on a node where its process sees none, it fails and says so.

    Args:
        wanted: What the sweep file says.
        device: "auto", "cpu" or "cuda".
        default_gpus: GPUs of a worker where the file says nothing.

    Raises:
        UsageError: If there is no GPU for device cuda.
    """
    gpus = default_gpus if wanted.gpus is None else wanted.gpus
    if gpus == 0 and device == "cuda":
        said = "Ray has none" if wanted.gpus is None else "resources.gpus is 0"
        raise UsageError(f"device must be auto or cpu where a trial has no GPU ({said}); got cuda")
    return Needs(wanted.workers, wanted.cpus, gpus, "cuda" if gpus and device != "cpu" else "cpu")


def places(needs: Needs, nodes: Sequence[Mapping[str, float]]) -> int:
    """Returns how many workers there is room for, each on one of the nodes."""
    return sum(_workers_on(needs, node, 0) for node in nodes)


def possible_trials(needs: Needs, nodes: Sequence[Mapping[str, float]]) -> int:
    """Returns how many trials find room for all of their workers, wherever Ray puts the processes of the trials.

    Args:
        needs: What a trial has. A worker is on one node; the workers of a trial may be on several.
        nodes: Resources of each node.

    Raises:
        UsageError: With the numbers, if there is none for one.
    """
    trials = 0
    while (trials + 1) * needs.workers <= _sure_workers(needs, nodes, trials + 1):
        trials += 1
    if trials == 0:
        cpus = needs.workers * needs.cpus + (DRIVER_CPUS if needs.workers > 1 else 0)
        there = {name: sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
        raise UsageError(
            f"resources of one trial ({needs.workers} workers) need {cpus:g} CPUs and "
            f"{needs.workers * needs.gpus:g} GPUs; Ray reports {there['CPU']:g} and {there['GPU']:g}"
            + (f" on {len(nodes)} nodes, and a worker must be on one" if len(nodes) > 1 else "")
        )
    return trials


def _sure_workers(needs: Needs, nodes: Sequence[Mapping[str, float]], trials: int) -> int:
    """Returns how many workers there is room for if the processes of trials lie where they are most in the way."""
    if needs.workers == 1:  # they are the workers
        return places(needs, nodes)
    # The drivers that it takes on a node to displace one worker, and each one more.
    first = [_drivers_in_the_way(needs, node) for node in nodes if _workers_on(needs, node, 0)]
    more = [int(needs.cpus / DRIVER_CPUS)] * trials
    room = places(needs, nodes)
    left = trials
    for drivers in sorted(first + more):
        if drivers > left:
            break
        left -= drivers
        room -= 1
    return room


def _drivers_in_the_way(needs: Needs, node: Mapping[str, float]) -> int:
    drivers = 1
    while _workers_on(needs, node, drivers) == _workers_on(needs, node, 0):
        drivers += 1
    return drivers


def _workers_on(needs: Needs, node: Mapping[str, float], drivers: int) -> int:
    room = int((node.get("CPU", 0) - drivers * DRIVER_CPUS) // needs.cpus)
    if needs.gpus >= 1:
        room = min(room, int(node.get("GPU", 0) // needs.gpus))
    elif needs.gpus > 0:  # parts of one GPU
        room = min(room, int(node.get("GPU", 0)) * int(1 / needs.gpus))
    return max(room, 0)
