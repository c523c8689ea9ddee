"""Placement of classes on workers: properties for any costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_ray.core.placement import place_classes
from dream_ray.errors import UsageError

COSTS = st.lists(st.floats(0, 1e6), min_size=1, max_size=40)


@given(costs=COSTS, share=st.floats(0, 1))
def test_a_balanced_partition_without_idle_workers(costs: list[float], share: float) -> None:
    workers = 1 + int(share * (len(costs) - 1))
    placed = place_classes(costs, workers)
    assert sorted(label for one in placed for label in one.labels) == list(range(len(costs)))
    assert all(one.labels == tuple(sorted(one.labels)) and one.labels for one in placed)
    assert [one.team for one in placed] == [(worker,) for worker in range(workers)]
    # Greedy placement: without its last class, a worker is no fuller than the mean.
    loads = [sum(costs[label] for label in one.labels) for one in placed]
    assert max(loads) <= sum(costs) / workers + max(costs) + 1e-6
    assert placed == place_classes(costs, workers)


@given(costs=COSTS, extra=st.integers(1, 80))
def test_more_workers_than_classes_form_balanced_teams(costs: list[float], extra: int) -> None:
    workers = len(costs) + extra
    placed = place_classes(costs, workers)
    teams = {one.labels: one.team for one in placed}
    assert sorted(teams) == [(label,) for label in range(len(costs))], "every class, and only one a worker"
    assert sorted(worker for team in teams.values() for worker in team) == list(range(workers))
    assert all(worker in one.team for worker, one in enumerate(placed))
    assert placed[0].team[0] == 0, "worker 0 owns a class"
    # Nobody could be helped by a worker from another team without making that team the slowest.
    sizes = [len(teams[label,]) for label in range(len(costs))]
    slowest = max(cost / size for cost, size in zip(costs, sizes, strict=True))
    assert all(cost / (size - 1) >= slowest for cost, size in zip(costs, sizes, strict=True) if size > 1)
    assert placed == place_classes(costs, workers)


def test_equal_classes_are_dealt_evenly() -> None:
    assert sorted(len(one.labels) for one in place_classes([1.0] * 10, 3)) == [3, 3, 4]
    assert sorted(map(len, {one.team for one in place_classes([1.0] * 10, 64)})) == [6] * 6 + [7] * 4


def test_no_workers() -> None:
    with pytest.raises(UsageError, match="workers must be an int >= 1; got 0"):
        place_classes([1.0, 2.0, 3.0], 0)
