"""Representative selection: the picked images, none of them twice."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dream_ray.core import rng
from dream_ray.core.selection import kmeans, strategies


def points(count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(rng.stream(seed, "points").normal(size=(count, 5))).float()


def select(count: int, **changed: object) -> strategies.Selection:
    arguments: dict = {"num_clusters": 6, "per_cluster": 1, "rule": "each", "max_steps": 10}
    return strategies.representative(points(count), **{**arguments, "rng": rng.stream(0, "k-means"), **changed})


@settings(max_examples=40)
@given(
    count=st.integers(1, 60),
    clusters=st.integers(1, 12),
    per_cluster=st.integers(1, 4),
    rule=st.sampled_from(strategies.PICK_RULES),
)
def test_distinct_images_and_as_many_as_promised(count: int, clusters: int, per_cluster: int, rule: str) -> None:
    chosen = select(count, num_clusters=clusters, per_cluster=per_cluster, rule=rule).indices
    expected = min(clusters, count // per_cluster) * per_cluster or count
    assert len(chosen) == len(chosen.unique()) == expected
    assert 0 <= int(chosen.min()) <= int(chosen.max()) < count


def test_each_takes_the_nearest_image_of_every_centre() -> None:
    data = points(80)
    chosen = select(80)
    centres = torch.stack([data[chosen.assignment_N == k].mean(0) for k in range(6)])
    nearest = torch.cdist(data, centres).argmin(dim=0)
    assert set(chosen.indices.tolist()) == set(nearest.tolist())


def test_a_taken_image_gives_way_to_the_next_nearest() -> None:
    distances_NK = torch.tensor([[0.1, 0.2], [3.0, 5.0], [9.0, 0.9]])
    assert strategies.nearest_to_each(distances_NK, 1).tolist() == [0, 2]
    assert strategies.nearest_to_each(distances_NK[:, :1], 3).tolist() == [0, 1, 2]


def test_of_equally_near_images_the_first_is_taken() -> None:
    distances_NK = torch.tensor([[7.0], [2.00001], [2.0]])
    assert strategies.nearest_to_each(distances_NK, 1).tolist() == [1]


def test_any_takes_the_smallest_distances_to_any_centre() -> None:
    distances_NK = torch.tensor([[5.0, 9.0], [0.3, 8.0], [7.0, 0.1], [0.2, 0.4]])
    assert strategies.nearest_to_any(distances_NK, 3).tolist() == [2, 3, 1]


def test_a_warm_start_draws_no_number_and_improves_on_the_old_centres() -> None:
    first = select(80, max_steps=1)
    generator = rng.stream(3, "unused")
    warm = select(80, previous_N=first.assignment_N, rng=generator, max_steps=20)
    assert generator.random() == rng.stream(3, "unused").random()
    before, after = (
        kmeans.assign(points(80), kmeans.centroids_of(points(80), assignment, 6))[1].sum()
        for assignment in (first.assignment_N, warm.assignment_N)
    )
    assert after <= before


@pytest.mark.parametrize(("count", "batch", "expected"), [(10, 4, 4), (3, 8, 3)])
def test_random_batch_is_distinct_and_capped(count: int, batch: int, expected: int) -> None:
    drawn = strategies.random_batch(count, batch, rng.stream(0, "x"))
    assert len(np.unique(drawn)) == len(drawn) == expected
    assert drawn.max() < count
