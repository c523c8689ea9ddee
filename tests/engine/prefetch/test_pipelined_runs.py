"""Runs with producers in threads have the bits of runs whose workers train the networks."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from dream_ray import storage
from dream_ray.config import parse_config
from dream_ray.core.placement import place_classes
from dream_ray.engine.matching.class_selector import ClassSelector
from dream_ray.engine.matching.prefetched_selection import prefetch_selection
from dream_ray.engine.networks import sources
from dream_ray.engine.networks.program_form import EAGER
from dream_ray.engine.networks.sources import NetworkSource, NetworkState, Snapshot
from dream_ray.engine.prefetch.producer import trained_networks
from dream_ray.engine.prefetch.threads import LocalConsumerSide, producing_threads
from dream_ray.engine.progress import heartbeat
from dream_ray.engine.run.directory import Run
from dream_ray.errors import RunError, UsageError
from tests.runs import Killed, create_run, final_images, work

CPU = torch.device("cpu")
NUM_CLASSES = 4
SOURCES: dict[str, dict[str, Any]] = {
    "real": {"kind": "real"},
    "random": {"kind": "random"},
    "pool": {"kind": "pool", "pool_size": 2},
}


@pytest.fixture
def start(four_digits_store: str, tmp_path: Path) -> Callable[..., Run]:
    def make(settings: dict[str, Any], name: str = "run", **options: Any) -> Run:
        return create_run(
            str(tmp_path / name),
            parse_config(settings),
            four_digits_store,
            device=CPU,
            threads=1,
            **options,
        )

    return make


def own_threads() -> list[str]:
    """Names of the threads of runs that are alive."""
    names = (thread.name for thread in threading.enumerate())
    return [name for name in names if name.startswith(("producer", "prefetch-selection", "checkpoint"))]


def run_pipelined(run: Run, num_workers: int, num_producers: int) -> None:
    """Runs all workers at a time, as threads."""
    placement = place_classes([1.0] * NUM_CLASSES, num_workers)
    with producing_threads(run, num_producers) as queue, ThreadPoolExecutor(num_workers) as pool:
        ended = [
            pool.submit(
                work,
                run.path,
                placement[rank],
                shard=rank,
                num_shards=num_workers,
                snapshots=LocalConsumerSide(queue, rank, num_workers),
            )
            for rank in range(num_workers)
        ]
        # A group ends as one, as on Ray Train: the others would wait for a dead one for ever.
        wait(ended, return_when=FIRST_EXCEPTION)
        queue.close()
        for one in ended:
            one.result()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("num_workers", "num_producers"), [(1, 1), (2, 1), (3, 2)])
def test_prefetched_networks_change_no_bit(
    start: Callable[..., Run],
    tiny: dict[str, Any],
    reference: Callable[..., Tensor],
    source: str,
    num_workers: int,
    num_producers: int,
) -> None:
    settings = {**tiny, "source": SOURCES[source]}
    run = start(settings)
    run_pipelined(run, num_workers, num_producers)
    assert torch.equal(final_images(run), reference(settings))


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize("killed_at", [1, 4, 6])
def test_a_killed_run_resumes_to_the_same_bits(
    start: Callable[..., Run],
    tiny: dict[str, Any],
    reference: Callable[..., Tensor],
    monkeypatch: pytest.MonkeyPatch,
    killed_at: int,
    before: int,
    after: int,
) -> None:
    run = start(tiny)
    original = heartbeat.Heartbeat.on_step

    def report(self: Any, step: int, losses: dict[int, float]) -> None:
        original(self, step, losses)
        if step == killed_at and self._shard == 0:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(heartbeat.Heartbeat, "on_step", report)
        with pytest.raises(Killed):
            run_pipelined(run, before, 1)
    assert not own_threads()
    run_pipelined(run, after, 1)
    assert torch.equal(final_images(run), reference(tiny))


def test_a_slow_worker_delays_the_others_and_changes_no_bit(
    start: Callable[..., Run], tiny: dict[str, Any], reference: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue drops networks that the slowest worker has passed."""
    original = heartbeat.Heartbeat.on_step
    steps: dict[int, int] = {0: -1, 1: -1}

    def report(self: Any, step: int, losses: dict[int, float]) -> None:
        original(self, step, losses)
        steps[self._shard] = step
        if self._shard == 1:
            time.sleep(0.1)

    monkeypatch.setattr(heartbeat.Heartbeat, "on_step", report)
    monkeypatch.setattr("dream_ray.engine.prefetch.threads.window_of", lambda run, num_producers: 2)
    run = start(tiny)
    run_pipelined(run, 2, 1)
    assert steps == {0: 7, 1: 7}
    assert torch.equal(final_images(run), reference(tiny))


