"""Features that several runs share: computed once, read bit-equal, and never larger than the cache."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dream_ray.config import parse_config
from dream_ray.config.frameworks import overlay
from dream_ray.engine.matching.feature_cache import FeatureCache
from dream_ray.engine.networks import snapshot_cache
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.lifecycle import finish_run
from tests.frameworks import Settings, tiny_run
from tests.runs import create_run, work


class Counting:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Tensor:
        self.calls += 1
        return torch.full((3, 2), 0.1)


def test_features_are_computed_once_for_a_network_and_a_class(tmp_path: Path) -> None:
    compute = Counting()
    first, other = (FeatureCache(str(tmp_path / "cache"), 10**6, str(seed)) for seed in (0, 1))
    for cache, outer, inner, label, calls in [
        (first, 0, 0, 0, 1),
        (first, 0, 0, 0, 1),
        (first, 0, 0, 1, 2),
        (first, 0, 5, 0, 3),
        (first, 1, 0, 0, 4),
        (other, 0, 0, 0, 5),
    ]:
        assert torch.equal(cache.features(outer, inner, label, compute), torch.full((3, 2), 0.1))
        assert compute.calls == calls
    per_class = list((tmp_path / "cache").glob("*/*/*/*"))
    assert per_class and not any(path.is_dir() for path in per_class), "a claim makes no directory"


def test_features_beyond_the_size_are_computed_each_time(tmp_path: Path) -> None:
    compute = Counting()
    cache = FeatureCache(str(tmp_path / "cache"), 200, "")  # less than two files
    for label in (0, 1, 0, 1):
        cache.features(0, 0, label, compute)
    assert compute.calls == 3, "the first is kept, the second never"


def test_a_damaged_file_is_computed_again(tmp_path: Path) -> None:
    compute = Counting()
    cache = FeatureCache(str(tmp_path / "cache"), 10**6, "")
    cache.features(0, 0, 0, compute)
    [file] = (tmp_path / "cache").rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    for _ in range(2):
        cache.features(0, 0, 0, compute)
    assert compute.calls == 2


def test_a_second_process_waits_for_the_first_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_cache, "_PATIENCE_S", 1.0)
    cache = FeatureCache(str(tmp_path / "cache"), 10**6, "")
    at_it, go_on, second = threading.Event(), threading.Event(), Counting()

    def slow() -> Tensor:
        at_it.set()
        go_on.wait(30)
        return torch.zeros(1)

    first = threading.Thread(target=lambda: cache.features(0, 0, 0, slow))
    first.start()
    at_it.wait(30)
    threading.Timer(0.3, go_on.set).start()
    assert torch.equal(cache.features(0, 0, 0, second), torch.zeros(1)) and second.calls == 0
    first.join()
    at_it.clear()
    go_on.clear()
    stuck = threading.Thread(target=lambda: cache.features(0, 0, 1, slow))
    stuck.start()
    at_it.wait(30)
    assert torch.equal(cache.features(0, 0, 1, second), torch.full((3, 2), 0.1)), "the first process makes no progress"
    go_on.set()
    stuck.join()


@pytest.mark.parametrize(
    ("framework", "num_files"),
    [
        ("dream_plus", 2 * 2 * 4),  # two outer steps, two selections each, four classes
        ("dm", 2 * 2 * 4),  # the initialisation's network is none of those, and its features are not kept
        ("dc", 0),  # networks learn from each run's own images
    ],
)
def test_runs_that_share_features_have_the_bits_of_runs_that_do_not(
    framework: str, num_files: int, four_digits_store: str, tmp_path: Path
) -> None:
    settings, cache = tiny_run(framework, "representative"), str(tmp_path / "cache")
    other = overlay(settings, {"pixels": {"lr": 0.5}})

    def images(name: str, settings: Settings, **options: Any) -> Tensor:
        run = create_run(
            str(tmp_path / name),
            parse_config(settings),
            four_digits_store,
            device=torch.device("cpu"),
            threads=1,
            **options,
        )
        work(run.path, range(4), shard=0, num_shards=1)
        finish_run(run)
        return read_synthetic(run.file("synthetic.parquet"))[0].images_LNCHW

    alone = images("alone", settings)
    sharing = {"snapshot_cache": cache, "feature_cache_bytes": 10**8}
    assert not torch.equal(images("other", other, **sharing), alone)
    assert torch.equal(images("second", settings, **sharing), alone)
    assert len(list(Path(f"{cache}-features").rglob("*.safetensors"))) == num_files
