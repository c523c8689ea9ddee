"""Runs and evaluations on Ray: what is refused, and the same numbers as without Ray.

Runs whose processes are killed or fail are in test_producers_on_ray.py and test_frameworks_on_ray.py.
"""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray.train.v2.api.exceptions import WorkerGroupError

from dream_ray import api
from dream_ray.config import parse_config
from dream_ray.config.sections import Network
from dream_ray.distributed import distill, evaluate
from dream_ray.distributed.distill import _fit, _fit_while_it_gets_on, _raise_failure
from dream_ray.engine.evaluate import EvaluationTask
from dream_ray.engine.out_of_memory import OutOfMemory
from dream_ray.engine.run import create_run
from dream_ray.engine.session import Session
from dream_ray.engine.stopping import LocalAgreement
from dream_ray.errors import RunError, TransientError, UsageError
from dream_ray.storage import NotReadable

pytestmark = pytest.mark.ray


def test_more_workers_than_cpus_are_refused_with_the_numbers(
    local_ray: None, tiny: dict[str, Any], digits_store: str, out: str
) -> None:
    with pytest.raises(UsageError, match="6 workers with 1 CPU each need 6 CPUs; Ray reports 4"):
        api.distill(parse_config(tiny), store=digits_store, out=out, workers=6)


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

    with pytest.raises(TransientError, match="died more than 3 times without a new checkpoint.*resume"):
        _fit_while_it_gets_on(Spot, lambda: next(newest))
    assert len(fits) == 3


@pytest.mark.parametrize("kind", [UsageError, RunError, TransientError, OutOfMemory, NotReadable])
def test_the_driver_meets_what_a_worker_met(kind: type[Exception], tmp_path: Path) -> None:
    failure = tmp_path / "failure.json"
    failure.write_text(json.dumps({"kind": kind.__name__, "message": "no room"}))
    run: Any = SimpleNamespace(file=lambda name: str(tmp_path / name))
    with pytest.raises(kind, match="no room") as met:
        _raise_failure(run)
    assert type(met.value) is kind


def test_a_worker_that_runs_out_of_memory_is_not_started_again(
    tiny: dict[str, Any], four_digits_store: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, report: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    run = create_run(out, parse_config(tiny), four_digits_store, device=torch.device("cpu"), threads=1)
    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    monkeypatch.setattr("ray.train.get_context", lambda: context)
    monkeypatch.setattr(distill, "telling_ray", lambda path, rank: lambda progress: None)
    monkeypatch.setattr(Session, "report", full)
    loop = {"run_path": out, "class_counts": [60] * 4, "queue": None, "agreement": LocalAgreement()}
    distill._worker_loop(loop)
    with pytest.raises(OutOfMemory, match=r"Tried to allocate 2\.00 GiB\): .*--memory"):
        _raise_failure(run)


@pytest.mark.parametrize(
    ("wanted", "there", "gpus", "device"),
    [("auto", 0.0, 0.0, "cpu"), ("auto", 1.0, 1.0, "auto"), ("cpu", 1.0, 0.0, "cpu")],
)
def test_an_evaluation_takes_gpus_where_it_may_and_ray_has_any(
    wanted: str, there: float, gpus: float, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def remote(**options: Any) -> Callable[..., Any]:
        asked.append(options)
        return lambda function: SimpleNamespace(remote=lambda *arguments: arguments)

    monkeypatch.setattr(evaluate, "ray_session", lambda address: nullcontext())
    monkeypatch.setattr(evaluate, "default_gpus", {"auto": there, "cpu": 0.0}.__getitem__)
    monkeypatch.setattr(evaluate, "require_resources", lambda *needs: asked.append(needs))
    monkeypatch.setattr(evaluate, "check_seen", lambda *what: None)
    monkeypatch.setattr(evaluate.ray, "remote", remote)
    monkeypatch.setattr(evaluate, "results", lambda calls: (call() for call in calls))
    task = EvaluationTask("run", "distilled", 0, "quick", "test", Network(name="convnet", options={}), 2, wanted)
    assert list(evaluate.run_tasks_on_ray([task], address=None)) == [(replace(task, device=device),)]
    assert asked == [(1, 2, gpus), {"num_cpus": 2, "num_gpus": gpus}]


@pytest.mark.slow
def test_evaluation_on_ray_equals_the_local_one(
    local_ray: None, tiny: dict[str, Any], four_digits_store: str, out: str
) -> None:
    api.distill(parse_config(tiny), store=four_digits_store, out=out, local=True)
    settings: dict[str, Any] = {"repeats": 2, "arms": ("distilled", "k-means real")}
    here = api.evaluate(out, local=True, **settings)
    there = api.evaluate(out, **settings)
    assert [row["accuracies"] for row in there] == [row["accuracies"] for row in here]
