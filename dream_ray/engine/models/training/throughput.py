"""The bare step of a training: forward, backward and SGD on one batch, without reading, augmenting and exchanging.

It is measured between the epochs of a training, so that both meet the same machine in the same state.
"""

import copy
import time

import torch
from torch.nn import functional as F

from dream_ray.core import rng
from dream_ray.core.transfer import to_device
from dream_ray.data.store.store import Store
from dream_ray.engine.models.training.logits import Logits
from dream_ray.engine.networks.update_program import Recipe

_STEPS, _MOST_ROUNDS = 3, 10


class BareStep:
    """The bare step of a worker, on a copy of its network.

    Args:
        logits: The network.
        recipe: Batch size of all workers, and optimizer.
        store: Gives the shape of images and the number of classes.
        device: Device of the worker.
        num_workers: Workers, each of which takes its part of the batch.
    """

    def __init__(self, logits: Logits, recipe: Recipe, store: Store, device: torch.device, num_workers: int) -> None:
        self._logits, self._device = copy.deepcopy(logits).train(), device
        self._optimizer = recipe.optimizer(self._logits.network)
        count, draws = recipe.batch_size // num_workers, rng.stream(0, "bare-step")
        self._images_NCHW = to_device(draws.standard_normal((count, *store.shape_CHW)), device, torch.float32)
        self._labels_N = to_device(draws.integers(store.num_classes, size=count), device)
        self._images, self._rounds = recipe.batch_size, 0

    def images_per_second(self) -> float | None:
        """Measures some steps; all workers do so at the same time.

        Returns:
            Images of all workers per second; None after enough rounds.
        """
        if self._rounds == _MOST_ROUNDS:
            return None
        if self._rounds == 0:
            self._take_step()
        self._rounds += 1
        synchronise(self._device)
        started = time.monotonic()
        for _ in range(_STEPS):
            self._take_step()
        synchronise(self._device)
        return _STEPS * self._images / (time.monotonic() - started)

    def _take_step(self) -> None:
        loss = F.cross_entropy(self._logits(self._images_NCHW), self._labels_N)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


def synchronise(device: torch.device) -> None:
    """Waits until a device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
