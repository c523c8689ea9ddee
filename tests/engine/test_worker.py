"""Runs without Ray: the same synthetic set on any number of workers and after any interruption."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dream_ray import storage
from dream_ray.config import Config, parse_config
from dream_ray.core.placement import place_classes
from dream_ray.engine.progress import heartbeat
from dream_ray.engine.run.directory import Run, read_sessions
from dream_ray.engine.run.environment import NUMERICS, total_cost
from dream_ray.engine.run.lifecycle import finish_run
from dream_ray.engine.stopping import Stopped
from dream_ray.errors import RunError
from tests.runs import Killed, create_run, final_images, kill_at, run_all, work

CPU = torch.device("cpu")
NUM_CLASSES = 4
GOLDEN = Path(__file__).parent / "golden_losses.json"


@pytest.fixture
def start(four_digits_store: str, tmp_path: Path) -> Callable[..., Run]:
    def make(config: Config, name: str = "run") -> Run:
        return create_run(str(tmp_path / name), config, four_digits_store, device=CPU, threads=1)

    return make


VARIANTS: dict[str, dict[str, Any]] = {
    "representative": {},
    "random": {"selection": {"num_clusters": 6, "strategy": "random"}, "initialisation": {"strategy": "random"}},
    "stratified, in chunks": {
        "selection": {"num_clusters": 6, "strategy": "stratified", "interval": 2},
        "matching": {"real_chunk": 4},
    },
    "noise, multi, sampled": {"decode": "multi", "batch_synthetic_max": 3, "initialisation": {"strategy": "noise"}},
    "batch norm": {"network": {"name": "resnet10", "options": {"width": 0.0625}}},
}


@pytest.mark.parametrize("num_shards", [2, 3, NUM_CLASSES])
def test_the_number_of_workers_does_not_change_a_bit(
    start: Callable[..., Run], tiny: dict[str, Any], reference: Callable[..., Tensor], num_shards: int
) -> None:
    run = start(parse_config(tiny))
    run_all(run, num_shards)
    assert torch.equal(final_images(run), reference(tiny))


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_workers_equal_one_in_every_variant(
    start: Callable[..., Run], tiny: dict[str, Any], reference: Callable[..., Tensor], variant: str
) -> None:
    settings = {**tiny, **VARIANTS[variant]}
    run = start(parse_config(settings))
    run_all(run, 2)
    assert torch.equal(final_images(run), reference(settings))


@pytest.mark.parametrize(
    ("killed_at", "before", "after"), [(0, 1, 2), (1, 1, 1), (2, 2, 1), (3, 3, 2), (5, 1, 3), (7, 2, 2)]
)
def test_a_killed_run_resumes_to_the_same_file(
    start: Callable[..., Run],
    tiny: dict[str, Any],
    reference_run: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    killed_at: int,
    before: int,
    after: int,
) -> None:
    """The last worker dies within a step; others may be ahead of it. The resumed run costs more."""
    run = start(parse_config(tiny))
    placement = place_classes([1.0] * NUM_CLASSES, before)
    for shard in range(before - 1):
        work(run.path, placement[shard], shard=shard, num_shards=before)
    with monkeypatch.context() as patch:
        patch.setattr(heartbeat.Heartbeat, "on_step", kill_at(killed_at))
        with pytest.raises(Killed):
            work(run.path, placement[-1], shard=before - 1, num_shards=before)
    run_all(run, after)
    finish_run(run)
    uninterrupted = reference_run(tiny)
    assert storage.read_bytes(run.set_file) == storage.read_bytes(uninterrupted.set_file)
    assert len(read_sessions(run)) > len(read_sessions(uninterrupted))


def test_resume_skips_a_damaged_checkpoint(
    start: Callable[..., Run],
    tiny: dict[str, Any],
    reference: Callable[..., Tensor],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = start(parse_config(tiny))
    with monkeypatch.context() as patch:
        patch.setattr(heartbeat.Heartbeat, "on_step", kill_at(5))
        with pytest.raises(Killed):
            run_all(run, 1)
    checkpoints = run.checkpoints()
    newest = checkpoints.complete_steps()[-1]
    directory = run.file("checkpoints", f"step-{newest:08d}")
    shard = next(name for name in storage.list_directory(directory) if name.startswith("shard-"))
    whole = storage.read_bytes(storage.join(directory, shard))
    storage.write_bytes(storage.join(directory, shard), whole[:-40])
    run_all(run, 1)
    assert f"checkpoint of step {newest}" in caplog.text
    assert torch.equal(final_images(run), reference(tiny))


def test_losses_are_golden(tiny_config: Config, digits_store: str, out: str) -> None:
    """A deliberate change of the numerics re-records golden_losses.json in the same commit and gives the reason."""
    run = create_run(out, tiny_config, digits_store, device=CPU, threads=1)
    work(run.path, range(10), shard=0, num_shards=1)
    finish_run(run)
    rows = [json.loads(line) for line in storage.read_text(run.file("metrics.jsonl")).splitlines()]
    golden = json.loads(GOLDEN.read_text())
    assert [row["step"] for row in rows] == list(range(8))
    # Losses are sums of squares over all parameters: rounding differs a little between CPU types.
    assert [row["loss"] for row in rows] == pytest.approx(golden, rel=1e-3)


def test_numerics_are_those_of_the_golden_losses() -> None:
    """Results of other numerics are never mixed: whoever re-records golden losses gives the numerics a new name."""
    files = [GOLDEN.with_name(name) for name in ("golden_framework_losses.json", "golden_losses.json")]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    assert digest == NUMERICS, f"set NUMERICS of dream_ray/engine/run/environment.py to {digest}"


def test_checkpoints_of_a_curve_are_kept(start: Callable[..., Run], tiny: dict[str, Any]) -> None:
    run = start(parse_config({**tiny, "outer_steps": 3, "checkpoint_keep_every": 4}))
    run_all(run, 2)
    assert run.checkpoints().complete_steps() == [0, 4, 8, 10, 12]


def test_the_time_of_a_step_leaves_out_checkpoints_and_what_follows_them(
    start: Callable[..., Run], tiny_config: Config
) -> None:
    run, slow = start(tiny_config), 0.2

    def compute(step: int) -> None:
        until = time.process_time() + slow
        while time.process_time() < until:
            pass

    work(run.path, range(NUM_CLASSES), on_checkpoint=compute)
    finish_run(run)
    rows = [json.loads(line) for line in storage.read_text(run.file("metrics.jsonl")).splitlines()]
    total = total_cost(read_sessions(run))
    assert total["cpu_s"] - sum(row["cpu_s"] for row in rows) > 4 * slow, "four checkpoints lie before a step"
    assert all(row["cpu_s"] > 0 for row in rows)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoints(
    start: Callable[..., Run], tiny: dict[str, Any]
) -> None:
    run = start(parse_config({**tiny, "pixels": {"lr": 1e30}}))
    with pytest.raises(RunError, match=r"loss must be finite; got (nan|inf) for class \d+ at step \d+ .*pixels\.lr"):
        run_all(run, 1)
    found = run.checkpoints().latest()
    assert found is not None
    assert all(torch.isfinite(state.images_NCHW).all() for state in found[1].classes.values())


def test_a_worker_stops_after_a_checkpoint_when_asked(start: Callable[..., Run], tiny_config: Config) -> None:
    run = start(tiny_config)
    with pytest.raises(Stopped):
        work(run.path, range(NUM_CLASSES), shard=0, num_shards=1, should_stop=lambda: True)
    assert run.checkpoints().complete_steps() == [0]


def test_metrics_count_every_step_once_after_a_crash(
    start: Callable[..., Run], tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(parse_config(tiny))
    original = heartbeat.Heartbeat.on_step

    def report(self: Any, step: int, losses: dict[int, float]) -> None:
        original(self, step, losses)
        if step == 5:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(heartbeat.Heartbeat, "on_step", report)
        with pytest.raises(Killed):
            run_all(run, 2)
    run_all(run, 3)
    finish_run(run)
    rows = [json.loads(line) for line in storage.read_text(run.file("metrics.jsonl")).splitlines()]
    assert [row["step"] for row in rows] == list(range(8))
    assert all(list(row["losses"]) == [str(label) for label in range(NUM_CLASSES)] for row in rows)


def test_a_full_disk_keeps_earlier_checkpoints(
    start: Callable[..., Run], tiny: dict[str, Any], reference: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(parse_config(tiny))
    original = storage.write_bytes

    def full(path: str, data: bytes) -> None:
        if "step-00000004" in path:
            raise RunError(f"cannot write {path}: No space left on device")
        original(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_bytes", full)
        with pytest.raises(RunError, match="No space left"):
            run_all(run, 1)
    assert run.checkpoints().complete_steps() == [0, 2]
    run_all(run, 2)
    assert torch.equal(final_images(run), reference(tiny))
