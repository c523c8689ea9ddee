"""Features of the real images on disk: trials of a sweep select from the same ones, and embed them once."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from dream_ray import storage
from dream_ray.engine.networks.tensor_file import read_tensors, write_tensors
from dream_ray.errors import RunError

_NAME = "features"
_POLL_S = 0.2
# As for the networks of a snapshot cache: who computes them may stand still.
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class FeatureCache:
    """The features under the networks of one identity.

    Attributes:
        root: Directory of the whole cache.
        max_bytes: Most bytes of the whole cache. When they are used up, no more is kept: trials read everything in the
            same order, and making room would throw away what the next one asks for first.
        identity: What features depend on besides network and class, as plain values.
    """

    root: str
    max_bytes: int
    identity: object

    def features(self, outer: int, inner: int, label: int, compute: Callable[[], Tensor]) -> Tensor:
        """Reads the features (N, D) of a class under the network of a step, or computes and keeps them.

        While another process computes them, they are waited for.
        """
        key = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()
        path = storage.join(self.root, key, f"{outer:06d}", f"{inner:06d}", f"{label:06d}.safetensors")
        began = time.monotonic()
        while True:
            if (found := _read(path)) is not None:
                return found
            with storage.claimed(f"{path}.claim") as ours:
                is_late = time.monotonic() - began > _PATIENCE_S
                if (ours or is_late) and (found := _read(path)) is None:
                    computed = compute()
                    if self._used_bytes() + computed.nbytes <= self.max_bytes:
                        write_tensors(path, {_NAME: computed}, {})
                    return computed
            if not ours:
                time.sleep(_POLL_S)

    def _used_bytes(self) -> int:
        return sum(size for _, _, size in storage.file_sizes(self.root))


def _read(path: str) -> Tensor | None:
    if not storage.exists(path):
        return None
    try:
        return read_tensors(path)[0][_NAME]
    except RunError:  # damaged: it is computed again
        return None
