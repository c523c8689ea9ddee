"""Sweeps on Ray Tune: stopped trials, kept results and resume."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pyarrow.parquet as pq
import pytest
import yaml
from ray.tune import Callback
from ray.tune.experiment import Trial

from dream_ray import api, storage
from dream_ray.config import load_config
from dream_ray.engine.progress.status import WORKER
from dream_ray.engine.run.directory import open_run, read_sessions
from dream_ray.errors import RunError, UsageError
from dream_ray.sweeps.directory import open_sweep, run_directory
from dream_ray.sweeps.results import read_rows
from dream_ray.sweeps.study import JOURNAL, NAME, study_storage
from tests.ray_nodes import ray_environment

# After one step with it, the pixels are not finite.
BROKEN_LR = 1e30


@pytest.fixture
def settings(tiny: dict[str, Any]) -> dict[str, Any]:
    tiny |= {"data": {"include_validation": False}, "outer_steps": 4}
    tiny["evaluation"] = {**tiny["evaluation"], "every": 4, "quick_epochs": 20}
    return tiny


def write(path: Path, settings: dict[str, Any], **sweep: Any) -> str:
    path.write_text(yaml.safe_dump({"config": settings, "final_seeds": 0, **sweep}))
    return str(path)


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_from_beginning_to_end(
    local_ray: None, settings: dict[str, Any], four_digits_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings of the file come first, a failing trial is recorded, and ASHA stops a trial that is behind.

    And Ctrl-C between two trials, where nothing is running, is no end of the search, nor is forgotten what they did.
    """
    at_ctrl_c = signal.getsignal(signal.SIGINT)
    file = write(
        tmp_path / "sweep.yaml",
        settings,
        space={
            "selection.num_clusters": {"int": [4, 8]},
            "pixels.lr": {"log": [1e-6, BROKEN_LR]},
            "initialisation.strategy": {"choices": ["representative", "noise"]},
        },
        # The noise that hardly moves comes after the real images.
        start=[{}, {"pixels.lr": BROKEN_LR}, {"pixels.lr": 1e-6, "initialisation.strategy": "noise"}],
        scheduler={"name": "asha", "grace": 1, "factor": 2},
        budget={"trials": 3},
        final_seeds=2,
    )
    out = str(tmp_path / "sweep")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("dream_ray.distributed.tune.search.loggers_of", lambda sweep: [CtrlC()])
        api.sweep(file, store=four_digits_store, out=out, max_concurrent=1)
    assert [row["state"] for row in read_rows(out)] == ["done", "waiting", "waiting"]
    assert not storage.exists(f"{out}/best.yaml")
    found = api.resume_sweep(out)
    first, broken, noise = found.trials
    assert first["state"] == "done" and first["rung"] == 4
    assert first["selection.num_clusters"] == load_config(file=f"{out}/best.yaml").selection.num_clusters
    assert broken["state"] == "failed" and "finite" in broken["reason"]
    assert noise["state"] == "stopped" and noise["rung"] < 4 and noise["accuracy"] < first["accuracy"]
    assert not storage.exists(f"{_run(out, noise)}/synthetic.parquet"), "the run was stopped"
    assert pq.read_table(f"{out}/results.parquet").num_rows == 3
    best = load_config(file=f"{out}/best.yaml")
    assert best.data.include_validation and best.evaluation.every == 0
    [row] = found.final
    assert row["name"] == "best" and row["n"] == 2 and row["mean"] > noise["accuracy"]
    assert row["steps"] == best.total_steps and row["compute_s"] > 0 and row["reasons"] == []
    assert list(Path(out, "ray_tune", "trial-0").glob("events.out.tfevents*")), "logs for TensorBoard"
    assert signal.getsignal(signal.SIGINT) is at_ctrl_c, "Tune has left no handler"
    assert api.resume_sweep(out) == found, "no work remains"
    with pytest.raises(UsageError, match="already holds a sweep"):
        api.sweep(file, store=four_digits_store, out=out)


class CtrlC(Callback):
    """Sends Ctrl-C when a trial has ended."""

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        signal.raise_signal(signal.SIGINT)


def _run(out: str, row: dict[str, Any]) -> str:
    sweep, _ = open_sweep(out)
    [config] = sweep.configs_of({path: row[path] for path in sweep.space})
    return run_directory(out, config)


def dying(num_classes: int, shape_CHW: tuple[int, int, int], *, deaths: str, **options: Any) -> Any:
    """A user's network that kills its process."""
    with open(deaths, "a") as file:
        file.write("again\n")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_without_a_successful_trial_reports_the_reasons(
    local_ray: None, settings: dict[str, Any], four_digits_store: str, tmp_path: Path
) -> None:
    """One trial gets pixels that are not finite, the other kills its process and is tried twice."""
    deadly, deaths = f"{__name__}:dying", tmp_path / "deaths"
    space = {
        "pixels.lr": {"log": [1e29, BROKEN_LR]},
        "network.name": {"choices": ["convnet", deadly]},
        "network.options.deaths": {"choices": [str(deaths)], "when": {"network.name": [deadly]}},
    }
    settings["pixels"] = {"lr": BROKEN_LR}
    start: list[dict[str, Any]] = [{}, {"network.name": deadly, "network.options.deaths": str(deaths)}]
    file = write(tmp_path / "sweep.yaml", settings, space=space, start=start, budget={"trials": 2})
    out = tmp_path / "sweep"
    with pytest.raises(RunError, match=r"no trial of the sweep succeeded; the last reason: its process ended, twice"):
        api.sweep(file, store=four_digits_store, out=str(out), max_concurrent=1)
    assert deaths.read_text() == "again\n" * 2
    table = pq.read_table(out / "results.parquet")
    assert table["state"].to_pylist() == ["failed"] * 2
    assert "finite" in table["reason"][0].as_py() and table["reason"][1].as_py() == "its process ended, twice"
    assert "No trial reached its end" in (out / "report.html").read_text()


