"""A trial: its rungs, its resume and its failures."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from dream_ray import storage
from dream_ray.config import Config, parse_config
from dream_ray.engine.local_backend import LocalBackend
from dream_ray.engine.progress.heartbeat import Heartbeat
from dream_ray.engine.run.directory import open_run
from dream_ray.errors import RunError, TransientError, UsageError
from dream_ray.sweeps.directory import cached_failure, is_worth_a_try, read_reason, run_directory
from dream_ray.sweeps.file import parse_sweep
from dream_ray.sweeps.trial import Rung, TrialExecutor, cache_failure, run_trial
from tests.runs import TRIAL_OPTIONS, FailingBackend, create_run

HERE = TrialExecutor(LocalBackend(), TRIAL_OPTIONS)


@pytest.fixture
def config(tiny: dict[str, Any]) -> Config:
    evaluation = {**tiny["evaluation"], "every": 4}
    return parse_config({**tiny, "inner_steps": 5, "data": {"include_validation": False}, "evaluation": evaluation})


def test_rungs_come_in_order_and_the_last_one_is_the_end_of_the_run(
    config: Config, four_digits_store: str, tmp_path: Path
) -> None:
    rungs: list[Rung] = []
    run_trial(str(tmp_path), [config], four_digits_store, HERE, rungs.append)
    assert [rung.number for rung in rungs] == [1, 2, 3], "steps 4, 8 and 10"
    assert all(0 <= rung.accuracy <= 1 and rung.compute_s > 0 for rung in rungs)
    again: list[Rung] = []
    run_trial(str(tmp_path), [config], four_digits_store, HERE, again.append)
    assert [rung.accuracy for rung in again] == [rung.accuracy for rung in rungs], "no step runs again"


def test_a_rung_is_reported_before_the_step_after_its_checkpoint(
    config: Config, four_digits_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it came a checkpoint later, a scheduler would stop trials half a rung late."""
    steps, reported_after = [0], []
    original = Heartbeat.on_step

    def on_step(self: Any, step: int, losses: dict[int, float]) -> None:
        original(self, step, losses)
        steps.append(step + 1)

    monkeypatch.setattr(Heartbeat, "on_step", on_step)
    run_trial(
        str(tmp_path), [config], four_digits_store, HERE, lambda rung: reported_after.append((rung.number, steps[-1]))
    )
    assert reported_after == [(1, 4), (2, 8), (3, 10)]


def test_a_trial_stopped_at_a_rung_resumes_there(config: Config, four_digits_store: str, tmp_path: Path) -> None:
    whole: list[Rung] = []
    run_trial(str(tmp_path / "whole"), [config], four_digits_store, HERE, whole.append)

    class Enough(BaseException):
        pass

    def stop(rung: Rung) -> None:
        raise Enough

    out = str(tmp_path / "stopped")
    with pytest.raises(Enough):
        run_trial(out, [config], four_digits_store, HERE, stop)
    assert not open_run(run_directory(out, config)).is_finished
    rungs: list[Rung] = []
    run_trial(out, [config], four_digits_store, HERE, rungs.append)
    assert [rung.accuracy for rung in rungs] == [rung.accuracy for rung in whole]


def test_the_mean_of_the_seeds_is_the_result(config: Config, digits_store: str, tmp_path: Path) -> None:
    other = config.model_copy(update={"seed": 1})
    rungs: dict[str, list[Rung]] = {"both": [], "first": [], "second": []}
    reported: dict[str, Any] = {}
    backend = LocalBackend(lambda path, rank: lambda progress: reported.update({path: progress}))
    run_trial(str(tmp_path), [config, other], digits_store, TrialExecutor(backend, TRIAL_OPTIONS), rungs["both"].append)
    assert [progress["phase"] for progress in reported.values()] == ["done"] * 2, "each run reports its progress"
    run_trial(str(tmp_path), [config], digits_store, HERE, rungs["first"].append)
    run_trial(str(tmp_path), [other], digits_store, HERE, rungs["second"].append)
    ends = [rungs[name][-1].accuracy for name in ("first", "second")]
    assert rungs["both"][-1].accuracy == pytest.approx(sum(ends) / 2) and ends[0] != ends[1]
    assert [rung.accuracy for rung in rungs["both"][:-1]] == [rung.accuracy for rung in rungs["first"][:-1]]


