"""A cache that several processes fill at the same time: each network is trained once, and no wait is endless."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dream_ray import storage
from dream_ray.engine.networks import snapshot_cache as module
from dream_ray.engine.networks.snapshot_cache import CachedNetworks, open_snapshot_cache
from dream_ray.engine.networks.sources import NetworkState, Snapshot
from dream_ray.engine.networks.update_program import Recipe
from dream_ray.nets import Classifier

STEPS = 5
RECIPE = Recipe(batch_size=1, lr=1.0, momentum=0.9, weight_decay=0.0, cutmix_probability=0.0, augmentation="")


def line() -> Classifier:
    return Classifier(torch.nn.Identity(), torch.nn.Linear(1, 1))


class Counting:
    """A source whose network (t, j) has the weight 10 t + j; counts what it trains."""

    def __init__(self) -> None:
        self.trained: list[tuple[int, int]] = []

    def trajectory(self, outer: int, start: int = 0, state: NetworkState | None = None) -> Iterator[Snapshot]:
        network = line()
        for inner in range(start, STEPS):
            self.trained.append((outer, inner))
            with torch.no_grad():
                network.head.weight.fill_(10 * outer + inner)
            yield Snapshot(outer, inner, network, RECIPE.optimizer(network))


def cached(
    source: Counting, directory: Path, restarts: tuple[int, ...] = (0,), max_bytes: int = 10**6
) -> CachedNetworks:
    cache = open_snapshot_cache(str(directory), max_bytes, "same")
    return CachedNetworks(source, cache, line, RECIPE, STEPS, lambda outer, inner: inner in restarts)


def weights(snapshots: Iterator[Snapshot]) -> list[float]:
    return [float(snapshot.network.state_dict()["head.weight"]) for snapshot in snapshots]


def in_thread(networks: CachedNetworks) -> tuple[threading.Thread, list[float]]:
    found: list[float] = []
    thread = threading.Thread(target=lambda: found.extend(weights(networks.trajectory(1))), daemon=True)
    thread.start()
    return thread, found


def test_snapshots_of_another_process_are_read_as_they_are_written(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    training = cached(first, tmp_path).trajectory(1)
    seen = [next(training).inner for _ in range(2)]
    thread, found = in_thread(cached(second, tmp_path))
    thread.join(timeout=0.5)
    assert thread.is_alive(), "it waits for the third"
    seen += [snapshot.inner for snapshot in training]
    thread.join(timeout=30)
    assert seen == list(range(STEPS)) and found == [10, 11, 12, 13, 14]
    assert len(first.trained) == STEPS and not second.trained


def test_training_resumes_after_another_process_ends_early(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    training = cached(first, tmp_path, restarts=(0, 2)).trajectory(1)
    assert [next(training).inner for _ in range(4)] == [0, 1, 2, 3]
    thread, found = in_thread(cached(second, tmp_path, restarts=(0, 2)))
    thread.join(timeout=0.5)
    training.close()  # type: ignore[attr-defined]
    thread.join(timeout=30)
    assert found == [10, 11, 12, 13, 14]
    assert second.trained == [(1, 2), (1, 3), (1, 4)], "from the last restart point"


def test_a_process_without_progress_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.3)
    second = Counting()
    training = cached(Counting(), tmp_path).trajectory(1)
    next(training)
    assert weights(cached(second, tmp_path).trajectory(1)) == [10, 11, 12, 13, 14]
    assert len(second.trained) == STEPS


def test_an_exception_of_check_ends_the_wait(tmp_path: Path) -> None:
    def check() -> None:
        raise InterruptedError

    training = cached(Counting(), tmp_path).trajectory(1)
    next(training)
    waiting = replace(cached(Counting(), tmp_path), check=check).trajectory(1)
    assert next(waiting).inner == 0
    with pytest.raises(InterruptedError):
        next(waiting)


def test_two_writers_stay_within_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    each, most = 272, STEPS + 1
    monkeypatch.setattr(module, "_ROOM_FOR", 1)
    monkeypatch.setattr(module, "_HEADER_BYTES", each // 2 - 4)  # two tensors of four bytes
    theirs, tmp_path = tmp_path / "thesis" / "results.bin", tmp_path / "dream_ray-snapshots"
    theirs.parent.mkdir()
    theirs.write_bytes(bytes(100 * each))
    both = [cached(Counting(), tmp_path.parent, max_bytes=most * each).trajectory(outer) for outer in (1, 2)]
    kept = []
    for _ in zip(*both, strict=True):
        files = storage.list_files(str(tmp_path))
        assert sum(size for _, _, size in storage.file_sizes(str(tmp_path))) == len(files) * each
        kept.append(len(files))
    assert kept == [2, 4, 6, most, most]
    assert theirs.stat().st_size == 100 * each, "other files in the directory stay"


def test_a_claim_is_not_a_listed_file(tmp_path: Path) -> None:
    training = cached(Counting(), tmp_path).trajectory(1)
    next(training)
    assert [name.rpartition("/")[2] for name in storage.list_files(str(tmp_path))] == ["000000.safetensors"]


def test_another_trajectory_is_not_waited_for(tmp_path: Path) -> None:
    second = Counting()
    next(cached(Counting(), tmp_path).trajectory(1))
    assert weights(cached(second, tmp_path).trajectory(2)) == [20, 21, 22, 23, 24]


def test_a_claim_has_one_owner_and_ends_with_its_process(tmp_path: Path) -> None:
    path = str(tmp_path / "deep" / "claim")
    with storage.claimed(path) as mine, storage.claimed(path) as theirs:
        assert mine and not theirs
    with storage.claimed(path) as mine:
        assert mine
    with storage.claimed("s3://bucket/claim") as mine, storage.claimed("s3://bucket/claim") as theirs:
        assert mine and theirs, "a bucket has no claims"
