"""Lloyd's k-means for several classes at once, without a wait for the device.

L classes, N points of the largest class, K clusters, D features. A class with fewer points or clusters is padded; the
padding never changes its centres. The mathematics of a class are those of the loop in
`tests/core/selection/kmeans_loop.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dream_ray.core.transfer import to_device

LARGEST_NORM = torch.finfo(torch.float32).max / 8
"""Squared norm up to which no squared distance of two points, at most four times as large, overflows."""


@dataclass(frozen=True)
class Points:
    """The points of some classes.

    Attributes:
        values_LND: Points, float; padding is finite.
        norms_LN1: Their squared norms.
        sizes_L1: Number of points of every class, int64; 0 for a class that is padding.
        is_padding_LN: Whether a point is padding, bool.
        is_unused_LK: Whether a cluster is padding, bool.
    """

    values_LND: Tensor
    norms_LN1: Tensor
    sizes_L1: Tensor
    is_padding_LN: Tensor
    is_unused_LK: Tensor

    @classmethod
    def of(cls, values_LND: Tensor, sizes: Sequence[int], clusters: Sequence[int]) -> "Points":
        """Builds them.

        Args:
            values_LND: Points, padded with finite numbers.
            sizes: Points of every class.
            clusters: Clusters of every class, at most its points.
        """
        counts = to_device(np.array([sizes, clusters], dtype=np.int64), values_LND.device)
        sizes_L1, clusters_L1 = counts.unsqueeze(2).unbind()
        indices_N = torch.arange(values_LND.shape[1], device=values_LND.device)
        return cls(
            values_LND,
            values_LND.square().sum(dim=2, keepdim=True),
            sizes_L1,
            indices_N >= sizes_L1,
            indices_N[: max(clusters)] >= clusters_L1,
        )

    def is_unusable_L1(self) -> Tensor:
        """Returns whether a class has a point that is not finite or has a squared norm above `LARGEST_NORM`, bool."""
        return ~(self.norms_LN1.amax(dim=1) <= LARGEST_NORM)

    def take(self, indices_LK: Tensor) -> Tensor:
        """Returns the points (L, K, D) at some positions, int64."""
        return self.values_LND.gather(1, indices_LK.unsqueeze(2).expand(-1, -1, self.values_LND.shape[2]))


def squared_distances(points: Points, centroids_LKD: Tensor) -> Tensor:
    """Returns the (L, N, K) squared Euclidean distances, >= 0; infinite for clusters that are padding."""
    num_points = points.values_LND.shape[1]
    norms_L1K = centroids_LKD.square().sum(dim=2).masked_fill(points.is_unused_LK, torch.inf).unsqueeze(1)
    products_LDK = centroids_LKD.transpose(1, 2)
    distances_LNK = torch.baddbmm(norms_L1K.expand(-1, num_points, -1), points.values_LND, products_LDK, alpha=-2)
    return distances_LNK.add_(points.norms_LN1).clamp_(min=0)


def assign(points: Points, centroids_LKD: Tensor) -> tuple[Tensor, Tensor]:
    """Returns every point's nearest centre (int64, lowest index on ties) and its squared distance, both (L, N)."""
    distances_LN, nearest_LN = squared_distances(points, centroids_LKD).min(dim=2)
    return nearest_LN, distances_LN


def centroids_of(points: Points, assignment_LN: Tensor, distances_LN: Tensor | None = None) -> Tensor:
    """Returns the centres (L, K, D) of an assignment: a Lloyd step, or a warm start under new features.

    A product with the assignment as a matrix sums the points: unlike `index_add`, it is reproducible on a GPU.

    Args:
        points: Points.
        assignment_LN: Cluster of every point.
        distances_LN: Squared distances of all points to their centres; the farthest points become the centres of empty
            clusters. None: the first points do, and the next Lloyd steps move them.
    """
    belongs_LNK = points.values_LND.new_zeros(*assignment_LN.shape, points.is_unused_LK.shape[1])
    belongs_LNK.scatter_(2, assignment_LN.unsqueeze(2), 1.0).masked_fill_(points.is_padding_LN.unsqueeze(2), 0)
    counts_LK1 = belongs_LNK.sum(dim=1).unsqueeze(2)
    centroids_LKD = torch.bmm(belongs_LNK.transpose(1, 2), points.values_LND) / counts_LK1.clamp(min=1)

    is_empty_LK = (counts_LK1.squeeze(2) == 0) & ~points.is_unused_LK
    far_LN = points.norms_LN1.new_zeros(assignment_LN.shape) if distances_LN is None else distances_LN
    far_LN = far_LN.masked_fill(points.is_padding_LN, -torch.inf)
    farthest_LN = torch.sort(far_LN, dim=1, descending=True, stable=True).indices
    rank_LK = is_empty_LK.cumsum(dim=1).sub_(1).clamp_(min=0)
    replacements_LKD = points.take(farthest_LN.gather(1, rank_LK))
    return torch.where(is_empty_LK.unsqueeze(2), replacements_LKD, centroids_LKD)


