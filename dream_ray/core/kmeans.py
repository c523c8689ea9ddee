"""Lloyd's k-means from mergeable parts: partial_step on a chunk, merge, finish, and the loop over them.

N points, K clusters, D features. Sums run over fixed chunks in a fixed order, so that the result does not depend on
how the points are later split over workers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from torch import Tensor

CHUNK_POINTS = 1024


@dataclass(frozen=True)
class Partial:
    """What one chunk of points contributes to a Lloyd step.

    Attributes:
        sums_KD: Sum of the points assigned to each cluster.
        counts_K: Number of points assigned to each cluster, int64.
        far_distances: Largest squared distances to the assigned centroid, descending, at most K.
        far_points_FD: The points at these distances: where empty clusters are re-seeded.
    """

    sums_KD: Tensor
    counts_K: Tensor
    far_distances: Tensor
    far_points_FD: Tensor


@dataclass(frozen=True)
class KMeans:
    """A clustering.

    Attributes:
        centroids_KD: Cluster centres.
        assignment_N: Nearest centre of each point, int64.
        inertia: Sum of squared distances to the nearest centres.
        num_steps: Lloyd steps taken.
    """

    centroids_KD: Tensor
    assignment_N: Tensor
    inertia: float
    num_steps: int


def squared_distances(points_ND: Tensor, centroids_KD: Tensor) -> Tensor:
    """Returns the (N, K) squared Euclidean distances, >= 0."""
    norms_N1 = points_ND.square().sum(dim=1, keepdim=True)
    norms_K = centroids_KD.square().sum(dim=1)
    return torch.addmm(norms_K, points_ND, centroids_KD.T, alpha=-2).add_(norms_N1).clamp_(min=0)


def _chunks(values: Tensor) -> Iterator[Tensor]:
    return (values[start : start + CHUNK_POINTS] for start in range(0, max(len(values), 1), CHUNK_POINTS))


def assign(points_ND: Tensor, centroids_KD: Tensor) -> tuple[Tensor, Tensor]:
    """Returns each point's nearest centre (int64, lowest index on ties) and its squared distance, both (N,)."""
    nearest = [squared_distances(chunk, centroids_KD).min(dim=1) for chunk in _chunks(points_ND)]
    return torch.cat([n.indices for n in nearest]), torch.cat([n.values for n in nearest])


def partial_step(points_ND: Tensor, assignment_N: Tensor, distances_N: Tensor, num_clusters: int) -> Partial:
    """Sums one chunk of points by cluster; the chunk may be empty."""
    sums = points_ND.new_zeros(num_clusters, points_ND.shape[1]).index_add_(0, assignment_N, points_ND)
    counts = torch.bincount(assignment_N, minlength=num_clusters)
    order = torch.sort(distances_N, descending=True, stable=True).indices[:num_clusters]
    return Partial(sums, counts, distances_N[order], points_ND[order])


def merge(a: Partial, b: Partial) -> Partial:
    """Adds two partial steps. Where distances tie, the points of `a` come first."""
    distances = torch.cat([a.far_distances, b.far_distances])
    points = torch.cat([a.far_points_FD, b.far_points_FD])
    order = torch.sort(distances, descending=True, stable=True).indices[: len(a.counts_K)]
    return Partial(a.sums_KD + b.sums_KD, a.counts_K + b.counts_K, distances[order], points[order])


def finish(partial: Partial) -> Tensor:
    """Turns merged sums into centres (K, D); empty clusters move to the points that are farthest from theirs."""
    centroids = partial.sums_KD / partial.counts_K.clamp(min=1).unsqueeze(1)
    empty = torch.nonzero(partial.counts_K == 0).squeeze(1)
    centroids[empty] = partial.far_points_FD[: len(empty)]
    return centroids


def _lloyd_step(points_ND: Tensor, assignment_N: Tensor, distances_N: Tensor, num_clusters: int) -> Tensor:
    parts = (
        partial_step(points, labels, distances, num_clusters)
        for points, labels, distances in zip(
            _chunks(points_ND), _chunks(assignment_N), _chunks(distances_N), strict=True
        )
    )
    return finish(reduce(merge, parts))


def plus_plus(points_ND: Tensor, num_clusters: int, rng: np.random.Generator) -> Tensor:
    """Seeds centres by k-means++ (Arthur & Vassilvitskii, SODA 2007).

    Args:
        points_ND: Points, N >= K.
        num_clusters: K.
        rng: Stream to draw from.

    Returns:
        (K, D) centres, points of the input; distinct ones as long as there are any.
    """
    chosen = int(rng.integers(len(points_ND)))
    centroids = [points_ND[chosen]]
    nearest_N = squared_distances(points_ND, points_ND[chosen : chosen + 1]).squeeze(1)
    for _ in range(num_clusters - 1):
        nearest_N[chosen] = 0.0  # exactly, whatever the rounding of the distances
        cumulative = np.cumsum(nearest_N.double().cpu().numpy())
        if cumulative[-1] > 0:
            chosen = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
            chosen = min(chosen, len(points_ND) - 1)
        else:  # fewer distinct points than clusters
            chosen = int(rng.integers(len(points_ND)))
        centroids.append(points_ND[chosen])
        distances_N = squared_distances(points_ND, points_ND[chosen : chosen + 1]).squeeze(1)
        nearest_N = torch.minimum(nearest_N, distances_N)
    return torch.stack(centroids)


def lloyd(points_ND: Tensor, centroids_KD: Tensor, *, max_steps: int) -> KMeans:
    """Runs Lloyd steps until the assignment stands still, at most `max_steps` (0: only assigns).

    Args:
        points_ND: Points, float.
        centroids_KD: First centres.
        max_steps: Largest number of updates of the centres.
    """
    assignment, distances = assign(points_ND, centroids_KD)
    steps = 0
    while steps < max_steps:
        centroids_KD = _lloyd_step(points_ND, assignment, distances, len(centroids_KD))
        previous = assignment
        assignment, distances = assign(points_ND, centroids_KD)
        steps += 1
        if torch.equal(assignment, previous):
            break
    return KMeans(centroids_KD, assignment, float(distances.sum()), steps)


def centroids_of(points_ND: Tensor, assignment_N: Tensor, num_clusters: int) -> Tensor:
    """Returns the centres (K, D) of a given assignment: a warm start when the features of the points moved.

    An empty cluster takes the first points of the chunk order, which the next Lloyd steps move on.
    """
    zeros = points_ND.new_zeros(len(points_ND))
    return _lloyd_step(points_ND, assignment_N, zeros, num_clusters)
