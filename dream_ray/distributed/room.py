"""How many trials of a sweep there is room for at a time, so that none waits for ever for what others keep."""

from collections.abc import Mapping, Sequence

from dream_ray.errors import UsageError
from dream_ray.sweep.parts import Resources

DRIVER_CPUS = 0.5
"""Of the process of a trial whose run has Ray Train workers of its own."""


def possible_trials(wanted: Resources, nodes: Sequence[Mapping[str, float]]) -> int:
    """Returns how many trials find room for all of their workers, wherever Ray puts the processes of the trials.

    Args:
        wanted: What a trial has. A worker is on one node; the workers of a trial may be on several.
        nodes: Resources of each node.

    Raises:
        UsageError: With the numbers, if there is none for one.
    """
    trials = 0
    while (trials + 1) * wanted.workers <= _sure_workers(wanted, nodes, trials + 1):
        trials += 1
    if trials == 0:
        cpus = wanted.workers * wanted.cpus + (DRIVER_CPUS if wanted.workers > 1 else 0)
        there = {name: sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
        raise UsageError(
            f"resources of one trial ({wanted.workers} workers) need {cpus:g} CPUs and "
            f"{wanted.workers * wanted.gpus:g} GPUs; Ray reports {there['CPU']:g} and {there['GPU']:g}"
            + (f" on {len(nodes)} nodes, and a worker must be on one" if len(nodes) > 1 else "")
        )
    return trials


def _sure_workers(wanted: Resources, nodes: Sequence[Mapping[str, float]], trials: int) -> int:
    """Returns how many workers there is room for if the processes of trials lie where they are most in the way."""
    if wanted.workers == 1:  # they are the workers
        return sum(_workers_on(wanted, node, 0) for node in nodes)
    # The drivers that it takes on a node to displace one worker, and each one more.
    first = [_drivers_in_the_way(wanted, node) for node in nodes if _workers_on(wanted, node, 0)]
    more = [int(wanted.cpus / DRIVER_CPUS)] * trials
    room = sum(_workers_on(wanted, node, 0) for node in nodes)
    left = trials
    for drivers in sorted(first + more):
        if drivers > left:
            break
        left -= drivers
        room -= 1
    return room


def _drivers_in_the_way(wanted: Resources, node: Mapping[str, float]) -> int:
    drivers = 1
    while _workers_on(wanted, node, drivers) == _workers_on(wanted, node, 0):
        drivers += 1
    return drivers


def _workers_on(wanted: Resources, node: Mapping[str, float], drivers: int) -> int:
    room = int((node.get("CPU", 0) - drivers * DRIVER_CPUS) // wanted.cpus)
    if wanted.gpus >= 1:
        room = min(room, int(node.get("GPU", 0) // wanted.gpus))
    elif wanted.gpus > 0:  # parts of one GPU
        room = min(room, int(node.get("GPU", 0)) * int(1 / wanted.gpus))
    return max(room, 0)
