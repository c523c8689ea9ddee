"""The source of networks that are never trained."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dream_ray.engine.networks.sources import Member, NetworkState, Snapshot
from dream_ray.nets import Classifier


@dataclass(frozen=True)
class FrozenNetworks:
    """A pool of networks that are never trained, in turn.

    Inner step j of outer step t is matched at number (t + j) mod n of n networks. With one outer step this is the step
    modulo n, the order of FADRM; and the selections, which are those of j = 0, meet every network too.

    Attributes:
        networks: The networks, in evaluation mode.
        architectures: Number of the architecture of each.
        inner_steps: Networks per trajectory.
    """

    networks: Sequence[Classifier]
    architectures: Sequence[int]
    inner_steps: int

    def trajectory(self, outer: int, start: int = 0, state: NetworkState | None = None) -> Iterator[Snapshot]:
        """See `Source.trajectory`; there are no states."""
        for inner in range(start, self.inner_steps):
            number = (outer + inner) % len(self.networks)
            yield Snapshot(outer, inner, self.networks[number], None, Member(number, self.architectures[number]))
