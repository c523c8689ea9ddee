"""How the networks of a run see images: normalised channel by channel, or ZCA-whitened (`data.zca`).

A whitening depends on all images of the store and takes a while, so a run computes it once, when it is made.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch

from dream_ray.config import Config
from dream_ray.core.images.normalisation import Whitening
from dream_ray.data.arrays import UInt8Array
from dream_ray.data.store.store import Store
from dream_ray.engine.networks.tensor_file import read_tensors, write_tensors
from dream_ray.errors import UsageError

# 64 x 64 pixels of 3 channels would be two matrices of 600 MB, and hours.
_MOST_PIXELS = 4096
_BATCH = 1000


def read_whitening(path: str, device: torch.device) -> Whitening:
    """Reads a whitening; raises RunError if it is missing or damaged."""
    tensors, _ = read_tensors(path)
    return Whitening(**{name: tensor.to(device) for name, tensor in tensors.items()})


def write_whitening(path: str, config: Config, store: Store) -> None:
    """Fits a whitening to the images that are distilled and writes it."""
    write_tensors(path, vars(Whitening.fit(_batches(config, store), math.prod(store.shape_CHW))), {})


def check_whitening(config: Config, store: Store) -> None:
    """Raises UsageError where images are too large to be whitened."""
    pixels = math.prod(store.shape_CHW)
    if config.data.zca and pixels > _MOST_PIXELS:
        raise UsageError(
            f"data.zca needs images of at most {_MOST_PIXELS} values (32 x 32 pixels of 3 channels are 3072); "
            f"the store's have {pixels}"
        )


def _batches(config: Config, store: Store) -> Iterator[UInt8Array]:
    images, _ = store.training_set(config.splits)
    for start in range(0, len(images), _BATCH):
        yield images.take(np.arange(start, min(start + _BATCH, len(images))))