def plus_plus_draws(num_points: int, num_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Draws the random numbers (K,) of `plus_plus` for a class; the first one lies in the middle of its point."""
    return np.append((rng.integers(num_points) + 0.5) / num_points, rng.random(num_clusters - 1))


def plus_plus(points: Points, draws_LK: np.ndarray) -> Tensor:
    """Seeds centres by k-means++ (Arthur & Vassilvitskii, SODA 2007).

    Args:
        points: Points.
        draws_LK: Uniform numbers in [0, 1), float64, one for every centre, see `plus_plus_draws`; 0 for padding.

    Returns:
        (L, K, D) centres, points of the input; distinct while distinct points are left.
    """
    draws = to_device(draws_LK, points.values_LND.device)
    last_L1 = (points.sizes_L1 - 1).clamp(min=0)
    uniform_LK = torch.minimum((draws * points.sizes_L1).long(), last_L1)
    chosen_L1, chosen = uniform_LK[:, :1], [uniform_LK[:, :1]]
    nearest_LN = points.norms_LN1.new_full(points.is_padding_LN.shape, torch.inf).masked_fill_(points.is_padding_LN, 0)
    for cluster in range(1, draws.shape[1]):
        centre_LD1 = points.take(chosen_L1).transpose(1, 2)
        products_LN = torch.baddbmm(points.norms_LN1, points.values_LND, centre_LD1, alpha=-2).squeeze(2)
        distances_LN = products_LN.add_(points.norms_LN1.squeeze(2).gather(1, chosen_L1)).clamp_(min=0)
        nearest_LN = torch.minimum(nearest_LN, distances_LN)
        nearest_LN.scatter_(1, chosen_L1, 0.0)  # exactly, despite the rounding of the distances
        cumulative_LN = nearest_LN.cumsum(dim=1, dtype=torch.float64)
        total_L1 = cumulative_LN[:, -1:]
        found_L1 = torch.searchsorted(cumulative_LN, draws[:, cluster : cluster + 1] * total_L1, right=True)
        # The total is 0 if there are fewer distinct points than clusters.
        chosen_L1 = torch.where(total_L1 > 0, torch.minimum(found_L1, last_L1), uniform_LK[:, cluster : cluster + 1])
        chosen.append(chosen_L1)
    return points.take(torch.cat(chosen, dim=1))


def lloyd(points: Points, centroids_LKD: Tensor, *, max_steps: int) -> tuple[Tensor, Tensor]:
    """Runs Lloyd steps; a class whose assignment stays the same keeps its centres from then on.

    Args:
        points: Points.
        centroids_LKD: Initial centres.
        max_steps: Largest number of updates of the centres; 0: only assigns.

    Returns:
        The centres (L, K, D), and the nearest centre of each point (L, N), int64.
    """
    assignment_LN, distances_LN = assign(points, centroids_LKD)
    is_settled_L = torch.zeros(len(assignment_LN), dtype=torch.bool, device=assignment_LN.device)
    for _ in range(max_steps):
        # A GPU takes all steps, because the host would wait for the answer.
        if assignment_LN.device.type == "cpu" and is_settled_L.all():
            break
        moved_LKD = centroids_of(points, assignment_LN, distances_LN)
        centroids_LKD = torch.where(is_settled_L[:, None, None], centroids_LKD, moved_LKD)
        previous_LN = assignment_LN
        assignment_LN, distances_LN = assign(points, centroids_LKD)
        is_settled_L = is_settled_L | ((assignment_LN == previous_LN) | points.is_padding_LN).all(dim=1)
    return centroids_LKD, assignment_LN
