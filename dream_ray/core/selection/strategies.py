"""Strategies that select real images by their features.

Representative, central and boundary selection: DREAM (Liu et al., ICCV 2023, arXiv 2302.14416), section 3. Stratified
selection is stratified sampling (Cochran, Sampling Techniques, 1977, chapter 5) with the clusters as strata: one random
image of each, weighted by the size of its stratum, estimates a mean over the class without bias.

L classes, N images of the largest class, D features, K clusters, P images per cluster, M = K * P.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dream_ray.core.selection import kmeans
from dream_ray.core.selection.picking import NOTHING, PICKS, nearest_to_any
from dream_ray.core.selection.random_batches import random_batch
from dream_ray.core.transfer import to_device
from dream_ray.errors import RunError


class NotFiniteError(RunError):
    """Features that are not finite, or so large that distances overflow.

    Attributes:
        slot: Position of their class in the group.
        images: Positions of their images in the class, ascending.
        num_images: Images of the class.
    """

    def __init__(self, slot: int, images: Sequence[int], num_images: int) -> None:
        self.slot, self.images, self.num_images = slot, images, num_images
        others = f" and {len(images) - 1} more" if len(images) > 1 else ""
        super().__init__(
            f"features must be finite; those of image {images[0]}{others}, of {num_images} images, are not"
        )


@dataclass(frozen=True)
class Selection:
    """Chosen images of one class.

    Attributes:
        indices: (n,) positions in the class, int64, on the CPU.
        assignment_N: Cluster of every image of the class, int64; a warm start of the next clustering uses it. Empty if
            nothing is clustered.
        weights: (n,) weights of the images in the means of the batch, float32, with the sum 1; None: all are equal.
    """

    indices: Tensor
    assignment_N: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True)
class Group:
    """Some classes to select from.

    Attributes:
        points_LND: Features of their images, padded with finite numbers, float32; more classes than `sizes` are
            padding.
        sizes: Images of every class, >= 1.
        rngs: Stream of every class, for the draws of the strategy.
        previous: Assignment (N,) of the last clustering of every class, for a warm start.
    """

    points_LND: Tensor
    sizes: Sequence[int]
    rngs: Sequence[np.random.Generator]
    previous: Sequence[Tensor] = ()

    def on_device(self, values_by_class: Sequence[np.ndarray], width: int) -> Tensor:
        """Returns values (n,) of every class as a tensor (L, width), float64, padded with zeros."""
        values_LW = np.zeros((len(self.points_LND), width))
        for values_W, values in zip(values_LW, values_by_class, strict=False):
            values_W[: len(values)] = values
        return to_device(values_LW, self.points_LND.device)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How many images are selected, and which.

    A class of N < num_clusters * per_cluster images has N // per_cluster clusters, at least one.

    Attributes:
        num_clusters: K.
        per_cluster: P.
        max_steps: Largest number of Lloyd steps.
        start: Key of `STARTS`.
        rule: Key of `PICKS`, for representative selection.
    """

    num_clusters: int
    per_cluster: int
    max_steps: int
    start: str = "plus_plus"
    rule: str = "each"


@dataclass(frozen=True)
class _Clusters:
    """The clusters of a group.

    Attributes:
        points: The images.
        centroids_LKD: Centres.
        assignment_LN: Cluster of every image.
        counts: Clusters of every class.
        per_class: Images to select for each cluster, of every class; fewer than P if the class has fewer.
    """

    points: kmeans.Points
    centroids_LKD: Tensor
    assignment_LN: Tensor
    counts: Sequence[int]
    per_class: Sequence[int]


def _plus_plus(group: Group, points: kmeans.Points, counts: Sequence[int]) -> Tensor:
    draws_LK = np.zeros((len(group.points_LND), max(counts)))
    for draws_K, size, count, rng in zip(draws_LK, group.sizes, counts, group.rngs, strict=False):
        draws_K[:count] = kmeans.plus_plus_draws(size, count, rng)
    return kmeans.plus_plus(points, draws_LK)


