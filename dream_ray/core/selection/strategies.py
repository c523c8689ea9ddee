"""Selection of representative real images (DREAM).

Source: DREAM (Liu et al., ICCV 2023, arXiv 2302.14416), section 3.2. L classes, N images of the largest class, D
features, K clusters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dream_ray.core.selection import kmeans


@dataclass(frozen=True)
class Selection:
    """Chosen images of one class.

    Attributes:
        indices: (n,) positions in the class, int64, distinct, on the CPU.
        assignment_N: Cluster of every image of the class, int64; a warm start of the next clustering uses it.
    """

    indices: Tensor
    assignment_N: Tensor


_TIE = 1e-4
# Centres rarely want one image; then, two rounds settle all of them, and a third one shows it.
_ROUNDS_PER_WAIT = 4


def nearest_to_each(distances_LNK: Tensor, per_cluster: int) -> Tensor:
    """Takes the `per_cluster` images nearest to each centre, no image twice; waits for the device.

    If an earlier centre has taken an image, a centre takes the next nearest one; the published code picks the image
    twice. Of images whose distances are equal within rounding, the first is taken. The two images of a cluster of two
    are such a case, and rounding differs between devices.

    All picks are made at once, in rounds: each is the nearest image that no earlier pick of the round before has taken.
    A round settles at least one more pick, in their order. Once a round changes none, all are those that
    `tests/core/selection/kmeans_loop.py` makes one after the other.

    Returns:
        (L, M) image positions on the CPU, M = K * per_cluster, centre by centre.
    """
    distances_LKN = distances_LNK.transpose(1, 2)
    distances_LMN = distances_LKN.unsqueeze(2).expand(-1, -1, per_cluster, -1).flatten(1, 2).contiguous()
    num_classes, num_picks, num_images = distances_LMN.shape
    order_LM = torch.arange(num_picks, device=distances_LNK.device).expand(num_classes, -1)
    picks_LM = _nearest(distances_LMN)
    while True:
        for _ in range(1 if distances_LNK.device.type == "cpu" else _ROUNDS_PER_WAIT):
            before_LM = picks_LM
            taken_by_LN = order_LM.new_full((num_classes, num_images), num_picks)
            taken_by_LN.scatter_reduce_(1, before_LM, order_LM, "amin")
            is_taken_LMN = taken_by_LN.unsqueeze(1) < order_LM.unsqueeze(2)
            picks_LM = _nearest(distances_LMN.masked_fill(is_taken_LMN, torch.inf))
        is_settled_LM = picks_LM == before_LM
        picks_LM_on_host, is_settled_LM_on_host = torch.stack([picks_LM, is_settled_LM.long()]).cpu().unbind()
        if is_settled_LM_on_host.all():
            return picks_LM_on_host


def _nearest(distances_LMN: Tensor) -> Tensor:
    """Returns the first position (L, M) with the smallest distance, up to rounding."""
    is_nearest_LMN = distances_LMN <= distances_LMN.amin(dim=2, keepdim=True) * (1 + _TIE)
    return is_nearest_LMN.max(dim=2).indices


def nearest_to_any(distances_LNK: Tensor, num_images: int) -> Tensor:
    """Takes the images with the smallest distance to any centre (the Tiny-ImageNet variant); waits for the device.

    Returns:
        (L, num_images) image positions on the CPU.
    """
    return torch.sort(distances_LNK.min(dim=2).values, dim=1, stable=True).indices[:, :num_images].cpu()


_PICKS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "each": nearest_to_each,
    "any": lambda distances_LNK, per_cluster: nearest_to_any(distances_LNK, per_cluster * distances_LNK.shape[2]),
}
PICK_RULES = tuple(_PICKS)


def representative(
    points_LND: Tensor,
    sizes: Sequence[int],
    *,
    num_clusters: int,
    per_cluster: int,
    rule: str,
    max_steps: int,
    rngs: Sequence[np.random.Generator],
    previous: Sequence[Tensor] | None = None,
) -> list[Selection]:
    """Clusters the images of some classes and picks the representatives of each cluster; waits for the device.

    Args:
        points_LND: Features of the images of the classes, padded with finite numbers, float32; more classes than
            `sizes` are padding.
        sizes: Images of every class, N of each, >= 1.
        num_clusters: K; a class of fewer than K * per_cluster images is clustered into N // per_cluster.
        per_cluster: Images picked for each cluster.
        rule: "each" (nearest to each centre) or "any" (nearest to any centre).
        max_steps: Largest number of Lloyd steps.
        rngs: Stream of every class for k-means++; a warm start draws nothing.
        previous: Assignment (N,) of an earlier clustering of the images of every class, for a warm start; None:
            k-means++.

    Returns:
        For every class, min(K * per_cluster, N // per_cluster * per_cluster) distinct images; all images if
        N < per_cluster.
    """
    per_class = [min(per_cluster, size) for size in sizes]
    clusters = [min(num_clusters, size // per) for size, per in zip(sizes, per_class, strict=True)]
    padding = [0] * (len(points_LND) - len(sizes))
    points = kmeans.Points.of(points_LND, [*sizes, *padding], [*clusters, *padding])
    if previous is None:
        draws_LK = np.zeros((len(points_LND), max(clusters)))
        for draws_K, size, count, rng in zip(draws_LK, sizes, clusters, rngs, strict=False):
            draws_K[:count] = kmeans.plus_plus_draws(size, count, rng)
        centroids_LKD = kmeans.plus_plus(points, draws_LK)
    else:
        before_LN = points.sizes_L1.new_zeros(points.is_padding_LN.shape)
        for before_N, of_class_N in zip(before_LN, previous, strict=False):
            before_N[: len(of_class_N)] = of_class_N
        centroids_LKD = kmeans.centroids_of(points, before_LN)
    centroids_LKD, assignment_LN = kmeans.lloyd(points, centroids_LKD, max_steps=max_steps)
    distances_LNK = kmeans.squared_distances(points, centroids_LKD)
    distances_LNK = distances_LNK.masked_fill_(points.is_padding_LN.unsqueeze(2), torch.inf)
    indices_LM = _PICKS[rule](distances_LNK, max(per_class))
    return [
        Selection(indices_M[: count * per], assignment_N[:size])
        for indices_M, assignment_N, size, count, per in zip(
            indices_LM, assignment_LN, sizes, clusters, per_class, strict=False
        )
    ]
