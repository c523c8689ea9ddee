"""Networks on disk: what was trained once is read by a resumed run, another run or another trial of a sweep.

A network is a function of its number and of the settings, data and machine that trained it; those make the name of
its directory. Any number of processes may write to one cache: they write the same bytes, and a file is there whole or
not at all.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from dream_ray import storage
from dream_ray.engine.networks.sources import NetworkSource, NetworkState, Snapshot, blank_network, without_momentum
from dream_ray.engine.networks.tensor_file import read_tensors, write_tensors
from dream_ray.engine.networks.training import Recipe
from dream_ray.errors import RunError, UsageError
from dream_ray.nets import Classifier

_NAME = "dream_ray-snapshots"
_COMPLETE = "complete"
_HEADER_BYTES = 256  # of a tensor in a file, at most
_POLL_S = 0.2
# After so long without another network, one stops waiting for who trains them, and does it too.
_PATIENCE_S = 60.0
# Networks for which room is made at a time: it takes a listing of the whole cache, and several may write.
_ROOM_FOR = 8


@dataclass(frozen=True)
class SnapshotCache:
    """The networks of one identity.

    Attributes:
        root: Directory of the whole cache: on this machine, on a file system shared by all, or in a bucket.
        max_bytes: Most bytes of the whole cache; the networks that were not used (of a bucket:
            written) for the longest time go first. While several write, some of their networks may lie beyond it.
        identity: What the networks depend on besides their number, as text.
    """

    root: str
    max_bytes: int
    identity: str

    def of(self, part: str) -> "SnapshotCache":
        """Returns the same cache for other networks of the same settings."""
        return replace(self, identity=f"{self.identity} {part}")

    def load(self, outer: int, inner: int) -> tuple[NetworkState, bool] | None:
        """Reads a network.

        Returns:
            (state, whether training can go on from it), or None where it is not there or damaged.
        """
        path = self._path(outer, inner)
        if not storage.exists(path):
            return None
        try:
            state, metadata = read_tensors(path)
        except RunError:  # deleted at this moment, or damaged: it is trained again
            return None
        storage.mark_used(path)
        return state, metadata[_COMPLETE] == "1"

    def save(self, outer: int, inner: int, state: NetworkState, *, complete: bool) -> None:
        """Writes a network; see `load` for `complete`."""
        write_tensors(self._path(outer, inner), state, {_COMPLETE: str(int(complete))})

    def check_size(self, num_bytes: int) -> None:
        """Raises UsageError if the cache cannot hold a trajectory of so many bytes."""
        if num_bytes > self.max_bytes:
            raise UsageError(
                f"snapshot-cache-size must hold at least one trajectory ({num_bytes / 1e9:.3g} GB); got "
                f"{self.max_bytes / 1e9:g} GB"
            )

    def make_room(self, num_bytes: int) -> None:
        """Makes room for what is to be written, at most `max_bytes`."""
        storage.make_room(self.root, num_bytes, self.max_bytes)

    def claim(self, outer: int) -> AbstractContextManager[bool]:
        """Claims the training of a trajectory, see `storage.claimed`."""
        return storage.claimed(storage.join(self._directory(outer), storage.CLAIM))

    def _path(self, outer: int, inner: int) -> str:
        return storage.join(self._directory(outer), f"{inner:06d}.safetensors")

    def _directory(self, outer: int) -> str:
        key = hashlib.sha256(self.identity.encode()).hexdigest()
        return storage.join(self.root, key, f"{outer:06d}")


def open_snapshot_cache(root: str, max_bytes: int, identity: object) -> SnapshotCache:
    """Opens a cache, which need not exist.

    Args:
        root: Where its directory `dream_ray-snapshots` is, or will be; what else lies there is left alone.
        max_bytes: Its size.
        identity: What the networks depend on besides their number; plain values.

    Raises:
        UsageError: If the directory is not writable.
    """
    storage.ensure_writable(root)
    directory = storage.join(storage.absolute(root), _NAME)
    return SnapshotCache(directory, max_bytes, json.dumps(identity, sort_keys=True))


@dataclass(frozen=True)
class CachedNetworks:
    """A network source that reads what the cache has and keeps there what it trains.

    Attributes:
        source: Trains the networks.
        cache: Keeps them.
        build: Makes a network; its parameters are replaced.
        recipe: Makes its optimiser.
        inner_steps: Networks per trajectory.
        is_restart_point: Tells of (outer, inner) whether a run may be resumed there; only there momentum is kept.
        check: Called while one waits for another process; raises to end that.
    """

    source: NetworkSource
    cache: SnapshotCache
    build: Callable[[], Classifier]
    recipe: Recipe
    inner_steps: int
    is_restart_point: Callable[[int, int], bool]
    check: Callable[[], None] = lambda: None

    def trajectory(self, outer: int, start: int = 0, state: NetworkState | None = None) -> Iterator[Snapshot]:
        """Reads as far as the cache goes, then trains; see `NetworkSource.trajectory`.

        While another process trains the same networks, they are read as they come.
        """
        known, inner = (start, state), start
        network = blank_network(self.build)
        moved = time.monotonic()
        while inner < self.inner_steps:
            found = self.cache.load(outer, inner)
            if found is None:
                with self.cache.claim(outer) as ours:
                    is_late = time.monotonic() - moved > _PATIENCE_S
                    # Who had the claim may have kept it at this moment.
                    if (ours or is_late) and self.cache.load(outer, inner) is None:
                        yield from self._train(outer, inner, known)
                        return
                if not ours:
                    self.check()
                    time.sleep(_POLL_S)
                continue
            values, is_complete = found
            if self.is_restart_point(outer, inner) and not is_complete:  # of a run whose restart points are others
                yield from self._train(outer, inner, known)
                return
            if is_complete:
                known = inner, values
            yield Snapshot.of(values, outer, inner, network, self.recipe)
            inner += 1
            moved = time.monotonic()

    def network(self, outer: int, inner: int) -> NetworkState:
        """Returns a network; trains up to the end of its trajectory, or waits for who does, where it is not there."""
        while (found := self.cache.load(outer, inner)) is None:
            for _ in self.trajectory(outer):
                pass
        return found[0]

    def _train(self, outer: int, inner: int, known: tuple[int, NetworkState | None]) -> Iterator[Snapshot]:
        """Trains on from what is known, and keeps the networks from `inner` on."""
        for snapshot in self.source.trajectory(outer, *known):
            if snapshot.inner < inner:
                continue
            trained = snapshot.state()
            each = sum(tensor.nbytes + _HEADER_BYTES for tensor in trained.values())
            left = self.inner_steps - snapshot.inner
            if snapshot.inner == inner:
                self.cache.check_size(left * each)
            if (snapshot.inner - inner) % _ROOM_FOR == 0:
                self.cache.make_room(min(left, _ROOM_FOR) * each)
            complete = self.is_restart_point(outer, snapshot.inner)
            self.cache.save(
                outer, snapshot.inner, trained if complete else without_momentum(trained), complete=complete
            )
            if left == 1:
                self.cache.make_room(0)  # others may have written meanwhile
            yield snapshot
