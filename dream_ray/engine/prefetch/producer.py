"""Training of the networks of a run: the loop of a producer, expert trajectories, and the caches of both."""

import json
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any, Protocol

from dream_ray.data.store.store import Store
from dream_ray.engine.matching.feature_cache import FeatureCache
from dream_ray.engine.matching.from_config import network_source
from dream_ray.engine.networks.from_config import build, first_warmup_epochs, trajectory_length
from dream_ray.engine.networks.snapshot_cache import CachedNetworks, TensorCache, open_snapshot_cache
from dream_ray.engine.networks.sources import NetworkSource, NetworkState, blank_network, without_momentum
from dream_ray.engine.networks.training import TrainingImages
from dream_ray.engine.prefetch.snapshot_queue import Job
from dream_ray.engine.progress.heartbeat import Heartbeat, discard_report
from dream_ray.engine.progress.status import EXPERT, PRODUCER
from dream_ray.engine.run.directory import FIRST_OUTER_STEPS, Run, open_run
from dream_ray.engine.run.environment import fixed_arithmetic
from dream_ray.engine.run.process_memory import keep_freed_memory, memory_errors
from dream_ray.engine.stopping import Stopped
from dream_ray.errors import UsageError

# Limit for all snapshots that the queue holds.
_AHEAD_BYTES = 256 * 10**6


class ProducerSide(Protocol):
    """A producer's side of the snapshot queue; see `SnapshotQueue`."""

    def next_job(self, producer: int) -> Job | None:
        """Waits for work."""

    def put(self, producer: int, inner: int, item: Any) -> bool:
        """Puts a snapshot in; returns whether to continue with the job."""


def trained_networks(
    run: Run,
    store: Store,
    synthetic: Callable[[], TrainingImages] | None = None,
    check: Callable[[], None] = lambda: None,
) -> NetworkSource:
    """Returns the source that trains the networks of a run, or reads them from its snapshot cache.

    Args:
        run: The run.
        store: Its store.
        synthetic: Returns the synthetic images of all classes, for source.kind synthetic.
        check: See `network_source`.
    """
    cache = None
    if synthetic is None and run.spec.snapshot_cache is not None:
        cache = open_snapshot_cache(run.spec.snapshot_cache, run.spec.snapshot_cache_bytes, _identity(run))
    normalise = run.normalise(store)
    return network_source(run.config, store, normalise, cache, form=run.form, synthetic=synthetic, check=check)


def experts(run: Run, store: Store) -> CachedNetworks:
    """Returns the source of expert trajectories (MTT), on the device of the run; see `expert_cache`."""
    source = network_source(run.config, store, run.normalise(store), expert_cache(run), form=run.form)
    assert isinstance(source, CachedNetworks)
    return source


def expert_cache(run: Run) -> TensorCache:
    """Returns the cache of expert trajectories; a run without a snapshot cache has one in its directory.

    Raises:
        UsageError: If it cannot hold all of them: they would be trained again and again.
    """
    settings, length = run.config.trajectory, trajectory_length(run.config)
    # Training may resume from each network, so each is stored with its momentum.
    each = _network_bytes(run, momentum=run.config.update.momentum > 0)
    num_bytes = settings.num_experts * length * each
    if num_bytes > run.spec.snapshot_cache_bytes:
        raise UsageError(
            f"snapshot-cache-size must hold trajectory.num_experts {settings.num_experts} trajectories of {length} "
            f"networks ({num_bytes / 1e9:.3g} GB); got {run.spec.snapshot_cache_bytes / 1e9:g} GB"
        )
    root = run.spec.snapshot_cache or run.file("experts")
    return open_snapshot_cache(root, run.spec.snapshot_cache_bytes, _identity(run))


def missing_experts(run: Run) -> list[int]:
    """Returns the experts of a run whose trajectories are not complete in the cache; [] without experts."""
    if run.config.source.kind != "expert":
        return []
    cache, last = expert_cache(run), trajectory_length(run.config) - 1
    return [number for number in range(run.config.trajectory.num_experts) if cache.read(number, last) is None]


