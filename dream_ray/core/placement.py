"""Placement: which worker works on which classes. Pure functions of values, tested without a cluster."""

from collections.abc import Sequence
from dataclasses import dataclass

from dream_ray.errors import UsageError


@dataclass(frozen=True)
class Placement:
    """What one worker does.

    Attributes:
        labels: The classes that it works on, ascending.
        team: The workers that share these classes, ascending; the first one owns them.
    """

    labels: tuple[int, ...]
    team: tuple[int, ...]


def place_classes(costs: Sequence[float], num_workers: int) -> tuple[Placement, ...]:
    """Distributes classes over workers so that the largest load is small.

    Up to as many workers as classes, each worker owns classes alone. With more, every class has a team of workers.

    Args:
        costs: What each class costs, in any unit; class label = position.
        num_workers: Workers, >= 1.

    Returns:
        What each worker does. Worker 0 is always an owner, and every class has exactly one.

    Raises:
        UsageError: If there is no worker.
    """
    if num_workers < 1:
        raise UsageError(f"workers must be an int >= 1; got {num_workers}")
    if num_workers <= len(costs):
        return tuple(Placement(labels, (worker,)) for worker, labels in enumerate(_deal_out(costs, num_workers)))
    placed: list[Placement] = []
    for label, size in enumerate(_team_sizes(costs, num_workers)):
        team = tuple(range(len(placed), len(placed) + size))
        placed += [Placement((label,), team)] * size
    return tuple(placed)


def _deal_out(costs: Sequence[float], num_workers: int) -> list[tuple[int, ...]]:
    """Gives each worker at least one class, the longest first."""
    loads = [0.0] * num_workers
    owned: list[list[int]] = [[] for _ in range(num_workers)]
    for label in sorted(range(len(costs)), key=lambda c: (-costs[c], c)):
        # An empty worker comes first, so that free classes (cost 0) still leave nobody without one.
        worker = min(range(num_workers), key=lambda w: (bool(owned[w]), loads[w], w))
        owned[worker].append(label)
        loads[worker] += costs[label]
    return [tuple(sorted(labels)) for labels in owned]


def _team_sizes(costs: Sequence[float], num_workers: int) -> list[int]:
    """Gives each class one worker and every other worker to the class whose members have most to do."""
    sizes = [1] * len(costs)
    for _ in range(num_workers - len(costs)):
        # Of free classes (cost 0) the smallest team first.
        sizes[max(range(len(costs)), key=lambda c: (costs[c] / sizes[c], -sizes[c], -c))] += 1
    return sizes
