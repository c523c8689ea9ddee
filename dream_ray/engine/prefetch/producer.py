"""The loop of a producer: it takes jobs from the snapshot queue and trains the networks."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from dream_ray.data.store.store import Store
from dream_ray.engine.matching.feature_cache import FeatureCache
from dream_ray.engine.matching.from_config import network_source
from dream_ray.engine.networks.from_config import build, first_warmup_epochs, trajectory_length
from dream_ray.engine.networks.snapshot_cache import CachedNetworks, SnapshotCache, open_snapshot_cache
from dream_ray.engine.networks.sources import NetworkSource, NetworkState, blank_network, without_momentum
from dream_ray.engine.networks.training import TrainingImages
from dream_ray.engine.prefetch.snapshot_queue import Job
from dream_ray.engine.progress.heartbeat import Heartbeat, discard_report
from dream_ray.engine.progress.progress import PRODUCER
from dream_ray.engine.run.directory import Run
from dream_ray.engine.run.process_memory import memory_errors
from dream_ray.errors import UsageError

# Limit for all snapshots that the queue holds.
_AHEAD_BYTES = 256 * 10**6


class ProducerSide(Protocol):
    """A producer's side of the snapshot queue; see `SnapshotQueue`."""

    def next_job(self, producer: int) -> Job | None:
        """Waits for work."""
        ...

    def put(self, producer: int, inner: int, item: Any) -> bool:
        """Puts a snapshot in; returns whether to continue with the job."""
        ...


def trained_networks(
    run: Run,
    store: Store,
    synthetic: Callable[[], TrainingImages] | None = None,
    check: Callable[[], None] = lambda: None,
) -> NetworkSource:
    """Makes the network source of a run that trains the networks, or reads what its cache has of them.

    Args:
        run: The run.
        store: Its store.
        synthetic: Returns the synthetic images of all classes, for source.kind synthetic.
        check: See `network_source`.
    """
    cache = (
        None
        if run.spec.snapshot_cache is None or synthetic is not None
        else _snapshot_cache(run, run.spec.snapshot_cache)
    )
    normalise = run.normalise(store)
    return network_source(run.config, store, normalise, cache, compiled=run.compiled, synthetic=synthetic, check=check)


def experts(run: Run, store: Store) -> CachedNetworks:
    """Makes the source of the ways of experts (MTT), on the device of the run; see `expert_cache`."""
    cache = expert_cache(run)
    source = network_source(run.config, store, run.normalise(store), cache, compiled=run.compiled)
    assert isinstance(source, CachedNetworks)
    return source


def expert_cache(run: Run) -> SnapshotCache:
    """Returns where the ways of experts are kept; where no cache is given, the run has one of its own.

    Raises:
        UsageError: If it cannot hold all of them: they would be trained again and again.
    """
    settings, length = run.config.trajectory, trajectory_length(run.config)
    # Its training may go on from each of its networks, so each is kept with its momentum.
    each = _network_bytes(run, momentum=run.config.update.momentum > 0)
    num_bytes = settings.num_experts * length * each
    if num_bytes > run.spec.snapshot_cache_bytes:
        raise UsageError(
            f"snapshot-cache-size must be at least what trajectory.num_experts {settings.num_experts} of {length} "
            f"networks each take, {num_bytes / 1e9:.3g} GB; got {run.spec.snapshot_cache_bytes / 1e9:g} GB"
        )
    return _snapshot_cache(run, run.spec.snapshot_cache or run.file("experts"))


def _snapshot_cache(run: Run, root: str) -> SnapshotCache:
    return open_snapshot_cache(root, run.spec.snapshot_cache_bytes, _identity(run))


def feature_cache(run: Run) -> FeatureCache | None:
    """Returns where the features of the real images under the networks of a run are kept, if they are.

    Those of networks that learn from the run's own synthetic images are nobody else's.
    """
    if run.spec.snapshot_cache is None or run.spec.feature_cache_bytes == 0 or not run.config.source.is_independent:
        return None
    selection = run.config.selection
    embedded = selection.model_dump(mode="json", include={"normalise", "precision", "embedding_batch"})
    identity = {"networks": _identity(run), "embedded": embedded}
    return FeatureCache(f"{run.spec.snapshot_cache}-features", run.spec.feature_cache_bytes, identity)


def _identity(run: Run) -> dict[str, Any]:
    """Returns what the networks of a run depend on, to the bit."""
    config = run.config.model_dump(mode="json")
    settings = {key: config[key] for key in ("seed", "network", "source", "update")}
    settings |= {"first_warmup_epochs": first_warmup_epochs(run.config), "splits": run.config.splits}
    settings |= {"zca": run.config.data.zca}
    if run.config.source.kind == "expert" and run.config.selection.strategy == "representative":
        settings |= {"selection": config["selection"]}
    # Where the data lie and who does the work changes no network.
    elsewhere = ("execution", "store")
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


class _Unwanted(Exception):  # noqa: N818 (not an error)
    """The run ended while a network was trained for it."""


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
        pack: Turns a network's state into what the queue holds.
        is_over: Checked before every batch of training; a warm-up may take minutes.

    Raises:
        OutOfMemory: If memory runs out.
    """

    def check() -> None:
        if is_over():
            raise _Unwanted

    config = run.config
    source = trained_networks(run, run.open_store(), check=check)
    with suppress(_Unwanted), Heartbeat(run, producer, 0, 0, discard_report, PRODUCER) as heartbeat:
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
