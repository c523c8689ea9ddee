"""Features of the real images on disk: trials of a sweep select from the same ones, so they are computed once."""

import time
from collections.abc import Callable

from torch import Tensor

from dream_ray import storage
from dream_ray.engine.networks.snapshot_cache import PATIENCE_S, POLL_S, TensorCache
from dream_ray.engine.networks.tensor_file import write_tensors

_NAME = "features"


class FeatureCache(TensorCache):
    """The features of one identity.

    A full cache stores no more features. Trials read them all in the same order, so evicting the least recently used
    ones would evict those that the next trial reads first.
    """

    def features(self, outer: int, inner: int, label: int, compute: Callable[[], Tensor]) -> Tensor:
        """Reads the features (N, D) of a class under the network of a step, or computes and stores them.

        While another process computes them, this one waits.
        """
        numbers = outer, inner, label
        began = time.monotonic()
        while True:
            if (found := self.read(*numbers)) is not None:
                return found[0][_NAME]
            with storage.claimed(f"{self.path(*numbers)}.claim") as ours:
                is_late = time.monotonic() - began > PATIENCE_S
                if (ours or is_late) and self.read(*numbers) is None:
                    computed = compute()
                    used_bytes = sum(size for _, _, size in storage.file_sizes(self.root))
                    if used_bytes + computed.nbytes <= self.max_bytes:
                        write_tensors(self.path(*numbers), {_NAME: computed}, {})
                    return computed
            if not ours:
                time.sleep(POLL_S)
