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
        assignment_N: Cluster of every image of the class, int64; a warm start of the next clustering uses it.
    """

    indices: Tensor
    assignment_N: Tensor


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
    """Clusters the images of a class and picks the representatives of each cluster.

    Args:
        points_ND: Features of the images of the class.
        num_clusters: K; a class of fewer than K * per_cluster images is clustered into N // per_cluster.
        per_cluster: Images picked for each cluster.
        rule: "each" (nearest to each centre) or "any" (nearest to any centre).
        max_steps: Largest number of Lloyd steps.
        rng: Stream for k-means++; a warm start draws nothing.
        previous_N: Assignment of an earlier clustering of the same images, for a warm start; None: k-means++.

    Returns:
        min(K * per_cluster, N // per_cluster * per_cluster) distinct images; all images if N < per_cluster.
    """
    total = len(points_ND)
    clusters = max(1, min(num_clusters, total // per_cluster))
    if previous_N is None:
        centroids = kmeans.plus_plus(points_ND, clusters, rng)
    else:
        centroids = kmeans.centroids_of(points_ND, previous_N, clusters)
    centroids, assignment_N = kmeans.lloyd(points_ND, centroids, max_steps=max_steps)
    distances_NK = kmeans.squared_distances(points_ND, centroids)
    if rule == "each":
        indices = nearest_to_each(distances_NK, min(per_cluster, total))
    else:
        assert rule == "any", rule
        indices = nearest_to_any(distances_NK, clusters * per_cluster)
    return Selection(indices, assignment_N)


def random_batch(num_images: int, batch: int, rng: np.random.Generator) -> np.ndarray:
    """Draws min(batch, num_images) distinct positions, int64."""
    return rng.choice(num_images, size=min(batch, num_images), replace=False)
