"""The slow oracles of the strategies: one class and one image at a time.

N images, K clusters, D features.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.core.selection import kmeans_loop


def representative(
    points_ND: Tensor, *, per_cluster: int, rng: np.random.Generator, **clustering: Any
) -> tuple[Tensor, Tensor, None]:
    """Returns the images nearest to each centre, the cluster of every image, and no weights."""
    centres_KD, assignment_N = kmeans_loop.clustered(points_ND, per_cluster=per_cluster, rng=rng, **clustering)
    distances_NK = kmeans_loop.squared_distances(points_ND, centres_KD)
    return kmeans_loop.nearest_to_each(distances_NK, min(per_cluster, len(points_ND))), assignment_N, None


def stratified(
    points_ND: Tensor, *, per_cluster: int, rng: np.random.Generator, **clustering: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns shuffled images of each cluster, the cluster of every image, and the weights; empty clusters give -1."""
    centres_KD, assignment_N = kmeans_loop.clustered(points_ND, per_cluster=per_cluster, rng=rng, **clustering)
    draws, per = rng.random(len(points_ND)), min(per_cluster, len(points_ND))
    chosen, weights = [], []
    for cluster in range(len(centres_KD)):
        members = sorted(np.flatnonzero(assignment_N.numpy() == cluster), key=lambda image: draws[image])
        for number in range(per):
            chosen.append(int(members[number % len(members)]) if members else -1)
            weights.append(len(members) / len(points_ND) / per)
    return torch.tensor(chosen), assignment_N, torch.tensor(weights, dtype=torch.float32)


def central(points_ND: Tensor, num_images: int) -> Tensor:
    """Returns the images nearest to the mean, the nearest first."""
    mean_D = sum(points_ND) / len(points_ND)
    distances = [float((point_D - mean_D).square().sum()) for point_D in points_ND]
    return torch.tensor(sorted(range(len(distances)), key=lambda image: distances[image])[:num_images])


def boundary(points_ND: Tensor, num_images: int) -> Tensor:
    """Returns the images farthest from the mean, the farthest first."""
    return central(points_ND, len(points_ND)).flip(0)[:num_images]
