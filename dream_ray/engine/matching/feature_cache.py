"""Features of the real images that are computed once.

On disk they serve the trials of a sweep, which select from the same ones. Under frozen networks they stay in memory.

N images of a class, D features.
"""

import time
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from dream_ray import storage
from dream_ray.engine.networks.snapshot_cache import TensorCache
from dream_ray.engine.networks.tensor_file import write_tensors

_NAME = "features"
FROZEN_BYTES = 2
"""Bytes of a feature under a frozen network."""


class KeptFeatures(Protocol):
    """Features that are kept by network and class."""

    def features(self, outer: int, inner: int, label: int, compute: Callable[[], Tensor]) -> Tensor:
        """Returns the features (N, D) of a class, float32; computes them if they are not kept.

        Args:
            outer: Outer step of the network, or number of a frozen one.
            inner: Its inner step; 0 of a frozen one.
            label: The class.
            compute: Computes them.
        """


class FeatureCache(TensorCache):
    """The features of one identity on disk.

    A full cache stores no more features. Trials read them all in the same order, so evicting the least recently used
    ones would evict those that the next trial reads first. Features with a NaN, which the selection refuses, are not
    stored.
    """

    def features(self, outer: int, inner: int, label: int, compute: Callable[[], Tensor]) -> Tensor:
        """See `KeptFeatures`; while another process computes them, this one waits."""
        numbers = outer, inner, label
        began = time.monotonic()
        while (found := self.read(*numbers)) is None:
            with self.turn(*numbers, since=began) as may_compute:
                # The previous owner of the claim may have just written them.
                if may_compute and self.read(*numbers) is None:
                    computed = compute()
                    if bool(computed.isnan().any()):
                        return computed
                    used_bytes = sum(size for _, _, size in storage.file_sizes(self.root))
                    if used_bytes + computed.nbytes <= self.max_bytes:
                        write_tensors(self.path(*numbers), {_NAME: computed}, {})
                    return computed
        return found[0][_NAME]


class FrozenFeatures:
    """Features under frozen networks, by network and class, in the memory of the device that computed them.

    They are rounded to float16, also before they are first used, so that a selection does not depend on what is kept.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int, int], Tensor] = {}

    def features(self, outer: int, inner: int, label: int, compute: Callable[[], Tensor]) -> Tensor:
        """See `KeptFeatures`."""
        if (outer, inner, label) not in self._kept:
            self._kept[outer, inner, label] = compute().to(torch.float16)
        return self._kept[outer, inner, label].float()
