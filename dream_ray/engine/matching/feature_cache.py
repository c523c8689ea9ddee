"""Features of the real images on disk: trials of a sweep select from the same ones, so they are computed once."""

import time
from collections.abc import Callable

from torch import Tensor

from dream_ray import storage
from dream_ray.engine.networks.snapshot_cache import TensorCache
from dream_ray.engine.networks.tensor_file import write_tensors

_NAME = "features"


class FeatureCache(TensorCache):
    """The features of one identity.

    A full cache stores no more features. Trials read them all in the same order, so evicting the least recently used
    ones would evict those that the next trial reads first. Features with a NaN, which the selection refuses, are not
    stored.
    """

    def features(self, outer: int, inner: int, label: int, compute: Callable[[], Tensor]) -> Tensor:
        """Reads the features (N, D) of a class under the network of a step, or computes and stores them.

        While another process computes them, this one waits.
        """
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
