"""The components of a worker's loop, by the objective of its run: source, selection and matcher."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from dream_ray.core.placement import Labels
from dream_ray.core.process_group import ProcessGroup
from dream_ray.core.selection.strategies import Selection
from dream_ray.core.transfer import module_to_device
from dream_ray.data.store.store import Store
from dream_ray.engine.distill import Matcher
from dream_ray.engine.matching.class_matcher import decoder
from dream_ray.engine.matching.class_selector import Assignments
from dream_ray.engine.matching.expert_segments import ExpertSegments, Segments
from dream_ray.engine.matching.feature_cache import FrozenFeatures
from dream_ray.engine.matching.from_config import class_matcher
from dream_ray.engine.matching.gathering import Gathering
from dream_ray.engine.matching.pool_weights import pool_weights
from dream_ray.engine.matching.prefetched_selection import prefetch_selection
from dream_ray.engine.matching.state import ClassState, RunState
from dream_ray.engine.matching.trajectory_matcher import TrajectoryMatcher
from dream_ray.engine.models.pool import load_pool
from dream_ray.engine.models.ranking import InitialModels
from dream_ray.engine.networks.from_config import build, first_passes, recipe_of, trains_on_everything, warmed_up
from dream_ray.engine.networks.prefetched import ConsumerSide, FetchedNetworks
from dream_ray.engine.networks.sources import Snapshot, Source, blank_network
from dream_ray.engine.prefetch.producer import experts, feature_cache, trained_networks
from dream_ray.engine.progress.heartbeat import Heartbeat
from dream_ray.engine.run.directory import Run
from dream_ray.engine.run.sets import starting_images

Components = tuple[Source[Any], Callable[[Any, Assignments], dict[int, Selection]], Matcher[Any]]
"""Source, selection and matcher of `distill`; the source yields the step inputs that its matcher takes."""


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
    """Yields the components of a worker; their threads end with the block.

    Args:
        run: The run.
        store: Its store.
        labels: Classes of the worker.
        state: Start state of the worker; with source.kind synthetic, networks are trained on its images.
        heartbeat: Reports the bytes received from other workers.
        snapshots: Side of the snapshot queue; None: the worker trains the networks itself.
        world_group: All workers, if they exchange tensors at every step.
    """
    config = run.config
    if config.matching.objective == "trajectory":
        yield _trajectory_components(run, store, labels, world_group)
        return
    if config.source.kind == "frozen":
        yield _frozen_components(run, store, labels)
        return
    matcher = class_matcher(
        config,
        store,
        labels,
        run.normalise(store),
        form=run.form,
        features=feature_cache(run),
        initial_network=None if trains_on_everything(config) else partial(_initial_network, run, store),
        starting_images=partial(starting_images, config),
        open_models=partial(InitialModels.open, run, store, run.device),
    )
    if snapshots is not None:
        snapshots.begin(config.step_of(state.outer, state.inner), state.network)
        fetched = FetchedNetworks(
            snapshots, lambda: module_to_device(build(config, store), run.device), recipe_of(config), config.inner_steps
        )
        with prefetch_selection(config, matcher.selector, fetched) as select:
            yield fetched, select, matcher
        return
    gathering = None
    if config.source.kind == "synthetic":
        gathering = Gathering(state, matcher.space, decoder(config, config.evaluation_decode), world_group)
        heartbeat.gathered_bytes = lambda: gathering.received_bytes
    yield trained_networks(run, store, gathering), matcher.selector.select_all, matcher


def _initial_network(run: Run, store: Store) -> Snapshot:
    """Trains the network of the initialisation, for runs whose own networks are not trained on real images."""
    return warmed_up(run.config, store, run.normalise(store), first_passes(run.config), run.form)


def _frozen_components(run: Run, store: Store, labels: Labels) -> Components:
    normalise = run.normalise(store)
    pool = load_pool(run.config, run.device)
    matcher = class_matcher(
        run.config,
        store,
        labels,
        normalise,
        form=run.form,
        features=FrozenFeatures(),
        starting_images=partial(starting_images, run.config),
        open_models=partial(InitialModels.open, run, store, run.device),
        weights_M2=pool_weights(run.config, store, pool, normalise),
    )
    return pool, matcher.selector.select_all, matcher


def _trajectory_components(run: Run, store: Store, labels: Labels, world_group: ProcessGroup) -> Components:
    config, normalise = run.config, run.normalise(store)
    network = module_to_device(blank_network(lambda: build(config, store)), run.device)

    def initialise(segments: Segments) -> dict[int, ClassState]:
        matcher = class_matcher(
            config,
            store,
            labels,
            normalise,
            form=run.form,
            starting_images=partial(starting_images, config),
            open_models=partial(InitialModels.open, run, store, run.device),
        )
        return matcher.initial_states(_initial_network(run, store))

    def select(segments: Segments, previous: Assignments) -> dict[int, Selection]:
        raise AssertionError("trajectories are matched without a selection")

    matcher = TrajectoryMatcher(config, network, normalise, initialise, world_group)
    return ExpertSegments(config, experts(run, store), network, world_group), select, matcher
