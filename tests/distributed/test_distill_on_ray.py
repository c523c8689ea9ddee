"""Runs on Ray Train: the same bits as without Ray, whoever is killed."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.train.v2.api.exceptions import WorkerGroupError
from torch import Tensor

from dream_ray import api
from dream_ray.config import parse_config
from dream_ray.distributed.distill import _fit, _fit_while_it_gets_on
from dream_ray.engine.artefacts import read_synthetic
from dream_ray.engine.run import open_run, read_sessions
from dream_ray.errors import RunError, UsageError

pytestmark = pytest.mark.ray


def images(path: str) -> Tensor:
    return read_synthetic(f"{path}/synthetic.parquet")[0].images_LNCHW


@pytest.fixture
def longer(tiny: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run that lasts long enough to kill somebody in it."""
    return {**tiny, "outer_steps": 6, "inner_steps": 10, "checkpoint_every": 5}


@pytest.fixture
def reference(longer: dict[str, Any], digits_store: str, tmp_path: Path) -> Tensor:
    path = str(tmp_path / "reference")
    api.distill(parse_config(longer), store=digits_store, out=path, local=True)
    return images(path)


@pytest.mark.slow
def test_a_killed_worker_costs_no_bit(
    local_ray: None, longer: dict[str, Any], digits_store: str, out: str, reference: Tensor
) -> None:
    """The group restarts from the last checkpoint; two workers equal one without Ray."""
    killed: list[int] = []
    killer = threading.Thread(target=_kill_a_worker, args=(out, 10, killed), daemon=True)
    killer.start()
    api.distill(parse_config(longer), store=digits_store, out=out, workers=2)
    killer.join(timeout=1)
    sessions = read_sessions(open_run(out))
    assert killed
    assert killed[0] in {session["pid"] for session in sessions}
    assert len(sessions) >= 4, "both workers ran twice"
    assert torch.equal(images(out), reference)


def _kill_a_worker(path: str, at_step: int, killed: list[int]) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and not killed:
        time.sleep(0.02)
        if not Path(path, "config.yaml").exists():
            continue
        for session in read_sessions(open_run(path)):
            if session["step"] >= at_step and session["phase"] == "matching":
                os.kill(session["pid"], signal.SIGKILL)
                killed.append(session["pid"])
                return


@pytest.mark.slow
def test_an_error_in_a_worker_is_reported_once_and_a_resume_can_follow(
    local_ray: None, tiny: dict[str, Any], digits_store: str, out: str
) -> None:
    config = parse_config({**tiny, "pixels": {"lr": 1e30}})
    with pytest.raises(RunError, match="loss must be finite"):
        api.distill(config, store=digits_store, out=out, workers=2)
    assert len(read_sessions(open_run(out))) == 2, "no restart for an error that would only come again"
    assert Path(out, "checkpoints", "step-00000000").is_dir()


def test_more_workers_than_cpus_are_refused_with_the_numbers(
    local_ray: None, tiny: dict[str, Any], digits_store: str, out: str
) -> None:
    with pytest.raises(UsageError, match="6 workers with 1 CPU each need 6 CPUs; Ray reports 4"):
        api.distill(parse_config(tiny), store=digits_store, out=out, workers=6)


def test_workers_that_nothing_could_be_shared_with_are_refused(
    local_ray: None, tiny: dict[str, Any], digits_store: str, out: str
) -> None:
    alone = {"selection": {"strategy": "random"}, "matching": {"real_chunk": None}}
    with pytest.raises(UsageError, match=r"workers must be at most the number of classes \(10\).*got 11"):
        api.distill(parse_config({**tiny, **alone}), store=digits_store, out=out, workers=11)


def test_ctrl_c_is_an_interruption_not_the_end_of_the_program() -> None:
    """Ray Train turns it into sys.exit(0), which would look like success."""

    class Interrupted:
        def fit(self) -> None:
            raise SystemExit(0)

    with pytest.raises(KeyboardInterrupt):
        _fit(Interrupted())


def test_lost_nodes_are_counted_from_the_last_checkpoint_on() -> None:
    fits: list[int] = []
    newest = iter([10, 20, 20, 30, 30, 30])  # before and after each

    class Spot:
        def fit(self) -> None:
            fits.append(len(fits))
            raise WorkerGroupError("a node went", {0: OSError("gone")})

    with pytest.raises(RunError, match="died more than 3 times without a new checkpoint.*resume"):
        _fit_while_it_gets_on(Spot, lambda: next(newest))
    assert len(fits) == 3


@pytest.mark.slow
def test_evaluation_on_ray_equals_the_local_one(
    local_ray: None, tiny: dict[str, Any], digits_store: str, out: str
) -> None:
    api.distill(parse_config(tiny), store=digits_store, out=out, local=True)
    settings: dict[str, Any] = {"repeats": 2, "arms": ("distilled", "k-means real")}
    here = api.evaluate(out, local=True, **settings)
    there = api.evaluate(out, **settings)
    assert [row["accuracies"] for row in there] == [row["accuracies"] for row in here]
