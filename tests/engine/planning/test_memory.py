"""The memory plan against the memory of real runs."""

import gc
import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from dream_ray import api
from dream_ray.config import Config, parse_config
from dream_ray.core.images.normalisation import Normalisation
from dream_ray.data.store.images import ImageChunks
from dream_ray.data.store.parallel_reading import TASK_BYTES
from dream_ray.data.store.store import Store
from dream_ray.engine import distill
from dream_ray.engine.backend import Producers
from dream_ray.engine.matching.from_config import class_matcher
from dream_ray.engine.planning.measuring.steps import CONTEXT_BYTES, StepMemory
from dream_ray.engine.planning.memory import (
    RAY_BYTES,
    largest_share_bytes,
    plan_memory,
    planned_residents,
    processes_per_gpu,
)
from dream_ray.engine.planning.plan import fit_memory
from dream_ray.engine.run.checkpoint import Checkpoints
from dream_ray.engine.run.spec import RunSpec
from tests.conftest import TINY

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ON_CPU: dict[str, Any] = {"threads": 3, "per_gpu": (1, 0), "free_gpu": 0, "device": CPU}
MEASURED = StepMemory(10**9, 10**8, 0, 0, snapshot_bytes=1000, num_features=16)


@pytest.fixture(scope="module")
def config() -> Config:
    return parse_config({**TINY, "ipc": 2, "data": {"resident_mb": 1}})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "producers"), [({}, 1), ({"ipc": 4, "network": {"name": "convnet", "options": {"width": 96}}}, 0)]
)
def test_a_run_stays_within_the_plan(
    tiny: dict[str, Any], digits_store: str, tmp_path: Path, change: dict[str, Any], producers: int
) -> None:
    settings = {**tiny, **change}
    spec = RunSpec(config=parse_config(settings), store=digits_store, out=None, compile="off", local=True)
    _, plan = fit_memory(spec, Producers(producers), CPU)
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "dream_ray", "distill", "--config", str(tmp_path / "settings.yaml"), "--local"]
    command += ["--producers", str(producers), "--store", digits_store, "--out", str(tmp_path / "run")]
    subprocess.run(command, check=True, capture_output=True)
    used = json.loads((tmp_path / "run" / "cost.json").read_text())["peak_rss_bytes"]
    assert used <= plan.total + plan.mapped
    assert used > plan.total / 2, "the plan is of use"


