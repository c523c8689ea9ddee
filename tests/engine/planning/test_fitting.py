"""Settings that fit a budget of memory: the order of the candidates, and the use of the rest."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dream_ray.config import Config, parse_config
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.data.store.store import Store
from dream_ray.engine.planning import plan
from dream_ray.engine.planning.memory import MemoryPlan
from dream_ray.engine.planning.plan import fit_memory
from dream_ray.engine.run.process_memory import OutOfMemory, out_of_memory
from dream_ray.engine.run.spec import RunSpec
from dream_ray.errors import UsageError

Fitted = tuple[RunSpec, MemoryPlan]
WORKERS, PRODUCERS = 2, 1
PRODUCER = 50_000


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Replaces the measurement by a formula; returns the candidates that were tried."""
    tried: list[Config] = []

    def measure(spec: RunSpec, store: Store, num_producers: int, device: torch.device) -> Fitted:
        config = spec.config
        tried.append(config)
        step = 1000 * config.selection.embedding_batch + 2000 * min(config.batch_synthetic_max, 32)
        gpu = 10 * step if device.type == "cuda" else 0
        memory = MemoryPlan(step, gpu, 0, 0, 0, 0, 0, 0, 0, spec.workers, PRODUCER, num_producers, 0)
        return spec, memory

    monkeypatch.setattr(plan, "_measure", measure)
    return tried


@pytest.fixture
def fit(digits_store: str, tiny: dict[str, Any], attempts: list[Config]) -> Callable[..., Fitted]:
    def run(budget: int | None, store: str = digits_store, device: str = "cpu") -> Fitted:
        config = parse_config({**tiny, "ipc": 8, "factor": 2, "data": {"resident_mb": 7}})
        spec = RunSpec(config=config, store=store, out=None, workers=WORKERS, memory_bytes=budget)
        return fit_memory(spec, PRODUCERS, torch.device(device))

    return run


def test_without_a_budget_nothing_changes(fit: Callable[..., Fitted]) -> None:
    assert fit(None)[0].config.data.resident_mb == 7


@pytest.mark.parametrize(
    ("worker", "embedding_batch", "synthetic", "num_attempts"),
    [(192_000, 128, 128, 1), (191_999, 64, 128, 2), (72_000, 8, 128, 5), (71_999, 8, 16, 6), (24_000, 8, 8, 7)],
)
def test_the_embedding_batch_shrinks_before_the_synthetic_batch(
    fit: Callable[..., Fitted],
    attempts: list[Config],
    worker: int,
    embedding_batch: int,
    synthetic: int,
    num_attempts: int,
) -> None:
    config = fit(2 * worker + PRODUCER)[0].config
    assert (config.selection.embedding_batch, config.batch_synthetic_max) == (embedding_batch, synthetic)
    assert len(attempts) == num_attempts
    assert config.data.resident_mb == 0, "the files of a raw store are mapped"


def test_too_small_a_budget_is_refused_with_the_numbers(fit: Callable[..., Fitted]) -> None:
    with pytest.raises(
        UsageError, match=r"memory must be at least 0\.00 GB, for 2 workers .* 1 producers .*_max 8; got"
    ):
        fit(2 * 24_000 + PRODUCER - 1)


def test_the_memory_of_the_gpu_must_suffice(fit: Callable[..., Fitted], monkeypatch: pytest.MonkeyPatch) -> None:
    total = 10 * 128_000
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=total))
    assert fit(10**9, device="cuda")[0].config.selection.embedding_batch == 64, "128 images take 1.92 MB on the GPU"
    assert fit(10**9)[0].config.selection.embedding_batch == 128
    total = 1000
    with pytest.raises(
        UsageError, match=r"a worker's GPU must have at least 0\.00 GB.*_max 8; got 1\.00 GB and a GPU of 0\.00 GB"
    ):
        fit(10**9, device="cuda")


def test_candidates_that_run_out_of_memory_do_not_fit(
    fit: Callable[..., Fitted], monkeypatch: pytest.MonkeyPatch
) -> None:
    formula, most = plan._measure, 32

    def measure(spec: RunSpec, *how: Any) -> Fitted:
        if spec.config.selection.embedding_batch > most:
            raise out_of_memory("CUDA out of memory. {Tried}")
        return formula(spec, *how)

    monkeypatch.setattr(plan, "_measure", measure)
    assert fit(10**9)[0].config.selection.embedding_batch == 32
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=8 * 10**9))
    assert fit(10**9, device="cuda")[0].config.selection.embedding_batch == 32
    with pytest.raises(UsageError, match="memory must be at least"):
        fit(1000)
    with pytest.raises(OutOfMemory):
        fit(None)
    most = 0
    with pytest.raises(
        UsageError,
        match=r"memory must be enough to run the steps once, with selection\.embedding_batch 8 and batch_synthetic_max "
        r"8; got 1\.00 GB and a GPU of 8\.00 GB, and memory does not suffice \(CUDA out of memory\. \{Tried\}\)",
    ):
        fit(10**9, device="cuda")


def test_spare_memory_holds_decoded_images(fit: Callable[..., Fitted], tmp_path: Path, monkeypatch: Any) -> None:
    path = str(tmp_path / "jpeg")
    ingest(IngestSettings(source="digits", encoding="jpeg"), path)
    monkeypatch.setattr(plan, "MEGABYTE", 10_000)
    some, memory = fit(2 * (192_000 + 35_000) + PRODUCER, path)
    assert some.config.data.resident_mb == 3 and memory.resident == 30_000
    plenty, memory = fit(10**9, path)
    all_images = memory.resident
    assert 5 * 140 * 64 < all_images < 5 * 150 * 64, "five classes of 144 images of 64 pixels, about"
    assert plenty.config.data.resident_mb == -(-all_images // 10_000)
