"""Placement: which worker owns which classes. Pure functions of values, tested without a cluster."""

from collections.abc import Sequence

from dream_ray.errors import UsageError


def place_classes(costs: Sequence[float], num_workers: int) -> tuple[tuple[int, ...], ...]:
    """Distributes classes over workers so that the largest load is small (longest processing time first).

    Args:
        costs: Cost of each class, for example its number of images; class label = position.
        num_workers: Workers, 1 <= num_workers <= number of classes.

    Returns:
        The sorted class labels of each worker; every worker owns at least one class.

    Raises:
        UsageError: If there are more workers than classes.
    """
    if not 1 <= num_workers <= len(costs):
        raise UsageError(
            f"workers must be between 1 and the number of classes ({len(costs)}), "
            f"because a class is matched by one worker; got {num_workers}"
        )
    loads = [0.0] * num_workers
    owned: list[list[int]] = [[] for _ in range(num_workers)]
    for label in sorted(range(len(costs)), key=lambda c: (-costs[c], c)):
        # An empty worker comes first, so that free classes (cost 0) still leave nobody without one.
        worker = min(range(num_workers), key=lambda w: (bool(owned[w]), loads[w], w))
        owned[worker].append(label)
        loads[worker] += costs[label]
    return tuple(tuple(sorted(labels)) for labels in owned)
