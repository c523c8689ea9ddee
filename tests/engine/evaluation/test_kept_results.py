"""Results of single networks are kept: checkpoints, reuse, and refusal of results that others gave."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dream_ray import api, storage
from dream_ray.config import parse_config
from dream_ray.engine.evaluation import kept_results, tasks
from dream_ray.engine.evaluation.kept_results import read_result, train_and_keep
from dream_ray.engine.evaluation.tasks import distilled_task
from dream_ray.engine.run.directory import Run, open_run
from dream_ray.errors import UsageError
from tests.runs import Killed, create_run, kill_at, work


@pytest.fixture
def unfinished(tiny: dict[str, Any], four_digits_store: str, out: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that a kill ended at step 7 of 8; it keeps its checkpoints at multiples of 4."""
    run = create_run(out, parse_config({**tiny, "checkpoint_keep_every": 4}), four_digits_store)
    with monkeypatch.context() as patch:
        patch.setattr("dream_ray.engine.progress.heartbeat.Heartbeat.on_step", kill_at(6))
        with pytest.raises(Killed):
            work(run.path, range(4))
    return run


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int | None, int]]:
    """The networks that are really trained: set, step and number."""
    found: list[tuple[str, int | None, int]] = []

    def run_task(task: tasks.EvaluationTask, device_name: str) -> Any:
        found.append((task.evaluated_set, task.step, task.repeat))
        return tasks.run_task(task, device_name)

    monkeypatch.setattr(kept_results, "run_task", run_task)
    return found


def test_only_missing_networks_are_trained(unfinished: Run, trained: list[Any]) -> None:
    first = api.evaluate(unfinished.path, steps=[4, 0], repeats=1, local=True)
    assert trained == [("distilled", 0, 0), ("distilled", 4, 0)]
    assert [(row["step"], row["n"]) for row in first] == [(0, 1), (4, 1)]
    second = api.evaluate(unfinished.path, steps=[0, 4, 6], repeats=2, local=True)
    assert trained[2:] == [("distilled", 0, 1), ("distilled", 4, 1), ("distilled", 6, 0), ("distilled", 6, 1)]
    assert [row["accuracies"][0] for row in second[:2]] == [row["mean"] for row in first]
    assert api.evaluate(unfinished.path, steps=[0, 4, 6], repeats=2, local=True) == second and len(trained) == 6
    files = {name for name in storage.list_directory(unfinished.file("evaluation")) if "." in name}
    names = ("convnet-quick-test-distilled-steps=0_4-n=1", "convnet-quick-test-distilled-steps=0_4_6-n=2")
    assert files == {f"{name}.{end}" for name in names for end in ("json", "png")}


def test_baselines_can_be_asked_for_beside_steps(unfinished: Run) -> None:
    rows = api.evaluate(unfinished.path, steps=[4], repeats=1, baselines=["random real"], local=True)
    assert [(row["evaluated_set"], row["step"]) for row in rows] == [("distilled", 4), ("random real", None)]


def test_a_missing_step_is_refused_with_those_at_hand(unfinished: Run) -> None:
    message = r"step must be that of a complete checkpoint of .* \(it has 0, 4, 6\); got 2. With checkpoint_keep_every"
    with pytest.raises(UsageError, match=message):
        api.evaluate(unfinished.path, steps=[4, 2], local=True)


def test_the_last_step_is_the_finished_run(unfinished: Run, trained: list[Any]) -> None:
    api.resume(unfinished.path, local=True)
    (row,) = api.evaluate(unfinished.path, repeats=1, baselines=(), local=True)
    (same,) = api.evaluate(unfinished.path, steps=[8], repeats=1, local=True)
    assert trained == [("distilled", None, 0)]
    assert (same["mean"], same["step"], row["step"]) == (row["mean"], 8, None)
    assert open_run(unfinished.path).checkpoints().complete_steps() == [0, 4, 6, 8]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"library_versions": lambda: {"torch": "9.9"}}, "versions.torch was .*, is 9.9"),
        ({"NUMERICS": "other"}, "numerics was .*, is other"),
    ],
)
def test_results_of_other_libraries_are_refused(
    unfinished: Run, trained: list[Any], monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], message: str
) -> None:
    api.evaluate(unfinished.path, steps=[4], repeats=1, local=True)
    before = {path: path.read_bytes() for path in Path(unfinished.file("evaluation")).rglob("*.json")}
    for name, value in changed.items():
        monkeypatch.setattr(kept_results, name, value)
    with pytest.raises(UsageError, match=rf"steps=4-n=1.json must be a result of the expected .*{message}"):
        api.evaluate(unfinished.path, steps=[4], repeats=1, local=True)
    with pytest.raises(UsageError, match=rf"step-00000004-0000.json must be a result of the expected .*{message}"):
        api.evaluate(unfinished.path, steps=[4], repeats=2, local=True)
    assert len(trained) == 1
    assert {path: path.read_bytes() for path in Path(unfinished.file("evaluation")).rglob("*.json")} == before


def test_a_report_that_names_no_origin_is_not_overwritten(unfinished: Run) -> None:
    path = unfinished.file("evaluation", "convnet-quick-test-distilled-steps=4-n=1.json")
    storage.write_json(path, {"evaluated_sets": []})
    with pytest.raises(UsageError, match="it does not name its origin. Move it away to train anew"):
        api.evaluate(unfinished.path, steps=[4], repeats=1, local=True)


def test_a_kept_result_is_that_of_the_task(unfinished: Run) -> None:
    task = distilled_task(unfinished, "test", 4, repeat=2)
    assert read_result(task, unfinished) is None
    result = train_and_keep(task, "cpu")
    assert read_result(task, unfinished) == result
    assert replace(tasks.run_task(task, "cpu"), seconds=result.seconds) == result