@memory_errors()
def make_expert(run_path: str, number: int) -> None:
    """Trains an expert to the end of its trajectory, from its last cached network.

    Args:
        run_path: Directory of the run.
        number: Number of the expert.

    Raises:
        OutOfMemory: If memory runs out.
    """
    keep_freed_memory()
    run = open_run(run_path)
    of_experts, of_updates = run.config.trajectory.num_experts, trajectory_length(run.config) - 1
    with ExitStack() as ending:
        store = ending.enter_context(run.reading_store())
        ending.enter_context(fixed_arithmetic(run.threads, run.config.precision))
        heartbeat = ending.enter_context(Heartbeat(run, number, 0, 0, discard_report, EXPERT))
        for snapshot in experts(run, store).trajectory(number):
            heartbeat.beat(f"expert {number + 1} of {of_experts}, update {snapshot.inner} of {of_updates}")


def feature_cache(run: Run) -> FeatureCache | None:
    """Returns the cache of the features of the real images, if the run has one.

    No other run can use the features under networks that are trained on this run's synthetic images.
    """
    if run.spec.snapshot_cache is None or run.spec.feature_cache_bytes == 0 or not run.config.source.is_trained_ahead:
        return None
    selection = run.config.selection
    embedded = selection.model_dump(mode="json", include={"normalise", "precision", "embedding_batch"})
    identity = json.dumps({"networks": _identity(run), "embedded": embedded}, sort_keys=True)
    return FeatureCache(f"{run.spec.snapshot_cache}-features", run.spec.feature_cache_bytes, identity)


def _identity(run: Run) -> dict[str, Any]:
    """Returns everything that the bits of the networks of a run depend on."""
    config = run.config.model_dump(mode="json")
    settings = {key: config[key] for key in ("seed", "network", "source", "update", "precision")}
    settings |= {"first_warmup_epochs": first_warmup_epochs(run.config), "splits": run.config.splits}
    settings |= {name: config["data"][name] for name in ("normalisation", "zca")}
    if run.config.source.kind == "expert" and run.config.selection.strategy != "random":
        settings |= {"selection": config["selection"]}
    # The path of the store, the distribution of the work and the matching change no network.
    elsewhere = ("execution", "store", "class_batch", "matching", FIRST_OUTER_STEPS)
    return settings | {key: value for key, value in run.environment.items() if key not in elsewhere}


def networks_ahead(num_producers: int, inner_steps: int, network_bytes: int) -> int:
    """Returns the window of the snapshot queue: a trajectory per producer, within 256 MB, at least 2 snapshots."""
    return max(2, min(num_producers * inner_steps, _AHEAD_BYTES // network_bytes))


def window_of(run: Run, num_producers: int) -> int:
    """Returns the window of a run's snapshot queue."""
    return networks_ahead(num_producers, run.config.inner_steps, _network_bytes(run))


def _network_bytes(run: Run, *, momentum: bool = False) -> int:
    network = blank_network(lambda: build(run.config, run.open_store()))
    kept = [*network.state_dict().values(), *(network.parameters() if momentum else ())]
    return sum(tensor.nbytes for tensor in kept)


@memory_errors()
def produce(
    queue: ProducerSide,
    producer: int,
    run: Run,
    *,
    pack: Callable[[NetworkState], Any] = lambda state: state,
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    """Trains networks until no job is left.

    Args:
        queue: Gives the jobs and takes the snapshots.
        producer: Number of this producer.
        run: The run.
        pack: Turns a network's state into an item of the queue.
        is_over: Checked before every batch of training; a warm-up may take minutes.

    Raises:
        OutOfMemory: If memory runs out.
    """

    def check() -> None:
        if is_over():
            raise Stopped

    config = run.config
    with ExitStack() as ending:
        ending.enter_context(suppress(Stopped))
        source = trained_networks(run, ending.enter_context(run.reading_store()), check=check)
        heartbeat = ending.enter_context(Heartbeat(run, producer, 0, 0, discard_report, PRODUCER))
        while (job := queue.next_job(producer)) is not None:
            for snapshot in source.trajectory(job.outer, job.start, job.state):
                if snapshot.inner < job.first:
                    continue
                state = snapshot.state()
                if not config.saves_at(config.step_of(job.outer, snapshot.inner)):
                    state = without_momentum(state)  # no training resumes from there
                heartbeat.beat_if_due(f"trajectory {job.outer}, network {snapshot.inner}")
                if not queue.put(producer, snapshot.inner, pack(state)):
                    break
