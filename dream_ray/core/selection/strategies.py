"""Selection of real images: representative (DREAM) or random.

Source: DREAM (Liu et al., ICCV 2023, arXiv 2302.14416), section 3.2. N images of a class, D features, K clusters.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dream_ray.core.selection import kmeans


@dataclass(frozen=True)
class Selection:
    """Chosen images of one class.

    Attributes:
        indices: (n,) positions in the class, int64, distinct.
        assignment_N: Cluster of every image of the class, int64: what the next clustering starts from.
    """

    indices: Tensor
    assignment_N: Tensor


_TIE = 1e-4


def nearest_to_each(distances_NK: Tensor, per_cluster: int) -> Tensor:
    """Takes the `per_cluster` images nearest to each centre, no image twice.

    A centre whose nearest images are taken by an earlier centre takes the next nearest ones; the published code picks
    the same image twice there. Of images that are equally near within rounding, the first is taken: the two images of
    a cluster of two are exactly so, and rounding, which differs between devices, must not choose.

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
            taken_N.index_fill_(0, pick[None], value=True)  # taken_N[pick] would wait for a GPU
            chosen.append(pick)
    return torch.stack(chosen)


def nearest_to_any(distances_NK: Tensor, num_images: int) -> Tensor:
    """Takes the `num_images` images with the smallest distance to any centre (the Tiny-ImageNet variant)."""
    return torch.sort(distances_NK.min(dim=1).values, stable=True).indices[:num_images]


PICK_RULES = ("each", "any")


def representative(
    points_ND: Tensor,
    *,
    num_clusters: int,
    per_cluster: int,
    rule: str,
    max_steps: int,
    rng: np.random.Generator,
    previous_N: Tensor | None = None,
) -> Selection:
    """Clusters the images of a class and picks those that stand for the clusters.

    Args:
        points_ND: Features of the images of the class.
        num_clusters: K; a class of fewer than K * per_cluster images is clustered into N // per_cluster.
        per_cluster: Images picked for each cluster.
        rule: "each" (nearest to each centre) or "any" (nearest to any centre).
        max_steps: Largest number of Lloyd steps.
        rng: Stream for k-means++; not drawn from on a warm start.
        previous_N: Assignment of an earlier clustering of the same images to start from, or None for k-means++.

    Returns:
        min(K * per_cluster, N // per_cluster * per_cluster) distinct images, or all of them where
        N < per_cluster.
    """
    total = len(points_ND)
    clusters = max(1, min(num_clusters, total // per_cluster))
    if previous_N is None:
        centroids = kmeans.plus_plus(points_ND, clusters, rng)
    else:
        centroids = kmeans.centroids_of(points_ND, previous_N, clusters)
    clustering = kmeans.lloyd(points_ND, centroids, max_steps=max_steps)
    distances_NK = kmeans.squared_distances(points_ND, clustering.centroids_KD)
    if rule == "each":
        indices = nearest_to_each(distances_NK, min(per_cluster, total))
    else:
        assert rule == "any", rule
        indices = nearest_to_any(distances_NK, clusters * per_cluster)
    return Selection(indices, clustering.assignment_N)


def random_batch(num_images: int, batch: int, rng: np.random.Generator) -> np.ndarray:
    """Draws min(batch, num_images) distinct positions, int64."""
    return rng.choice(num_images, size=min(batch, num_images), replace=False)
