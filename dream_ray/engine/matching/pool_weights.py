"""Factors of the losses under the networks of a frozen pool, with which all of them weigh alike.

Features and gradients of two networks have different sizes, so with plain losses the network of the largest ones would
move the images most. Each part of the loss is divided by its size under the network (`scales`): with distance l1_mean,
the features by the mean |feature|. The factors are relative to the mean size over the pool, so they are about 1, and
the learning rate of the pixels keeps its meaning; a pool of one has factors of 1.

M networks.
"""

import numpy as np
import torch
from torch import Tensor

from dream_ray.config import Config
from dream_ray.core import rng
from dream_ray.core.images.normalisation import Normalise, unit
from dream_ray.core.matching.objectives import Forward, Objective, Parameters, scales, signals
from dream_ray.core.selection.random_batches import random_batch
from dream_ray.core.transfer import to_device
from dream_ray.data.store.store import Store
from dream_ray.engine.matching.class_matcher import class_step, step_program
from dream_ray.engine.networks.frozen import FrozenNetworks
from dream_ray.errors import RunError

_CLASSES, _IMAGES = 8, 32


def pool_weights(config: Config, store: Store, pool: FrozenNetworks, normalise: Normalise) -> Tensor | None:
    """Returns the factors (M, 2) of the feature loss and of the gradient loss; None for a pool of one.

    The sizes are means over up to 8 classes, of up to 32 random images each; every worker measures the same ones.

    Raises:
        RunError: If a size is zero or not finite.
    """
    if len(pool.networks) == 1:
        return None
    objective = class_step(config, store.num_classes).objective
    program = step_program(config, store.num_classes, normalise)
    labels = np.unique(np.linspace(0, store.num_classes - 1, _CLASSES).astype(np.int64)).tolist()
    batches = {label: _some_images(config, store, label, normalise) for label in labels}
    sizes_M2 = torch.stack(
        [
            _sizes(program.function_of(network, architecture), batches, objective)
            for network, architecture in zip(pool.networks, pool.architectures, strict=True)
        ]
    )
    for path, sizes in zip(config.source.models, sizes_M2.tolist(), strict=True):
        if not all(0 < size < float("inf") for size in sizes):
            raise RunError(
                f"model {path} must have features and gradients that are finite and not all zero; their sizes are "
                f"{sizes[0]:g} and {sizes[1]:g}"
            )
    return sizes_M2.mean(dim=0) / sizes_M2


def _some_images(config: Config, store: Store, label: int, normalise: Normalise) -> Tensor:
    images = store.images(label, config.splits)
    chosen = random_batch(len(images), _IMAGES, rng.stream(config.seed, "pool-weights", label=label))
    return normalise(unit(to_device(images.take(chosen), normalise.device)))


def _sizes(function: tuple[Forward, Parameters], batches: dict[int, Tensor], objective: Objective) -> Tensor:
    """Returns the mean sizes of both parts over some classes (2,)."""
    of_class = (
        scales(signals(*function, images_NCHW, torch.full((), label, device=images_NCHW.device), objective), objective)
        for label, images_NCHW in batches.items()
    )
    return torch.stack([torch.stack(sizes) for sizes in of_class]).mean(dim=0).detach()
