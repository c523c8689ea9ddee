"""The normalisation of a run: mean and standard deviation of each channel, or ZCA whitening (`data.zca`) instead.

A whitening depends on all images that are distilled, so a run computes it once, when it is created.
"""

import math
from typing import Literal

import numpy as np
import torch

from dream_ray.config import Config
from dream_ray.config.normalisation import ChannelStatistics
from dream_ray.core.images.normalisation import Normalisation, Whitening
from dream_ray.data.store.store import Store
from dream_ray.engine.networks.tensor_file import read_tensors, write_tensors

# For 64 x 64 pixels of 3 channels, the two matrices take 600 MB each, and the decomposition takes hours.
MOST_WHITENED_VALUES = 4096
_BATCH = 1000


def channel_statistics(config: Config, store: Store) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of each channel by `data.normalisation`, for pixels in [0, 1].

    Those of a whitened run are never used; they are those of the store.
    """
    return chosen_statistics("store" if config.data.zca else config.data.normalisation, store)


def chosen_statistics(
    chosen: Literal["store"] | ChannelStatistics, store: Store
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of each channel by a setting, for pixels in [0, 1]."""
    of = chosen if isinstance(chosen, ChannelStatistics) else store.manifest
    return of.mean, of.std


def channel_normalisation(config: Config, store: Store, device: torch.device) -> Normalisation:
    """Returns the normalisation of each channel, on a device."""
    return Normalisation.of(*channel_statistics(config, store), device)


def read_whitening(path: str, device: torch.device) -> Whitening:
    """Reads a whitening; raises RunError if it is missing or damaged."""
    tensors, _ = read_tensors(path)
    return Whitening(**{name: tensor.to(device) for name, tensor in tensors.items()})


def write_whitening(path: str, config: Config, store: Store) -> None:
    """Fits a whitening to the images that are distilled and writes it."""
    images, _ = store.training_set(config.splits)
    numbers = np.arange(len(images))
    batches = (images.take(numbers[start : start + _BATCH]) for start in range(0, len(images), _BATCH))
    write_tensors(path, vars(Whitening.fit(batches, math.prod(store.shape_CHW))), {})
