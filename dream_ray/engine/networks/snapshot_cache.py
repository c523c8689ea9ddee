"""Network snapshots on disk, shared by resumed runs, other runs and trials of a sweep.

A snapshot is a function of its number and of the settings, data and machine that trained it. The latter make the name
of its directory. Any number of processes may write to one cache: they write the same bytes, and every file is written
atomically.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dream_ray import storage
from dream_ray.engine.networks.sources import (
    NetworkSource,
    NetworkState,
    Snapshot,
    blank_network,
    on_host,
    without_momentum,
)
from dream_ray.engine.networks.tensor_file import read_tensors, write_tensors
from dream_ray.engine.networks.update_program import Recipe
from dream_ray.errors import RunError, UsageError
from dream_ray.nets import Classifier

_NAME = "dream_ray-snapshots"
_COMPLETE = "complete"  # metadata of a snapshot: "1" if training can resume from it, "0" without momentum
_HEADER_BYTES = 256  # of a tensor in a file, at most
_POLL_S = 0.2
# Without progress for so long, a process stops waiting for another one and computes the missing tensors itself.
_PATIENCE_S = 60.0
# Snapshots per call of `storage.make_room`, which lists the whole cache.
_ROOM_FOR = 8


@dataclass(frozen=True)
class TensorCache:
    """Files of tensors that have one identity and are named by numbers.

    Attributes:
        root: Directory of the whole cache: on this machine, on a shared file system, or in a bucket.
        max_bytes: Largest size of the whole cache.
        identity: Everything that the tensors depend on besides their numbers, as text.
    """

    root: str
    max_bytes: int
    identity: str

    def path(self, *numbers: int) -> str:
        """Returns the file of some tensors."""
        key = hashlib.sha256(self.identity.encode()).hexdigest()
        return storage.join(self.root, key, *(f"{number:06d}" for number in numbers)) + ".safetensors"

    def read(self, *numbers: int) -> tuple[NetworkState, dict[str, str]] | None:
        """Reads (tensors, metadata); returns None if the file is missing or damaged."""
        path = self.path(*numbers)
        if not storage.exists(path):
            return None
        try:
            found = read_tensors(path)
        except RunError:  # deleted meanwhile, or damaged
            return None
        storage.mark_used(path)
        return found

    @contextmanager
    def turn(self, *numbers: int, since: float) -> Iterator[bool]:
        """Claims the computation of missing tensors for a block, which then reads the cache again.

        Args:
            numbers: Numbers of the tensors, or of their directory.
            since: Time of the last progress in seconds, as `time.monotonic` returns it.

        Yields:
            Whether to compute them. Otherwise another process does, and the end of the block waits a little for it.
        """
        # Next to the file: a directory for each claim would slow down the listing of the cache.
        path = self.path(*numbers)
        claim = storage.sibling(path, f".{path.rpartition('/')[2]}{storage.CLAIM}")
        with storage.claimed(claim) as ours:
            computes = ours or time.monotonic() - since > _PATIENCE_S
            yield computes
        if not computes:
            time.sleep(_POLL_S)


def open_snapshot_cache(root: str, max_bytes: int, identity: object) -> TensorCache:
    """Opens a cache, which need not exist.

    Args:
        root: Parent of its directory `dream_ray-snapshots`; other files in it are not touched.
        max_bytes: Largest size of the cache.
        identity: Everything that the networks depend on besides their number; plain values.

    Raises:
        UsageError: If the directory is not writable.
    """
    storage.ensure_writable(root)
    directory = storage.join(storage.absolute(root), _NAME)
    return TensorCache(directory, max_bytes, json.dumps(identity, sort_keys=True))


@dataclass(frozen=True)
class CachedNetworks:
    """A network source that reads snapshots from the cache and stores the ones that it trains.

    If the cache is full, it deletes the least recently used snapshots, or in a bucket the oldest. While several
    processes write, the cache may exceed its size by some snapshots.

    Attributes:
        source: Trains the networks.
        cache: Stores them.
        build: Builds a network; its parameters are replaced.
        recipe: Builds its optimizer.
        inner_steps: Networks per trajectory.
        is_restart_point: Returns whether a run may resume at (outer, inner); only those snapshots include the momentum.
        check: Called before training, and while waiting for another process; an exception from it ends both.
    """

    source: NetworkSource
    cache: TensorCache
    build: Callable[[], Classifier]
    recipe: Recipe
    inner_steps: int
    is_restart_point: Callable[[int, int], bool]
    check: Callable[[], None] = lambda: None

    def trajectory(self, outer: int, start: int = 0, state: NetworkState | None = None) -> Iterator[Snapshot]:
        """Reads the cached snapshots, then trains; see `Source.trajectory`.

        On a cache miss, training resumes from the last cached snapshot that includes optimizer state. While another
        process trains the same networks, this one reads them as they are written.
        """
        known, inner = (start, state), start
        network = blank_network(self.build)
        moved = time.monotonic()
        while inner < self.inner_steps:
            if (found := self.cache.read(outer, inner)) is None:
                self.check()
                with self.cache.turn(outer, since=moved) as may_train:
                    # The previous owner of the claim may have just written it.
                    if may_train and self.cache.read(outer, inner) is None:
                        yield from self._train(outer, inner, known)
                        return
                continue
            values, metadata = found
            is_complete = metadata[_COMPLETE] == "1"
            if self.is_restart_point(outer, inner) and not is_complete:  # written by a run with other restart points
                yield from self._train(outer, inner, known)
                return
            if is_complete:
                known = inner, values
            yield Snapshot.of(values, outer, inner, network, self.recipe)
            inner += 1
            moved = time.monotonic()

    def network(self, outer: int, inner: int) -> NetworkState:
        """Returns a network; on a cache miss, trains its trajectory to the end or waits for the process that does."""
        while (found := self.cache.read(outer, inner)) is None:
            for _ in self.trajectory(outer):
                pass
        return found[0]

    def _train(self, outer: int, inner: int, known: tuple[int, NetworkState | None]) -> Iterator[Snapshot]:
        """Resumes training from `known`, and stores the networks from `inner` on."""
        for snapshot in self.source.trajectory(outer, *known):
            if snapshot.inner < inner:
                continue
            trained = snapshot.state()
            each = sum(tensor.nbytes + _HEADER_BYTES for tensor in trained.values())
            left = self.inner_steps - snapshot.inner
            if snapshot.inner == inner and left * each > self.cache.max_bytes:
                raise UsageError(
                    f"snapshot-cache-size must hold at least one trajectory ({left * each / 1e9:.3g} GB); got "
                    f"{self.cache.max_bytes / 1e9:g} GB"
                )
            if (snapshot.inner - inner) % _ROOM_FOR == 0:
                storage.make_room(self.cache.root, min(left, _ROOM_FOR) * each, self.cache.max_bytes)
            complete = self.is_restart_point(outer, snapshot.inner)
            state = on_host(trained if complete else without_momentum(trained))
            self._check(state, snapshot)
            write_tensors(self.cache.path(outer, snapshot.inner), state, {_COMPLETE: str(int(complete))})
            if left == 1:
                # Others may have written meanwhile.
                storage.make_room(self.cache.root, 0, self.cache.max_bytes)
            yield snapshot

    def _check(self, state: NetworkState, snapshot: Snapshot) -> None:
        """Raises RunError if a network has a NaN; infinities may be constants of a user's network, such as a mask."""
        for name, tensor in state.items():
            if tensor.is_floating_point() and bool(tensor.isnan().any()):
                raise RunError(
                    f"networks must be finite; {name} of trajectory {snapshot.outer}, network {snapshot.inner} is NaN. "
                    f"Training on real images diverged: lower update.lr ({self.recipe.lr})"
                )
