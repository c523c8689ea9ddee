"""k-means against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as ScikitKMeans
from torch import Tensor

from dream_ray.core import rng
from dream_ray.core.selection import kmeans


def one_class(points_ND: Tensor, num_clusters: int) -> kmeans.Points:
    return kmeans.Points.of(points_ND[None], [len(points_ND)], [num_clusters])


def seeded(points_ND: Tensor, num_clusters: int, seed: int = 0) -> Tensor:
    """Returns the centres (K, D) of k-means++."""
    draws_K = kmeans.plus_plus_draws(len(points_ND), num_clusters, rng.stream(seed, "seeding"))
    return kmeans.plus_plus(one_class(points_ND, num_clusters), draws_K[None])[0]


def lloyd(points_ND: Tensor, centroids_KD: Tensor, max_steps: int) -> tuple[Tensor, Tensor]:
    points = one_class(points_ND, len(centroids_KD))
    centroids_LKD, assignment_LN = kmeans.lloyd(points, centroids_KD[None], max_steps=max_steps)
    return centroids_LKD[0], assignment_LN[0]


def centroids_of(points_ND: Tensor, assignment_N: Tensor, num_clusters: int) -> Tensor:
    return kmeans.centroids_of(one_class(points_ND, num_clusters), assignment_N[None])[0]


def inertia(points_ND: Tensor, centroids_KD: Tensor) -> float:
    """Returns the sum of the squared distances to the nearest centres."""
    return float(kmeans.assign(one_class(points_ND, len(centroids_KD)), centroids_KD[None])[1].sum())


def blobs(num_points: int, num_features: int, num_blobs: int, seed: int = 0) -> Tensor:
    generator = rng.stream(seed, "blobs")
    centres = generator.normal(size=(num_blobs, num_features)) * 6
    points = centres[generator.integers(num_blobs, size=num_points)] + generator.normal(size=(num_points, num_features))
    return torch.from_numpy(points).float()


@pytest.mark.parametrize(("num_points", "num_clusters"), [(300, 5), (2500, 16)])
def test_equals_scikit_learn_from_the_same_centres(num_points: int, num_clusters: int) -> None:
    points = blobs(num_points, 7, num_clusters)
    first = seeded(points, num_clusters)
    centres, assignment = lloyd(points, first, max_steps=100)
    theirs = ScikitKMeans(num_clusters, init=first.numpy(), n_init=1, max_iter=100, tol=0).fit(points.numpy())
    assert inertia(points, centres) == pytest.approx(theirs.inertia_, rel=1e-4)
    assert np.array_equal(assignment.numpy(), theirs.labels_)


def test_squared_distances_equal_a_loop() -> None:
    points, centres = blobs(9, 4, 2), blobs(3, 4, 2, seed=1)
    loop = [[float(((p - c) ** 2).sum()) for c in centres] for p in points]
    found = kmeans.squared_distances(one_class(points, 3), centres[None])
    assert torch.allclose(found[0], torch.tensor(loop), rtol=1e-4, atol=1e-3)


def test_a_step_is_the_mean_of_each_cluster() -> None:
    points = blobs(300, 3, 4)
    assignment = torch.arange(300) % 5
    loop = torch.stack([points[assignment == k].mean(0) for k in range(5)])
    assert torch.allclose(centroids_of(points, assignment, 5), loop, atol=1e-5)


def test_empty_clusters_move_to_the_farthest_points() -> None:
    points = torch.tensor([[0.0], [1.0], [2.0], [50.0], [40.0]])
    centres = torch.tensor([[1000.0], [1.0], [2000.0]])
    moved, _ = lloyd(points, centres, max_steps=1)
    assert (moved[0].item(), moved[2].item()) == (50.0, 40.0)


def test_every_cluster_is_used_where_points_differ() -> None:
    points = blobs(200, 5, 3)
    _, assignment = lloyd(points, torch.full((10, 5), 1e3), max_steps=50)
    assert len(assignment.unique()) == 10


@pytest.mark.parametrize("num_clusters", [1, 6])
def test_as_many_clusters_as_points_or_one(num_clusters: int) -> None:
    points = blobs(6, 3, 6)
    centres, _ = lloyd(points, seeded(points, num_clusters), max_steps=10)
    expected = 0.0 if num_clusters == 6 else float((points - points.mean(0)).square().sum())
    assert inertia(points, centres) == pytest.approx(expected, rel=1e-3, abs=1e-2)


def test_equal_points_give_finite_centres() -> None:
    points = torch.ones(8, 3)
    centres, _ = lloyd(points, seeded(points, 4), max_steps=5)
    assert torch.isfinite(centres).all()
    assert inertia(points, centres) == pytest.approx(0.0, abs=1e-5)


def test_plus_plus_takes_distinct_points_of_the_input() -> None:
    points = blobs(40, 2, 3)
    centres = seeded(points, 40)
    assert len(centres.unique(dim=0)) == 40
    assert {tuple(c.tolist()) for c in centres} == {tuple(p.tolist()) for p in points}


def test_a_warm_start_continues_from_the_assignment() -> None:
    points = blobs(500, 6, 8)
    centres, assignment = lloyd(points, seeded(points, 8), max_steps=100)
    warm, again = lloyd(points, centroids_of(points, assignment, 8), max_steps=1)
    assert torch.equal(again, assignment)
    assert torch.equal(warm, centres), "one step changes nothing"


def test_zero_steps_only_assign() -> None:
    points, centres = blobs(30, 2, 3), blobs(4, 2, 3, seed=5)
    unmoved, _ = lloyd(points, centres, max_steps=0)
    assert torch.equal(unmoved, centres)