def test_all_selections_but_the_first_are_prefetched(
    start: Callable[..., Run], tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int, bool]] = []
    original = ClassSelector.select

    def spy(self: ClassSelector, snapshot: Snapshot, labels: Any, previous: Any) -> Any:
        ahead = threading.current_thread().name.startswith("prefetch-selection")
        seen.append((snapshot.outer, snapshot.inner, ahead))
        return original(self, snapshot, labels, previous)

    monkeypatch.setattr(ClassSelector, "select", spy)
    run_pipelined(start({**tiny, "selection": {**tiny["selection"], "interval": 3}}), 1, 1)
    assert seen[::NUM_CLASSES] == [(0, 0, False), (0, 3, True), (1, 0, True), (1, 3, True)]


def test_an_unneeded_selection_stops_between_two_classes(tiny: dict[str, Any]) -> None:
    """After Ctrl-C, a selection of all classes may take minutes."""
    begun, seen = threading.Event(), []

    def select(snapshot: Any, group: Any, previous: Any) -> Any:
        seen.extend(group)
        if threading.current_thread().name.startswith("prefetch-selection"):
            begun.set()
            time.sleep(0.02)
        return [SimpleNamespace(assignment_N=None)] * len(group)

    labels = range(200)
    selector: Any = SimpleNamespace(real=labels, form=EAGER, select=select)
    selector.select_all = partial(ClassSelector.select_all, selector)
    source: Any = SimpleNamespace(try_get=lambda outer, inner: SimpleNamespace(outer=outer, inner=inner))
    with prefetch_selection(parse_config(tiny), selector, source) as choose:
        choose(source.try_get(0, 0), dict.fromkeys(labels))
        assert begun.wait(60)
    assert len(labels) < len(seen) < 2 * len(labels)


