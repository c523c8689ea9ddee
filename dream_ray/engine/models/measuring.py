"""The accuracy of a network on the splits of a store that it was not trained on, shared by the workers of a group."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dream_ray.core.images.normalisation import Normalisation
from dream_ray.core.process_group import SINGLE_PROCESS_GROUP, ProcessGroup, own_part
from dream_ray.data.store.store import Store
from dream_ray.engine.models.scores import Score
from dream_ray.engine.networks.training import RealImages, count_hits
from dream_ray.errors import RunError
from dream_ray.nets import Classifier

HELD_OUT = ("validation", "test")
"""Splits that networks are measured on."""


@dataclass(frozen=True)
class _Part:
    """Consecutive images of a set, see `TrainingImages`."""

    images: RealImages
    part: range

    def __len__(self) -> int:
        return len(self.part)

    def batches(self, batches: Sequence[np.ndarray], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        return self.images.batches([indices + self.part.start for indices in batches], device)


def measure(
    network: Classifier,
    store: Store,
    split: str,
    normalise: Normalisation,
    group: ProcessGroup = SINGLE_PROCESS_GROUP,
) -> Score:
    """Returns the result of a network on a split; each worker of the group classifies a part of its images.

    Raises:
        RunError: If a logit is not finite.
    """
    images = RealImages(*store.training_set((split,)))
    own = _Part(images, own_part(len(images), group))
    hits_L = count_hits(network, own, normalise, store.num_classes)
    correct = -1 if hits_L is None else sum(hits_L)
    counts = [int(count) for (count,) in group.all_gather([torch.tensor([correct])])]
    if -1 in counts:
        raise RunError(f"logits must be finite; those of the network on the {split} images are not. Lower lr")
    return Score(sum(counts), len(images))


def measure_held_out(
    network: Classifier, store: Store, normalise: Normalisation, group: ProcessGroup = SINGLE_PROCESS_GROUP
) -> dict[str, Score]:
    """Returns the results on the validation and test splits, without those that the store lacks."""
    return {split: measure(network, store, split, normalise, group) for split in HELD_OUT if split in store.splits()}
