"""The components of a worker's loop, by the objective that its run matches: source, selection and matcher."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dream_ray.core.placement import Labels
from dream_ray.core.process_group import ProcessGroup
from dream_ray.core.selection.strategies import Selection
from dream_ray.data.store.store import Store
from dream_ray.engine.distill import Matcher
from dream_ray.engine.matching.class_matcher import Assignments, ClassMatcher, decoder
from dream_ray.engine.matching.expert_segments import ExpertSegments, Segments
from dream_ray.engine.matching.from_config import class_matcher
from dream_ray.engine.matching.gathering import Gathering
from dream_ray.engine.matching.prefetched_selection import prefetch_selection
from dream_ray.engine.matching.state import RunState
from dream_ray.engine.matching.trajectory_matcher import TrajectoryMatcher
from dream_ray.engine.networks.from_config import build, fetched_networks, first_passes, trains_on_everything, warmed_up
from dream_ray.engine.networks.prefetched import ConsumerSide
from dream_ray.engine.networks.sources import NetworkSource, Snapshot, Source, blank_network
from dream_ray.engine.prefetch.producer import experts, feature_cache, trained_networks
from dream_ray.engine.progress.heartbeat import Heartbeat
from dream_ray.engine.run.directory import Run


@dataclass(frozen=True)
class Components:
    """What `distill` works with, see there; a source yields the step inputs that its matcher takes."""

    source: Source[Any]
    select: Callable[[Any, Assignments], dict[int, Selection]]
    matcher: Matcher[Any]


@contextmanager
def make_components(
    run: Run,
    store: Store,
    labels: Labels,
    state: RunState,
    heartbeat: Heartbeat,
    snapshots: ConsumerSide | None,
    world_group: ProcessGroup,
) -> Iterator[Components]:
    """Makes the components of a worker; threads that they start end with the block.

    Args:
        run: The run.
        store: Its store.
        labels: Classes of the worker.
        state: Where the worker starts; networks are trained on its images if source.kind is synthetic.
        heartbeat: Told of the bytes that come from other workers.
        snapshots: Where networks come from; None: the worker trains them itself.
        world_group: All workers, if they exchange tensors at every step.
    """
    if run.config.matching.objective == "trajectory":
        yield _trajectory_components(run, store, labels, world_group)
        return
    matcher = _class_matcher(run, store, labels)
    if snapshots is None:
        yield Components(_own_networks(run, store, state, heartbeat, matcher, world_group), matcher.select_all, matcher)
        return
    snapshots.begin(run.config.step_of(state.outer, state.inner), state.network)
    source = fetched_networks(run.config, store, matcher.normalise, snapshots)
    with prefetch_selection(run.config, matcher, source) as select:
        yield Components(source, select, matcher)


def _class_matcher(run: Run, store: Store, labels: Labels) -> ClassMatcher:
    return class_matcher(
        run.config,
        store,
        labels,
        run.normalise(store),
        compiled=run.compiled,
        features=feature_cache(run),
        initial_network=None if trains_on_everything(run.config) else lambda: _initial_network(run, store),
    )


def _initial_network(run: Run, store: Store) -> Snapshot:
    """Makes the network whose features the initialisation uses, if the run has none that was trained on real images."""
    return warmed_up(run.config, store, run.normalise(store), first_passes(run.config), compiled=run.compiled)


def _own_networks(
    run: Run, store: Store, state: RunState, heartbeat: Heartbeat, matcher: ClassMatcher, world_group: ProcessGroup
) -> NetworkSource:
    """Makes the source of networks that this worker trains itself."""
    if run.config.source.kind != "synthetic":
        return trained_networks(run, store)
    gathering = Gathering(state, matcher.space, decoder(run.config, run.config.evaluation_decode), world_group)
    heartbeat.gathered_bytes = lambda: gathering.received_bytes
    return trained_networks(run, store, gathering)


def _trajectory_components(run: Run, store: Store, labels: Labels, world_group: ProcessGroup) -> Components:
    config, normalise = run.config, run.normalise(store)
    network = blank_network(lambda: build(config, store)).to(run.device)
    names = tuple(name for name, _ in network.named_parameters())

    def select(segments: Segments, previous: Assignments) -> dict[int, Selection]:
        raise AssertionError("trajectories are matched without a selection")

    matcher = TrajectoryMatcher(
        config,
        network,
        normalise,
        initialise=lambda: _class_matcher(run, store, labels).initial_states(_initial_network(run, store)),
        world_group=world_group,
    )
    return Components(ExpertSegments(config, experts(run, store), names, run.device, world_group), select, matcher)
