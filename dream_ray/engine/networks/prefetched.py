"""The network source of a worker whose networks are trained by producers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from dream_ray.engine.networks.sources import NetworkState, Snapshot, blank_network
from dream_ray.engine.networks.update_program import Recipe
from dream_ray.nets import Classifier


class ConsumerSide(Protocol):
    """A worker's side of the snapshot queue."""

    def begin(self, step: int, state: NetworkState | None) -> None:
        """Registers the worker at a step, with the network there if it is known; see `SnapshotQueue.begin`."""

    def get(self, step: int) -> NetworkState:
        """Waits for a snapshot; the worker needs no earlier one any more."""

    def try_get(self, step: int) -> NetworkState | None:
        """Waits at most about a second for a snapshot that the worker gets later."""


@dataclass(frozen=True)
class FetchedNetworks:
    """Networks from a snapshot queue.

    Attributes:
        networks: The worker's side of the queue.
        build: Builds a network; its parameters are replaced.
        recipe: Builds its optimizer; snapshots at steps where a run may resume include the momentum.
        inner_steps: Snapshots per trajectory.
    """

    networks: ConsumerSide
    build: Callable[[], Classifier]
    recipe: Recipe
    inner_steps: int

    def trajectory(self, outer: int, start: int = 0, state: NetworkState | None = None) -> Iterator[Snapshot]:
        """See `Source.trajectory`."""
        network = blank_network(self.build)
        for inner in range(start, self.inner_steps):
            state = self.networks.get(outer * self.inner_steps + inner)
            yield Snapshot.of(state, outer, inner, network, self.recipe)

    def try_get(self, outer: int, inner: int) -> Snapshot | None:
        """Returns a later snapshot, valid until the next call; None if it is not queued within about a second."""
        state = self.networks.try_get(outer * self.inner_steps + inner)
        return None if state is None else Snapshot.of(state, outer, inner, self._later_network, self.recipe)

    @cached_property
    def _later_network(self) -> Classifier:
        return blank_network(self.build)
