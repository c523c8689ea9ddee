"""Settings that fit a budget of memory: the order of the candidates, and the use of the rest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dream_ray.config import Config, parse_config
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.data.store.store import Store
from dream_ray.engine.backend import Producers
from dream_ray.engine.networks import device_images
from dream_ray.engine.networks.program_form import ProgramForm
from dream_ray.engine.planning import plan
from dream_ray.engine.planning.measuring.steps import CONTEXT_BYTES
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

    def measure(
        spec: RunSpec, form: ProgramForm, store: Store, producers: Producers, device: torch.device, free_bytes: int
    ) -> MemoryPlan:
        config = spec.config
        tried.append(config)
        step = 1000 * config.selection.embedding_batch + 2000 * min(config.batch_synthetic_max, 32)
        gpu, producer_gpu = (10 * step, 300_000) if device.type == "cuda" else (0, 0)
        return MemoryPlan(
            step=step, gpu=gpu, features=0, synthetic=0, writing=0, resident=0, decoding=0, pool=0, ray=0, mapped=0,
            workers=spec.workers, producer=PRODUCER, producers=producers.count, ahead=0, producer_gpu=producer_gpu,
            workers_per_gpu=1, producers_per_gpu=producers.count, free_gpu=free_bytes,
        )  # fmt: skip

    monkeypatch.setattr(plan, "_measure", measure)
    return tried


@pytest.fixture
def fit(digits_store: str, tiny: dict[str, Any], attempts: list[Config]) -> Callable[..., Fitted]:
    def run(budget: int | None, store: str = digits_store, device: str = "cpu") -> Fitted:
        config = parse_config({**tiny, "ipc": 8, "factor": 2, "data": {"resident_mb": 7}})
        spec = RunSpec(config=config, store=store, out=None, workers=WORKERS, memory_bytes=budget)
        return fit_memory(spec, Producers(PRODUCERS), torch.device(device))

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
        UsageError, match=r"memory must be at least 0\.00 GB, for 2 workers .* 1 producer .*_max 8; got"
    ):
        fit(2 * 24_000 + PRODUCER - 1)


@pytest.fixture
def gpu_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the free memory of the GPU, in bytes, without a process that asks for it."""

    def set_free(num_bytes: int) -> None:
        answers = {"free_gpu_bytes": num_bytes}
        monkeypatch.setattr(plan, "in_new_process", lambda function, device: answers[function.__name__])

    return set_free


OF_64 = 10 * 128_000 + 300_000 + 2 * CONTEXT_BYTES
"""Bytes on the GPU of a worker that embeds 64 images at a time, and of a producer beside it."""


def test_the_free_memory_of_the_gpu_must_suffice_for_all_processes_on_it(
    fit: Callable[..., Fitted], gpu_of: Callable[[int], None]
) -> None:
    gpu_of(OF_64)
    assert fit(10**9, device="cuda")[0].config.selection.embedding_batch == 64, "128 images take 1.92 MB on the GPU"
    assert fit(10**9)[0].config.selection.embedding_batch == 128
    gpu_of(OF_64 - 1)
    assert fit(10**9, device="cuda")[0].config.selection.embedding_batch == 32
    gpu_of(900_000_000)
    with pytest.raises(
        UsageError,
        match=r"a GPU must have at least 1\.00 GB free, for 1 worker of 0\.50 GB and 1 producer of 0\.50 GB, with .*"
        r"_max 8; got 1\.00 GB and a GPU with 0\.90 GB free",
    ):
        fit(10**9, device="cuda")


def test_without_a_budget_the_plan_says_whether_the_gpu_is_too_small(
    fit: Callable[..., Fitted], gpu_of: Callable[[int], None]
) -> None:
    gpu_of(2 * 10**9)
    assert fit(None, device="cuda")[1].fits_gpu
    gpu_of(900_000_000)
    spec, memory = fit(None, device="cuda")
    assert spec.config.selection.embedding_batch == 128
    assert not memory.fits_gpu and memory.gpu_rule == (
        "a GPU must have at least 1.00 GB free, for 1 worker of 0.50 GB and 1 producer of 0.50 GB"
    )


def test_candidates_that_run_out_of_memory_do_not_fit(
    fit: Callable[..., Fitted], gpu_of: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    formula, most = plan._measure, 32

    def measure(spec: RunSpec, *how: Any) -> MemoryPlan:
        if spec.config.selection.embedding_batch > most:
            raise out_of_memory("CUDA out of memory. {Tried}")
        return formula(spec, *how)

    monkeypatch.setattr(plan, "_measure", measure)
    assert fit(10**9)[0].config.selection.embedding_batch == 32
    gpu_of(8 * 10**9)
    assert fit(10**9, device="cuda")[0].config.selection.embedding_batch == 32
    with pytest.raises(UsageError, match="memory must be at least"):
        fit(1000)
    with pytest.raises(OutOfMemory):
        fit(None)
    most = 0
    with pytest.raises(
        UsageError,
        match=r"memory must be enough to run the steps once, with class-batch 1, selection\.embedding_batch 8 and "
        r"batch_synthetic_max 8; got 1\.00 GB and a GPU with 8\.00 GB free, and memory does not suffice \(CUDA out of "
        r"memory\. \{Tried\}\)",
    ):
        fit(10**9, device="cuda")


def test_spare_memory_holds_decoded_images(fit: Callable[..., Fitted], tmp_path: Path, monkeypatch: Any) -> None:
    path = str(tmp_path / "jpeg")
    ingest(IngestSettings(source="digits", encoding="jpeg"), path)
    for module in (plan, device_images):
        monkeypatch.setattr(module, "MEGABYTE", 10_000)
    some, memory = fit(2 * (192_000 + 35_000) + PRODUCER, path)
    assert some.config.data.resident_mb == 3 and memory.resident == 30_000
    plenty, memory = fit(10**9, path)
    all_images = memory.resident
    assert 5 * 140 * 64 < all_images < 5 * 150 * 64, "five classes of 144 images of 64 pixels, about"
    assert plenty.config.data.resident_mb == -(-all_images // 10_000)