@pytest.mark.parametrize(
    ("error", "reason"), [(RunError("no"), "no"), (MemoryError("4 GB"), "MemoryError: 4 GB")], ids=["ours", "another"]
)
def test_a_permanent_failure_is_not_tried_twice(
    error: Exception, reason: str, config: Config, four_digits_store: str, tmp_path: Path
) -> None:
    backend = FailingBackend(itertools.repeat(error))
    executor = TrialExecutor(backend, TRIAL_OPTIONS)
    with pytest.raises(type(error)):
        run_trial(str(tmp_path), [config], four_digits_store, executor, lambda rung: None)
    with pytest.raises(RunError, match=reason):
        run_trial(str(tmp_path), [config], four_digits_store, executor, lambda rung: None)
    assert len(backend.tried) == 1 and read_reason(str(tmp_path), [config]) == reason


@pytest.mark.parametrize(
    "error",
    [
        TransientError("the workers died"),
        OSError(28, "No space left on device"),
        torch.OutOfMemoryError("another process uses it"),
    ],
)
def test_a_transient_failure_is_tried_again_and_kept_as_the_reason(
    error: Exception, config: Config, four_digits_store: str, tmp_path: Path
) -> None:
    backend = FailingBackend(itertools.repeat(error))
    executor = TrialExecutor(backend, TRIAL_OPTIONS)
    for _ in range(2):
        with pytest.raises(type(error)):
            run_trial(str(tmp_path), [config], four_digits_store, executor, lambda rung: None)
    assert len(backend.tried) == 2 and read_reason(str(tmp_path), [config]) == str(error)


def test_a_full_gpu_is_a_transient_failure(
    config: Config, four_digits_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, step: int, losses: dict[int, float]) -> None:
        raise torch.OutOfMemoryError("another process uses it")

    with (
        monkeypatch.context() as patch,
        pytest.raises(TransientError, match="another process uses it.*embedding_batch"),
    ):
        patch.setattr(Heartbeat, "on_step", full)
        run_trial(str(tmp_path), [config], four_digits_store, HERE, lambda rung: None)
    assert "another process uses it" in read_reason(str(tmp_path), [config])
    run_trial(str(tmp_path), [config], four_digits_store, HERE, lambda rung: None)


def test_a_trial_that_began_on_a_gpu_resumes_only_on_a_gpu(
    config: Config, four_digits_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = run_directory(str(tmp_path), config)
    run = create_run(path, config, four_digits_store, device=torch.device("cpu"), threads=1)
    storage.write_json(run.file("env.json"), {**run.environment, "device": "cuda", "device_name": "NVIDIA H200"})
    with pytest.raises(TransientError, match=r"cuda \(NVIDIA H200\)"):
        run_trial(str(tmp_path), [config], four_digits_store, HERE, lambda rung: None)
    assert cached_failure(path) is None, "another machine may have a GPU"


SWEEP: dict[str, Any] = {
    "preset": "smoke",
    "settings": {"evaluation.every": 20, "data.include_validation": False},
    "space": {"weights.feature": {"log": [0.01, 10]}, "selection.num_clusters": {"int": [8, 64]}},
}


@pytest.mark.parametrize(("error", "is_worth"), [(TransientError("died"), True), (RunError("not finite"), False)])
def test_only_a_transient_failure_is_worth_another_try(error: Exception, is_worth: bool, tmp_path: Path) -> None:
    sweep, values = parse_sweep(SWEEP), {"weights.feature": 2.0}
    (config,) = sweep.configs_of(values)
    with pytest.raises(type(error)), cache_failure(run_directory(str(tmp_path), config)):
        raise error
    assert is_worth_a_try(str(tmp_path), sweep, values) == is_worth


def test_invalid_settings_are_not_worth_another_try(tmp_path: Path) -> None:
    assert not is_worth_a_try(str(tmp_path), parse_sweep(SWEEP), {"selection.num_clusters": -1})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_trial_with_a_gpu_does_not_fall_back_to_the_cpu(
    config: Config, four_digits_store: str, tmp_path: Path
) -> None:
    executor = TrialExecutor(LocalBackend(), {**TRIAL_OPTIONS, "device": "cuda"})
    with pytest.raises(UsageError, match="no CUDA device is available"):
        run_trial(str(tmp_path), [config], four_digits_store, executor, lambda rung: None)
    assert "no CUDA device is available" in read_reason(str(tmp_path), [config])


def test_an_incomplete_run_directory_is_replaced(config: Config, four_digits_store: str, tmp_path: Path) -> None:
    path = Path(run_directory(str(tmp_path), config))
    path.mkdir(parents=True)
    (path / "env.json").write_text("{}")
    rungs: list[Rung] = []
    run_trial(str(tmp_path), [config], four_digits_store, HERE, rungs.append)
    assert len(rungs) == 3
    assert read_reason(str(tmp_path), [config]) == "its process ended, twice"