def test_the_peak_memory_excludes_the_parent_process() -> None:
    child = "from dream_ray.engine.run.environment import peak_rss_bytes; print(peak_rss_bytes())"
    parent = (
        f"held = b'1' * 10**9; import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    )
    done = subprocess.run([sys.executable, "-c", parent], check=True, capture_output=True, text=True)
    assert 5e7 < int(done.stdout) < 9e8


def test_parts_of_the_plan(config: Config, digits_store: str) -> None:
    store = Store.open(digits_store)
    plan = plan_memory(config, store, MEASURED, workers=4, producers=0, ahead=3, ray=True, **ON_CPU)
    assert plan.ray == RAY_BYTES and plan.gpu == 0
    assert plan.ahead == 3 * MEASURED.snapshot_bytes and plan.all_processes == 4 * plan.total + plan.ahead
    assert plan.synthetic == 3 * 2 * 64 * 6 * 4, "three classes, two images of 64 pixels, six times float32"
    per_class = [sum(store.count(split, label) for split in config.splits) for label in range(10)]
    assert plan.resident <= 3 * max(per_class) * 64 and plan.features > max(per_class) * 4
    assert plan.total == plan.step + plan.features + plan.synthetic + plan.writing + plan.resident + plan.ray
    assert plan.pool == 0 and plan.decoding == 0, "a raw store needs no decoding"


def test_a_batch_of_an_encoded_store_is_decoded_ahead(config: Config, digits_store: str) -> None:
    store = Store.open(digits_store)
    encoded = Store(store.path, replace(store.manifest, encoding="jpeg"))
    raw, jpeg = (
        plan_memory(config, one, MEASURED, workers=1, producers=1, ahead=0, ray=False, **ON_CPU)
        for one in (store, encoded)
    )
    embedding, training = (
        64 * size + 3 * 4 * TASK_BYTES for size in (config.selection.embedding_batch, config.update.batch_size)
    )
    assert jpeg.decoding == jpeg.total - raw.total == embedding + training
    assert jpeg.producer - raw.producer == training


def test_tensors_of_the_steps_are_in_the_memory_of_the_device(tiny: dict[str, Any], digits_store: str) -> None:
    config = parse_config({**tiny, "ipc": 50, "source": {"kind": "pool", "pool_size": 8}, "data": {"resident_mb": 0}})
    on_cpu, on_gpu = (
        plan_memory(
            config,
            Store.open(digits_store),
            StepMemory(10**9, 10**8, gpu_bytes, gpu_bytes // 2, 10**6, 16),
            threads=1,
            workers=4,
            producers=1,
            ahead=0,
            ray=False,
            per_gpu=(2, 1),
            free_gpu=3 * gpu_bytes,
            device=device,
        )
        for device, gpu_bytes in ((CPU, 0), (CUDA, 2 * 10**9))
    )
    state = 3 * 50 * 64 * 2 * 4  # three classes, images and velocities
    assert on_gpu.features == on_cpu.features > 0
    beside = on_cpu.features + 3 * state + 2 * 8 * 10**6
    assert on_gpu.worker_on_gpu == 2 * 10**9 + beside + CONTEXT_BYTES
    assert on_gpu.producer_on_gpu == 10**9 + 2 * 8 * 10**6 + CONTEXT_BYTES
    assert on_gpu.on_gpu == 2 * on_gpu.worker_on_gpu + on_gpu.producer_on_gpu and on_cpu.on_gpu == 0
    assert on_cpu.fits_gpu and not on_gpu.fits_gpu and replace(on_gpu, free_gpu=on_gpu.on_gpu).fits_gpu
    assert on_cpu.total == 1.6e9 + beside + 2 * state, "a checkpoint that is written is in memory twice more"
    assert on_gpu.total == 1.6e9 + 3 * state, "and once more where it comes from a GPU"
    assert on_gpu.producer == 1.6e8 and on_cpu.producer == 1.6e8 + 2 * 8 * 10**6


@pytest.mark.parametrize("memory_bytes", [10**9, 100_000])
def test_a_gpu_keeps_the_real_images_of_a_worker_and_of_training_if_they_fit(
    tiny: dict[str, Any], digits_store: str, monkeypatch: pytest.MonkeyPatch, memory_bytes: int
) -> None:
    gpu = SimpleNamespace(total_memory=memory_bytes)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    config, store = parse_config(tiny), Store.open(digits_store)
    share, everything = (largest_share_bytes(config, store, workers) for workers in (4, 1))
    expected = share + everything if memory_bytes == 10**9 else memory_bytes // 8
    assert planned_residents(config, store, 4, CUDA) == expected
    assert planned_residents(config, store, 4, CPU) == 0


@pytest.mark.parametrize(
    ("gpus_per_worker", "workers", "producers", "reserve", "local", "per_gpu"),
    [
        (None, 4, 0, False, False, (1, 0)),
        (1, 4, 4, True, False, (1, 0)),
        (1, 4, 2, False, False, (1, 1)),
        (1, 4, 9, False, False, (1, 3)),
        (0.5, 4, 5, False, False, (2, 3)),
        (2, 4, 2, True, False, (1, 0)),
        (0.5, 4, 0, False, False, (2, 0)),
        (0.5, 1, 1, True, False, (1, 1)),
        (0.3, 4, 4, True, False, (3, 0)),
        (0.25, 2, 3, True, False, (2, 2)),
        (0, 3, 2, False, False, (3, 2)),
        (None, 3, 0, False, True, (3, 0)),
    ],
)
def test_processes_that_share_a_gpu(
    gpus_per_worker: float | None, workers: int, producers: int, reserve: bool, local: bool, per_gpu: tuple[int, int]
) -> None:
    assert per_gpu == processes_per_gpu(
        workers=workers, gpus_per_worker=gpus_per_worker, producers=producers, reserve=reserve, local=local
    )


def test_a_run_holds_as_many_copies_of_the_synthetic_images_as_planned(
    tiny: dict[str, Any], four_digits_store: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a checkpoint is written, the run continues and keeps the state before its step."""
    ipc, most, done = 7, 0, threading.Event()
    save, state_after = Checkpoints.save, distill._state_after

    def slowly(self: Any, *what: Any, **how: Any) -> None:
        save(self, *what, **how)
        done.wait(60)

    def counting(config: Config, state: Any, step: int) -> list[Any]:
        nonlocal most
        held = (found for found in gc.get_objects() if type(found) is torch.Tensor and found.shape == (ipc, 1, 8, 8))
        most = max(most, len({found.data_ptr() for found in held}))
        if step == 2:  # the one before step 0 is written until now, the next one waits for it
            done.set()
        return state_after(config, state, step)

    monkeypatch.setattr(Checkpoints, "save", slowly)
    monkeypatch.setattr(distill, "_state_after", counting)
    config = parse_config({**tiny, "ipc": ipc, "factor": 1, "checkpoint_every": 4, "batch_synthetic_max": 5})
    api.distill(config, store=four_digits_store, out=out, local=True, producers=0)
    assert most == 4 * 2 * 3, "four classes, images and velocities"


def test_images_are_kept_in_memory_up_to_a_limit(
    tiny: dict[str, Any], digits_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    resident = ImageChunks.resident
    monkeypatch.setattr(ImageChunks, "resident", lambda images: kept.append(images.nbytes) or resident(images))
    store = Store.open(digits_store)
    normalisation = Normalisation.of(store.manifest.mean, store.manifest.std, CPU)
    mapped = class_matcher(parse_config(tiny), store, range(10), normalisation).selector.real
    assert not kept
    monkeypatch.setattr("dream_ray.engine.networks.device_images.MEGABYTE", 10_000)
    config = parse_config({**tiny, "data": {"resident_mb": 3}})
    real = class_matcher(config, store, range(10), normalisation).selector.real
    assert len(kept) == 3 and sum(kept) <= 30_000
    rows = np.arange(5)
    assert all(np.array_equal(real[label].take(rows), mapped[label].take(rows)) for label in range(10))
