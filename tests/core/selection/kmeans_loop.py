"""The slow oracle of the batched selection: one class at a time, with reads of the device wherever it is simplest.

N points, K clusters, D features.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from dream_ray.core.tree_sum import tree_sum

CHUNK_POINTS = 128
"""Points per chunk."""


def _chunks(values: Tensor) -> Iterator[Tensor]:
    return (values[start : start + CHUNK_POINTS] for start in range(0, len(values), CHUNK_POINTS))


def _by_chunk(function: Callable[[Tensor], Tensor], points_ND: Tensor) -> Tensor:
    """Applies a function with one value per point chunk by chunk: other sizes may round differently."""
    return torch.cat([function(chunk) for chunk in _chunks(points_ND)])


def squared_distances(points_ND: Tensor, centroids_KD: Tensor) -> Tensor:
    """Returns the (N, K) squared Euclidean distances, >= 0."""
    norms_K = centroids_KD.square().sum(dim=1)
    distances_NK = points_ND.new_empty(len(points_ND), len(centroids_KD))
    for points, distances in zip(_chunks(points_ND), _chunks(distances_NK), strict=True):
        torch.addmm(norms_K, points, centroids_KD.T, alpha=-2, out=distances)
        distances.add_(points.square().sum(dim=1, keepdim=True)).clamp_(min=0)
    return distances_NK


def assign(points_ND: Tensor, centroids_KD: Tensor) -> tuple[Tensor, Tensor]:
    """Returns every point's nearest centre (int64, lowest index on ties) and its squared distance, both (N,)."""
    nearest = squared_distances(points_ND, centroids_KD).min(dim=1)
    return nearest.indices, nearest.values


def centroids_of(
    points_ND: Tensor, assignment_N: Tensor, num_clusters: int, *, distances_N: Tensor | None = None
) -> Tensor:
    """Returns the centres (K, D) of an assignment: a Lloyd step, or a warm start under new features.

    Args:
        points_ND: Points.
        assignment_N: Cluster of every point.
        num_clusters: K.
        distances_N: Squared distances of all points to their centres; the farthest points become the centres of empty
            clusters. None: the first points do, and the next Lloyd steps move them.
    """
    num_points = len(assignment_N)
    zero_KD = points_ND.new_zeros(num_clusters, points_ND.shape[1])
    sums = (
        zero_KD.index_add(0, labels, points)
        for labels, points in zip(_chunks(assignment_N), _chunks(points_ND), strict=True)
    )
    sums_KD = tree_sum(sums, -(-num_points // CHUNK_POINTS))
    counts_K = torch.bincount(assignment_N, minlength=num_clusters)
    centroids_KD = sums_KD / counts_K.clamp(min=1).unsqueeze(1)
    empty = torch.nonzero(counts_K == 0).squeeze(1)
    if len(empty):
        far_N = torch.zeros(num_points, device=points_ND.device) if distances_N is None else distances_N
        farthest = torch.sort(far_N, descending=True, stable=True).indices[: len(empty)]
        centroids_KD[empty] = points_ND[farthest]
    return centroids_KD


def plus_plus(points_ND: Tensor, num_clusters: int, rng: np.random.Generator) -> Tensor:
    """Seeds centres by k-means++ (Arthur & Vassilvitskii, SODA 2007).

    Args:
        points_ND: Points, N >= K.
        num_clusters: K.
        rng: Stream to draw from.

    Returns:
        (K, D) centres, points of the input; distinct while distinct points are left.
    """
    num_points = len(points_ND)
    norms_N = _by_chunk(lambda points: points.square().sum(dim=1), points_ND)
    nearest_N = points_ND.new_full((num_points,), torch.inf)
    chosen = int(rng.integers(num_points))
    centroids = []
    while True:
        centre_D = points_ND[chosen].clone()  # a row may be unaligned, and `mv` may then round differently
        centroids.append(centre_D)
        if len(centroids) == num_clusters:
            return torch.stack(centroids)
        products_N = _by_chunk(partial(torch.mv, vec=centre_D), points_ND)
        distances_N = norms_N - 2 * products_N + centre_D.square().sum()
        nearest_N = torch.minimum(nearest_N, distances_N.clamp_(min=0))
        nearest_N[chosen] = 0.0  # exactly, despite the rounding of the distances
        cumulative = np.cumsum(nearest_N.double().cpu().numpy())
        if cumulative[-1] > 0:
            chosen = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
            chosen = min(chosen, num_points - 1)
        else:  # fewer distinct points than clusters
            chosen = int(rng.integers(num_points))


def lloyd(points_ND: Tensor, centroids_KD: Tensor, *, max_steps: int) -> tuple[Tensor, Tensor]:
    """Runs Lloyd steps until the assignment does not change, at most `max_steps` (0: only assigns).

    Args:
        points_ND: Points, float.
        centroids_KD: Initial centres.
        max_steps: Largest number of updates of the centres.

    Returns:
        The centres (K, D), and the nearest centre of each point (N,), int64.
    """
    assignment_N, distances_N = assign(points_ND, centroids_KD)
    for _ in range(max_steps):
        previous_N = assignment_N
        centroids_KD = centroids_of(points_ND, previous_N, len(centroids_KD), distances_N=distances_N)
        assignment_N, distances_N = assign(points_ND, centroids_KD)
        if torch.equal(assignment_N, previous_N):
            break
    return centroids_KD, assignment_N


_TIE = 1e-4


def nearest_to_each(distances_NK: Tensor, per_cluster: int) -> Tensor:
    """Takes the `per_cluster` images nearest to each centre, no image twice.

    If an earlier centre has taken an image, a centre takes the next nearest one; the published code picks the image
    twice. Of images whose distances are equal within rounding, the first is taken. The two images of a cluster of two
    are such a case, and rounding differs between devices.

    Returns:
        (K * per_cluster,) image positions, centre by centre.
    """
    distances_KN = distances_NK.T.contiguous()
    taken_N = torch.zeros(distances_KN.shape[1], dtype=torch.bool, device=distances_KN.device)
    chosen = []
    for distances_N in distances_KN:
        for _ in range(per_cluster):
            free_N = distances_N.masked_fill(taken_N, torch.inf)
            pick = (free_N <= free_N.min() * (1 + _TIE)).int().argmax()
            taken_N.index_fill_(0, pick[None], value=True)  # taken_N[pick] would wait for the GPU
            chosen.append(pick)
    return torch.stack(chosen)


def clustered(
    points_ND: Tensor,
    *,
    num_clusters: int,
    per_cluster: int,
    max_steps: int,
    rng: np.random.Generator,
    start: str = "plus_plus",
    previous_N: Tensor,
) -> tuple[Tensor, Tensor]:
    """Returns the centres, and the cluster of every image."""
    clusters = max(1, min(num_clusters, len(points_ND) // per_cluster))
    if start == "plus_plus":
        centroids_KD = plus_plus(points_ND, clusters, rng)
    elif start == "random":
        centroids_KD = points_ND[torch.from_numpy(rng.choice(len(points_ND), size=clusters, replace=False))]
    else:
        centroids_KD = centroids_of(points_ND, previous_N, clusters)
    return lloyd(points_ND, centroids_KD, max_steps=max_steps)
