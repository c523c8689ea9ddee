"""Training on representative real images instead of on all of them (DREAM, for the experts of trajectory matching)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dream_ray.engine.matching.class_matcher import ClassMatcher
from dream_ray.engine.networks.sources import Snapshot
from dream_ray.engine.networks.training import RealImages


@dataclass(frozen=True)
class RepresentativeImages:
    """Representatives of a set, repeated to the size of the set.

    A pass takes as many steps as over the whole set.

    Attributes:
        images: The whole set, class by class.
        chosen: Positions of the representatives in it, int64.
    """

    images: RealImages
    chosen: np.ndarray

    @staticmethod
    def chosen_by(matcher: ClassMatcher, snapshot: Snapshot, images: RealImages) -> "RepresentativeImages":
        """Selects representatives by k-means on the features of a network, reproducibly in any process.

        Args:
            matcher: Matcher of all classes.
            snapshot: The network.
            images: All real images of the classes.
        """
        first = Snapshot(snapshot.outer, 0, snapshot.network, snapshot.optimizer)
        empty = torch.empty(0, dtype=torch.int64)
        chosen = matcher.select_all(first, dict.fromkeys(matcher.real, empty))
        positions = [
            np.flatnonzero(images.labels_N == label)[selection.indices.numpy()] for label, selection in chosen.items()
        ]
        return RepresentativeImages(images, np.concatenate(positions))

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        """See `TrainingImages.batch`."""
        return self.images.batch(self.chosen[indices % len(self.chosen)], device)
