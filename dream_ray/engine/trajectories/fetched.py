"""The network source of a worker that does not train networks itself."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from dream_ray.engine.network_source import NetworkState, Snapshot, blank_network
from dream_ray.engine.training import Recipe
from dream_ray.nets import Classifier


class Networks(Protocol):
    """A conveyor as one of its workers sees it."""

    def begin(self, step: int, state: NetworkState | None) -> None:
        """Says where the worker starts, and the network there if it is known; see `Conveyor.begin`."""
        ...

    def get(self, step: int) -> NetworkState:
        """Waits for a network; the worker needs none of an earlier step any more."""
        ...

    def peek(self, step: int) -> NetworkState | None:
        """Waits a moment for a network that the worker will get later."""
        ...


@dataclass(frozen=True)
class FetchedNetworks:
    """Networks that somebody else trains.

    Attributes:
        networks: Where they come from.
        build: Makes a network; its parameters are replaced.
        recipe: Makes its optimiser, which holds the momentum at those steps where a run may be resumed.
        device: Where the networks live.
        inner_steps: Networks per trajectory.
    """

    networks: Networks
    build: Callable[[], Classifier]
    recipe: Recipe
    device: torch.device
    inner_steps: int

    def trajectory(self, outer: int, start: int = 0, state: NetworkState | None = None) -> Iterator[Snapshot]:
        """Fetches one network after the other; see `NetworkSource.trajectory`."""
        network = blank_network(self.build).to(self.device)
        for inner in range(start, self.inner_steps):
            state = self.networks.get(outer * self.inner_steps + inner)
            yield Snapshot.of(state, outer, inner, network, self.recipe)

    def glimpse(self, outer: int, inner: int) -> Snapshot | None:
        """Waits a moment for a network that comes later; None where it is not there yet."""
        state = self.networks.peek(outer * self.inner_steps + inner)
        if state is None:
            return None
        return Snapshot.of(state, outer, inner, blank_network(self.build).to(self.device), self.recipe)
