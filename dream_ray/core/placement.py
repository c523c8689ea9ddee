"""Placement: the assignment of classes to workers. Pure functions of values."""

from collections.abc import Iterable, Sequence

from dream_ray.errors import UsageError

Labels = tuple[int, ...]
"""Labels of the classes of a worker, or of a group of classes."""


def place_classes(costs: Sequence[float], num_workers: int) -> tuple[Labels, ...]:
    """Distributes classes over workers so that the largest load is small.

    Args:
        costs: Cost of each class, by label, in any unit.
        num_workers: Workers, from 1 to the number of classes.

    Returns:
        The classes of each worker, ascending, at least one.

    Raises:
        UsageError: If there is no worker, or a worker would have no class.
    """
    if not 1 <= num_workers <= len(costs):
        raise UsageError(f"workers must be an int from 1 to the number of classes ({len(costs)}); got {num_workers}")
    loads = [0.0] * num_workers
    placed: list[list[int]] = [[] for _ in range(num_workers)]
    # The most expensive class first.
    for label in sorted(range(len(costs)), key=lambda c: (-costs[c], c)):
        # Workers without a class come first, so every worker gets one even if classes cost nothing.
        worker = min(range(num_workers), key=lambda w: (bool(placed[w]), loads[w], w))
        placed[worker].append(label)
        loads[worker] += costs[label]
    return tuple(tuple(sorted(labels)) for labels in placed)


def class_groups(labels: Iterable[int], size: int | None) -> tuple[Labels, ...]:
    """Cuts classes, in their order, into groups of `size` (the last may be smaller); None: one group of all."""
    ordered = tuple(labels)
    step = len(ordered) if size is None else size
    return tuple(ordered[start : start + step] for start in range(0, len(ordered), step))
