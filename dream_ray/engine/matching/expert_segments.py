"""Trajectory segments (MTT): where a student starts on an expert trajectory, and where it should arrive.

An expert is a network trained on real data, so the snapshot cache stores expert trajectories like all others.
On a cache miss, the network is trained.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from dream_ray.config import Config
from dream_ray.core import rng
from dream_ray.core.matching.objectives import Parameters
from dream_ray.core.process_group import ProcessGroup, own_part
from dream_ray.core.transfer import to_device
from dream_ray.engine.networks.snapshot_cache import CachedNetworks
from dream_ray.engine.networks.sources import NetworkState, network_tensors
from dream_ray.nets import Classifier


@dataclass(frozen=True)
class Segment:
    """A segment of an expert trajectory.

    Attributes:
        number: Number of the segment within its step.
        start: Parameters of the expert where the student starts.
        target: Parameters of the expert `trajectory.expert_steps` updates later.
    """

    number: int
    start: Parameters
    target: Parameters


@dataclass(frozen=True)
class Segments:
    """The segments of a step.

    Attributes:
        outer: t.
        inner: j.
        own: The segments that this worker matches.
    """

    outer: int
    inner: int
    own: tuple[Segment, ...]

    def restart_state(self) -> None:
        """Returns None: every step can be drawn on its own."""


@dataclass(frozen=True)
class ExpertSegments:
    """Draws the segments of every step.

    Attributes:
        config: Settings.
        experts: Source of the expert trajectories; expert k is trajectory k.
        network: A network of the run, for the names and the device of its parameters; buffers are not matched.
        world_group: All workers of the run, which share the segments of a step.
    """

    config: Config
    experts: CachedNetworks
    network: Classifier
    world_group: ProcessGroup

    def trajectory(self, outer: int, start: int = 0, state: NetworkState | None = None) -> Iterator[Segments]:
        """See `Source.trajectory`."""
        for inner in range(start, self.config.inner_steps):
            numbers = own_part(self.config.trajectory.segments, self.world_group)
            yield Segments(outer, inner, tuple(self._segment(outer, inner, number) for number in numbers))

    def _segment(self, outer: int, inner: int, number: int) -> Segment:
        settings = self.config.trajectory
        generator = rng.stream(self.config.seed, "segment", outer=outer, inner=inner, label=number)
        expert = int(generator.integers(settings.num_experts))
        first = int(generator.integers(latest_start(self.config, self.config.step_of(outer, inner))))
        return Segment(number, self._network(expert, first), self._network(expert, first + settings.expert_steps))

    def _network(self, expert: int, number: int) -> Parameters:
        tensors = network_tensors(self.experts.network(expert, number))
        return {name: to_device(tensors[name], parameter.device) for name, parameter in self.network.named_parameters()}


def latest_start(config: Config, step: int) -> int:
    """Returns the exclusive upper bound of a student's start update at a step.

    It grows over the first `trajectory.start_growth` steps, so early segments are learned first (DATM, Guo et al., ICLR
    2024, arXiv 2310.05773).
    """
    settings = config.trajectory
    if step >= settings.start_growth:
        return settings.max_start
    return 1 + (settings.max_start - 1) * step // settings.start_growth