def test_an_unneeded_warm_up_stops_between_two_batches(
    start: Callable[..., Run], tiny: dict[str, Any], training: list[int]
) -> None:
    """After Ctrl-C, the run waits for producers in threads."""
    run = start({**tiny, "initialisation": {"warmup_epochs": 1000}})
    with producing_threads(run, 1) as queue:
        LocalConsumerSide(queue, 0, 1).begin(0, None)
        while not training:
            time.sleep(0.01)
    assert len(training) < 1000
    assert not own_threads()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_producer_that_fails_ends_the_run_with_its_reason(
    start: Callable[..., Run], tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise ZeroDivisionError("in the middle of training")

    monkeypatch.setattr(sources, "train_pass", fail)
    with pytest.raises(RunError, match=r"a producer failed: ZeroDivisionError.*in the middle"):
        run_pipelined(start(tiny), 1, 1)
    assert not own_threads()


def test_only_networks_at_restart_points_include_the_momentum(start: Callable[..., Run], tiny: dict[str, Any]) -> None:
    run = start({**tiny, "checkpoint_every": 3})
    with producing_threads(run, 1) as queue:
        networks = LocalConsumerSide(queue, 0, 1)
        networks.begin(0, None)
        whole = [any("momentum" in name for name in networks.get(step)) for step in range(8)]
    assert whole == [step % 3 == 0 for step in range(8)]


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for every pass of training."""
    passes: list[int] = []
    original = sources.train_pass

    def counted(*args: Any) -> None:
        passes.append(1)
        original(*args)

    monkeypatch.setattr(sources, "train_pass", counted)
    return passes


def cached(start: Callable[..., Run], settings: dict[str, Any], name: str, cache: Path, size: int = 10**9) -> Run:
    return start(settings, name, snapshot_cache=str(cache), snapshot_cache_bytes=size)


@pytest.mark.parametrize("source", SOURCES)
def test_a_second_run_trains_no_network(
    start: Callable[..., Run],
    tiny: dict[str, Any],
    reference: Callable[..., Tensor],
    tmp_path: Path,
    training: list[int],
    source: str,
) -> None:
    """Another weight and another number of clusters need the same networks."""
    # Where networks are trained, the initialisation looks through one of them; else it would train one of its own.
    settings = {**tiny, "source": SOURCES[source], "initialisation": {"strategy": "random"}}
    first = cached(start, settings, "first", tmp_path / "cache")
    run_pipelined(first, 2, 1)
    assert torch.equal(final_images(first), reference(settings))
    other = {**settings, "weights": {"feature": 0.5}, "selection": {"num_clusters": 4, "interval": 2}}
    expected = reference(other)
    training.clear()
    second = cached(start, other, "second", tmp_path / "cache")
    work(second.path, range(NUM_CLASSES), shard=0, num_shards=1)
    assert not training
    assert torch.equal(final_images(second), expected)


def test_a_member_of_a_pool_is_warmed_up_by_one_process(
    start: Callable[..., Run], tiny: dict[str, Any], tmp_path: Path, training: list[int]
) -> None:
    """Two producers, or a resumed run, start several trajectories from it."""
    settings = {**tiny, "source": {"kind": "pool", "pool_size": 1}, "update": {**tiny["update"], "warmup_epochs": 3}}

    def states(run: Run, sources: list[NetworkSource]) -> list[NetworkState]:
        return [snapshot.state() for outer in range(2) for snapshot in sources[outer].trajectory(outer)]

    plain = start(settings, "plain")
    expected = states(plain, [trained_networks(plain, plain.open_store())] * 2)
    passes = len(training)
    training.clear()
    run = cached(start, settings, "cached", tmp_path / "cache")
    found = states(run, [trained_networks(run, run.open_store()) for _ in range(2)])
    assert len(training) == passes == 3 + 2 * 3
    for state, other in zip(found, expected, strict=True):
        assert state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


def test_networks_of_other_settings_are_not_reused(
    start: Callable[..., Run], tiny: dict[str, Any], reference: Callable[..., Tensor], tmp_path: Path
) -> None:
    work(cached(start, tiny, "first", tmp_path / "cache").path, range(NUM_CLASSES), shard=0, num_shards=1)
    for number, other in enumerate(
        ({"seed": 1}, {"update": {**tiny["update"], "lr": 0.02}}, {"initialisation": {"warmup_epochs": 2}})
    ):
        run = cached(start, {**tiny, **other}, f"other-{number}", tmp_path / "cache")
        work(run.path, range(NUM_CLASSES), shard=0, num_shards=1)
        assert torch.equal(final_images(run), reference({**tiny, **other}))


@pytest.mark.parametrize("damage", ["missing", "torn", "without momentum"])
def test_missing_snapshots_of_a_cache_are_trained(
    start: Callable[..., Run],
    tiny: dict[str, Any],
    reference: Callable[..., Tensor],
    tmp_path: Path,
    training: list[int],
    damage: str,
) -> None:
    """The second run saves more often, so it needs the momentum of networks that were kept without."""
    cache = tmp_path / "cache"
    settings = {**tiny, "checkpoint_every": 4}
    work(cached(start, settings, "first", cache).path, range(NUM_CLASSES), shard=0, num_shards=1)
    files = sorted(cache.rglob("*.safetensors"))
    assert len(files) == 8
    if damage == "missing":
        files[6].unlink()
    elif damage == "torn":
        files[6].write_bytes(files[6].read_bytes()[:-9])
    else:
        settings = tiny
    expected = reference(settings)
    training.clear()
    run = cached(start, settings, "second", cache)
    work(run.path, range(NUM_CLASSES), shard=0, num_shards=1)
    assert torch.equal(final_images(run), expected)
    assert training
    training.clear()
    again = cached(start, settings, "third", cache)
    work(again.path, range(NUM_CLASSES), shard=0, num_shards=1)
    assert not training, "the second run trained the missing ones"


def test_a_cache_stays_within_its_size(start: Callable[..., Run], tiny: dict[str, Any], tmp_path: Path) -> None:
    cache, limit = tmp_path / "cache", 38_000
    settings = {**tiny, "outer_steps": 6, "selection": {"num_clusters": 4, "strategy": "random"}}
    work(cached(start, settings, "first", cache, limit).path, range(NUM_CLASSES), shard=0, num_shards=1)
    sizes = [path.stat().st_size for path in cache.rglob("*.safetensors")]
    assert limit // 2 < sum(sizes) <= limit
    assert 24 * max(sizes) > limit, "the cache is too small for all of them"
    with pytest.raises(UsageError, match=r"snapshot-cache-size must hold at least one trajectory .* GB.; got 1e-06 GB"):
        work(cached(start, tiny, "second", tmp_path / "tiny", 1000).path, range(NUM_CLASSES), shard=0, num_shards=1)


def test_a_cache_at_an_unknown_kind_of_path_is_refused(start: Callable[..., Run], tiny: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="path tape://cache is of a kind that pyarrow cannot open"):
        work(
            start(tiny, snapshot_cache="tape://cache", snapshot_cache_bytes=1).path,
            range(NUM_CLASSES),
            shard=0,
            num_shards=1,
        )


def test_two_runs_fill_a_cache_at_the_same_time(
    start: Callable[..., Run], tiny: dict[str, Any], reference: Callable[..., Tensor], tmp_path: Path
) -> None:
    runs = [cached(start, tiny, name, tmp_path / "cache") for name in ("a", "b")]
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work, run.path, range(NUM_CLASSES), shard=0, num_shards=1) for run in runs]:
            done.result()
    assert all(torch.equal(final_images(run), reference(tiny)) for run in runs)
    assert not [name for name in storage.list_files(str(tmp_path / "cache")) if name.endswith(".partial")]