def _random_images(group: Group, points: kmeans.Points, counts: Sequence[int]) -> Tensor:
    indices_LK = np.zeros((len(group.points_LND), max(counts)), dtype=np.int64)
    for indices_K, size, count, rng in zip(indices_LK, group.sizes, counts, group.rngs, strict=False):
        indices_K[:count] = random_batch(size, count, rng)
    return points.take(to_device(indices_LK, group.points_LND.device))


def _last_clusters(group: Group, points: kmeans.Points, counts: Sequence[int]) -> Tensor:
    before_LN = points.sizes_L1.new_zeros(points.is_padding_LN.shape)
    for before_N, of_class_N in zip(before_LN, group.previous, strict=False):
        before_N[: len(of_class_N)] = of_class_N
    return kmeans.centroids_of(points, before_LN)


STARTS: dict[str, Callable[[Group, kmeans.Points, Sequence[int]], Tensor]] = {
    "plus_plus": _plus_plus,
    "random": _random_images,
    "warm": _last_clusters,
}
"""(group, its points, clusters of every class) -> first centres (L, K, D) of k-means: by k-means++, at random images
without the rounds of k-means++, or those of the last assignment under the new features."""


def _cluster(group: Group, rules: Rules) -> _Clusters:
    """Clusters the images of every class."""
    per_class = [min(rules.per_cluster, size) for size in group.sizes]
    counts = [min(rules.num_clusters, size // per) for size, per in zip(group.sizes, per_class, strict=True)]
    padding = [0] * (len(group.points_LND) - len(group.sizes))
    points = kmeans.Points.of(group.points_LND, [*group.sizes, *padding], [*counts, *padding])
    centroids_LKD = STARTS[rules.start](group, points, counts)
    centroids_LKD, assignment_LN = kmeans.lloyd(points, centroids_LKD, max_steps=rules.max_steps)
    return _Clusters(points, centroids_LKD, assignment_LN, counts, per_class)


def representative(group: Group, rules: Rules) -> list[Selection]:
    """Selects the images nearest to the centres of clusters (DREAM); waits for the device.

    Returns:
        For every class, min(K * P, N // P * P) distinct images; all images if N < P.
    """
    found = _cluster(group, rules)
    distances_LNK = _masked(found.points, kmeans.squared_distances(found.points, found.centroids_LKD))
    return _selections(group, found, PICKS[rules.rule](distances_LNK, max(found.per_class)))


def _masked(points: kmeans.Points, distances_LNK: Tensor) -> Tensor:
    """Makes distances infinite for padding, and NaN for classes with unusable points, in place; see `PICKS`."""
    distances_LNK.masked_fill_(points.is_padding_LN.unsqueeze(2), torch.inf)
    return distances_LNK.masked_fill_(points.is_unusable_L1().unsqueeze(2), torch.nan)


def stratified(group: Group, rules: Rules) -> list[Selection]:
    """Selects random images of every cluster, weighted by its size; waits for the device.

    The images of a cluster are shuffled, and the first P of them are taken; some twice if there are fewer. A cluster
    without images weighs nothing.

    Returns:
        For every class, as many images as `representative` selects, with weights.
    """
    found = _cluster(group, rules)
    points, most_per_cluster = found.points, max(found.per_class)
    num_images = points.is_padding_LN.shape[1]
    draws = [rng.random(size) for rng, size in zip(group.rngs, group.sizes, strict=True)]
    # Sorts the images by cluster, and at random within a cluster.
    keys_LN = (found.assignment_LN + group.on_device(draws, num_images)).masked_fill_(points.is_padding_LN, torch.inf)
    order_LN = keys_LN.argsort(dim=1)
    sizes_LK = torch.zeros_like(points.is_unused_LK, dtype=torch.int64)
    sizes_LK.scatter_add_(1, found.assignment_LN, (~points.is_padding_LN).long())
    firsts_LK1 = (sizes_LK.cumsum(dim=1) - sizes_LK).unsqueeze(2)
    members_P = torch.arange(most_per_cluster, device=sizes_LK.device)
    ranks_LM = (firsts_LK1 + members_P % sizes_LK.clamp(min=1).unsqueeze(2)).flatten(1)
    # An empty last cluster would begin behind the last image.
    ranks_LM = torch.minimum(ranks_LM, (points.sizes_L1 - 1).clamp(min=0))
    indices_LM = order_LN.gather(1, ranks_LM).masked_fill_(points.is_unusable_L1(), NOTHING).cpu()
    shares = [np.array([1 / (size * per)]) for size, per in zip(group.sizes, found.per_class, strict=True)]
    weights_LK = (sizes_LK * group.on_device(shares, 1)).float()
    return _selections(group, found, indices_LM, weights_LK.repeat_interleave(most_per_cluster, dim=1))


def _selections(
    group: Group, found: _Clusters, indices_LM: Tensor, weights_LM: Tensor | None = None
) -> list[Selection]:
    """Returns the selection of every class, from the picks of all its clusters, cluster by cluster."""
    _check(group, indices_LM)
    selections = []
    for slot, (size, count, per) in enumerate(zip(group.sizes, found.counts, found.per_class, strict=True)):
        weights = None if weights_LM is None else weights_LM[slot, : count * per]
        selections.append(Selection(indices_LM[slot, : count * per], found.assignment_LN[slot, :size], weights))
    return selections


def _check(group: Group, indices_LM: Tensor) -> None:
    """Raises NotFiniteError if there are no picks of a class; waits for the device only then."""
    unusable = (indices_LM[: len(group.sizes)] == NOTHING).any(dim=1).tolist()
    if not any(unusable):
        return
    slot = unusable.index(True)
    norms_N = group.points_LND[slot, : group.sizes[slot]].square().sum(dim=1)
    images = (~(norms_N <= kmeans.LARGEST_NORM)).nonzero().flatten().tolist()
    raise NotFiniteError(slot, images, group.sizes[slot])


def central(group: Group, rules: Rules) -> list[Selection]:
    """Selects the images nearest to the mean of their class; waits for the device.

    Returns:
        For every class, min(K * P, N) distinct images.
    """
    return _nearest_to_mean(group, rules, sign=1)


def boundary(group: Group, rules: Rules) -> list[Selection]:
    """Selects the images farthest from the mean of their class; see `central`."""
    return _nearest_to_mean(group, rules, sign=-1)


def _nearest_to_mean(group: Group, rules: Rules, *, sign: int) -> list[Selection]:
    """Selects the images whose squared distance to the mean of their class, times a sign, is smallest."""
    padding = [0] * (len(group.points_LND) - len(group.sizes))
    points = kmeans.Points.of(group.points_LND, [*group.sizes, *padding], [*[1] * len(group.sizes), *padding])
    one_cluster_LN = points.is_padding_LN.long().zero_()
    mean_L1D = kmeans.centroids_of(points, one_cluster_LN)
    distances_LN1 = _masked(points, kmeans.squared_distances(points, mean_L1D).mul_(sign))
    indices_LM = nearest_to_any(distances_LN1, rules.num_clusters * rules.per_cluster)
    _check(group, indices_LM)
    unclustered = one_cluster_LN[0, :0]
    return [Selection(indices_M[:size], unclustered) for indices_M, size in zip(indices_LM, group.sizes, strict=False)]


STRATEGIES: dict[str, Callable[[Group, Rules], list[Selection]]] = {
    "representative": representative,
    "stratified": stratified,
    "central": central,
    "boundary": boundary,
}
"""Selections of the images of some classes, by name; all wait for the device at least once."""
