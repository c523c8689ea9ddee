"""Placement of classes on workers: properties for any costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_ray.core.placement import class_groups, place_classes
from dream_ray.errors import UsageError

COSTS = st.lists(st.floats(0, 1e6), min_size=1, max_size=40)


@given(costs=COSTS, share=st.floats(0, 1))
def test_a_balanced_partition_without_idle_workers(costs: list[float], share: float) -> None:
    workers = 1 + int(share * (len(costs) - 1))
    placed = place_classes(costs, workers)
    assert len(placed) == workers
    assert sorted(label for labels in placed for label in labels) == list(range(len(costs)))
    assert all(labels == tuple(sorted(labels)) and labels for labels in placed)
    # Greedy placement: without its last class, a worker is no fuller than the mean.
    loads = [sum(costs[label] for label in labels) for labels in placed]
    assert max(loads) <= sum(costs) / workers + max(costs) + 1e-6
    assert placed == place_classes(costs, workers)


def test_equal_classes_are_distributed_evenly() -> None:
    assert sorted(map(len, place_classes([1.0] * 10, 3))) == [3, 3, 4]


@pytest.mark.parametrize("workers", [0, 4])
def test_no_workers_or_more_than_classes_are_refused(workers: int) -> None:
    message = rf"workers must be an int from 1 to the number of classes \(3\); got {workers}"
    with pytest.raises(UsageError, match=message):
        place_classes([1.0, 2.0, 3.0], workers)


@pytest.mark.parametrize(
    ("size", "expected"), [(1, ((4,), (2,), (7,))), (2, ((4, 2), (7,))), (5, ((4, 2, 7),)), (None, ((4, 2, 7),))]
)
def test_groups_of_classes_keep_their_order(size: int | None, expected: tuple[tuple[int, ...], ...]) -> None:
    assert class_groups([4, 2, 7], size) == expected