@pytest.mark.ray
@pytest.mark.slow
def test_a_trial_of_two_workers_reports_its_rungs(
    local_ray: None, settings: dict[str, Any], four_digits_store: str, tmp_path: Path
) -> None:
    """The trial runs on Ray Train, and its rungs reach the study."""
    file = write(
        tmp_path / "sweep.yaml",
        {**settings, "outer_steps": 2},
        space={"selection.num_clusters": {"int": [4, 8]}},
        budget={"trials": 1},
        resources={"workers": 2},
    )
    out = str(tmp_path / "sweep")
    [row] = api.sweep(file, store=four_digits_store, out=out).trials
    sweep, place = open_sweep(out)
    [config] = sweep.configs_of({"selection.num_clusters": 6})
    run = open_run(run_directory(out, config))
    assert row["state"] == "done" and row["selection.num_clusters"] == 6 and row["rung"] == 2
    assert {session["shard"] for session in read_sessions(run, WORKER)} == {0, 1}
    study = optuna.load_study(study_name=NAME, storage=study_storage(place.out, None))
    accuracies = [json.loads(storage.read_text(run.file("validation", f"step-0000000{step}.json"))) for step in (4, 8)]
    assert study.trials[0].intermediate_values == {1: accuracies[0]["accuracy"]}, "the first rung"
    assert row["accuracy"] == accuracies[1]["accuracy"]


@pytest.mark.ray
@pytest.mark.slow
def test_a_spent_budget_stops_the_running_trials(
    local_ray: None, settings: dict[str, Any], four_digits_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    file = write(
        tmp_path / "sweep.yaml",
        {**settings, "outer_steps": 10},
        space={"weights.feature": {"log": [0.1, 10]}},
        budget={"trials": 9, "outer_steps": 25},
        scheduler={"name": "none"},
        log=["mlflow"],
    )
    out = str(tmp_path / "sweep")
    rows = api.sweep(file, store=four_digits_store, out=out, max_concurrent=2).trials
    assert {row["state"] for row in rows} == {"done", "stopped"} and len(rows) < 9
    assert api.resume_sweep(out).trials == rows, "no budget remains"
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        ((logged,),) = database.execute("select count(*) from metrics where key = 'accuracy'")
    assert logged >= 2 * 10, "MLflow knows the rungs"


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_resumes_after_its_driver_is_killed(
    settings: dict[str, Any], four_digits_store: str, tmp_path: Path
) -> None:
    """The process of the trial ends too. Finished trials stay, the running one resumes, and no step counts twice."""
    file = write(
        tmp_path / "sweep.yaml",
        {
            **settings,
            "outer_steps": 10,
            "inner_steps": 10,
            "checkpoint_every": 10,
            "evaluation": {"every": 10, "quick_epochs": 20},
        },
        space={"weights.feature": {"log": [0.1, 10]}},
        sampler={"name": "random"},
        scheduler={"name": "none"},
        budget={"trials": 3},
    )
    out = tmp_path / "sweep"
    environment = ray_environment()
    command = [sys.executable, "-m", "dream_ray", "sweep", file, "--store", four_digits_store, "--out", str(out)]
    driver = subprocess.Popen(
        [*command, "--max-concurrent", "1"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 800
    while not (out / JOURNAL).exists() or not _is_second_at_work(out):
        assert driver.poll() is None, "the sweep finished before the kill"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = read_rows(str(out))
    assert [row["state"] for row in before] == ["done", "running"]
    run = open_run(_run(str(out), before[1]))
    while any(Path(f"/proc/{session['pid']}").exists() for session in read_sessions(run)):
        assert time.monotonic() < deadline, "a trial outlived the driver"
        time.sleep(0.2)
    _end_session(driver.pid)
    reached = run.checkpoints().newest()

    done = subprocess.run(
        [sys.executable, "-m", "dream_ray", "resume", str(out)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"best settings: {out}/best.yaml" in done.stdout
    after = read_rows(str(out))
    assert [row["state"] for row in after] == ["done", "again", "done", "done"]
    assert after[0] == before[0]
    assert after[2]["weights.feature"] == before[1]["weights.feature"]
    sessions = read_sessions(run, WORKER)
    assert len(sessions) == 2 and reached is not None and reached >= 30
    assert len(storage.read_text(run.file("metrics.jsonl")).splitlines()) == 100


def _is_second_at_work(out: Path) -> bool:
    rows = read_rows(str(out))
    if len(rows) < 2 or rows[1]["state"] != "running" or not rows[1]["weights.feature"]:
        return False
    run = _run(str(out), rows[1])
    return storage.exists(f"{run}/checkpoints/step-00000030")


def _end_session(session: int) -> None:
    """Kills the rest of the driver's session: Ray's agents would take a minute to end by themselves."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _session_of(process) == session:
            os.kill(int(process.name), signal.SIGKILL)


def _session_of(process: Path) -> int:
    try:
        # pid (name) state ppid pgrp session ...; the name may hold spaces.
        return int((process / "stat").read_text().rpartition(")")[2].split()[3])
    except OSError:  # gone meanwhile
        return -1
