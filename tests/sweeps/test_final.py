"""The final runs of a sweep, and the rows of their test accuracies."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dream_ray import storage
from dream_ray.engine.evaluation.evaluate import EvaluationResult, summarise
from dream_ray.errors import RunError, TransientError, UsageError
from dream_ray.sweeps.file import parse_sweep
from dream_ray.sweeps.final_runs import (
    check_final_seeds,
    compare_final,
    final_runs,
    is_settled,
    num_tested,
    write_final,
)
from dream_ray.sweeps.results import describe_noise
from dream_ray.sweeps.trial import TrialExecutor, run_final
from tests.runs import TRIAL_OPTIONS, FailingBackend
from tests.sweeps.conftest import SETTINGS, Page, made, written

SWEEP: dict[str, Any] = {**SETTINGS, "space": {"weights.feature": {"log": [0.01, 10]}}, "final_seeds": 2}


def test_the_best_settings_and_those_of_the_file_are_tested_alike(tmp_path: Path) -> None:
    """The start point of the search does not matter."""
    sweep = parse_sweep({**SWEEP, "start": [{"weights.feature": 2.0}]})
    planned = final_runs(str(tmp_path), sweep, {"weights.feature": 5.0})
    best, base = planned["best"], planned["base"]
    assert [config.seed for config in best.values()] == [config.seed for config in base.values()] == [1000, 1001]
    for one, other in zip(best.values(), base.values(), strict=True):
        assert one.weights.feature == 5.0 and other.weights.feature == 1.0
        assert one.total_steps == other.total_steps and one.data.include_validation
    assert not any(map(is_settled, best)) and num_tested(str(tmp_path)) == 0
    for path, accuracy in zip([*best, *base], (0.75, 0.25, 0.5, 0.5), strict=True):
        write_accuracy(path, accuracy)
    assert all(map(is_settled, best)) and num_tested(str(tmp_path)) == 4
    first, second = write_final(str(tmp_path), planned)
    assert (first["name"], first["mean"], first["n"]) == ("best", 0.5, 2)
    assert first["std"] == pytest.approx(0.35355, abs=1e-5) and second["std"] == 0
    assert first["runs"] == list(best)
    assert (first["steps"], first["compute_s"]) == (next(iter(best.values())).total_steps, 20.0)
    assert json.loads((tmp_path / "final.json").read_text()) == [first, second]


def test_study_finals_and_api_hold_fractions_and_the_report_shows_percent(tmp_path: Path) -> None:
    sweep, out, values = parse_sweep({**SWEEP, "final_seeds": 1}), str(tmp_path), {"weights.feature": 5.0}
    planned = final_runs(out, sweep, values)
    write_accuracy(*planned["best"], 0.8125)
    final = write_final(out, planned)
    page = Page(written(sweep, tmp_path, [trial := made(sweep, [0.8125], values)], final))
    [evaluated] = summarise([EvaluationResult("distilled", 0, 0.8125, 40, 2, 1.0, "cpu")])
    stored = [trial.value, final[0]["mean"], evaluated["mean"], *evaluated["accuracies"]]
    assert stored == [0.8125] * 4 and json.loads((tmp_path / "final.json").read_text()) == final
    assert page.cells[page.cells.index("best settings") + 1] == "81.2"
    assert page.cells[page.cells.index("done") + 2] == "81.25"


def write_accuracy(path: str, accuracy: float) -> None:
    storage.write_text(storage.join(path, "tested.json"), json.dumps({"accuracy": accuracy, "compute_s": 20.0}))


def test_a_final_run_keeps_a_permanent_reason_and_repeats_a_transient_one(digits_store: str, tmp_path: Path) -> None:
    out, errors = str(tmp_path), iter([TransientError("disk full"), RunError("the loss is not finite")])
    planned = final_runs(out, parse_sweep(SWEEP), {"weights.feature": 5.0})
    [(path, config), _] = planned["base"].items()
    executor = TrialExecutor(FailingBackend(errors), TRIAL_OPTIONS)
    with pytest.raises(TransientError, match="disk full"):
        run_final(path, config, digits_store, executor)
    assert not is_settled(path)
    for _ in range(2):
        run_final(path, config, digits_store, executor)
    assert is_settled(path)
    [row] = write_final(out, planned)
    assert (row["name"], row["mean"], row["n"], row["reasons"]) == ("base", None, 0, ["the loss is not finite"])


def test_other_best_settings_are_tested_again(tmp_path: Path) -> None:
    """For example after a resume with a larger budget."""
    sweep = parse_sweep(SWEEP)
    one = final_runs(str(tmp_path), sweep, {"weights.feature": 5.0})
    other = final_runs(str(tmp_path), sweep, {"weights.feature": 6.0})
    assert one["best"].keys().isdisjoint(other["best"])
    assert one["base"] == other["base"]
    for path in one["best"]:
        write_accuracy(path, 0.5)
    assert [row["name"] for row in write_final(str(tmp_path), one)] == ["best"]
    assert write_final(str(tmp_path), other) == [], "without the accuracies of the former best settings"
    assert list(final_runs(str(tmp_path), sweep, {"weights.feature": 1.0})) == ["best"], "both settings are equal"
    assert final_runs(str(tmp_path), parse_sweep({**SWEEP, "final_seeds": 0}), {"weights.feature": 5.0}) == {}


def test_final_runs_need_test_images() -> None:
    sweep, store = parse_sweep(SWEEP), SimpleNamespace(splits=lambda: ("train", "validation"))
    with pytest.raises(UsageError, match="final_seeds must be 0 for a store without test images, .*; got 2"):
        check_final_seeds(sweep, store)
    check_final_seeds(parse_sweep({**SWEEP, "final_seeds": 0}), store)
    check_final_seeds(sweep, SimpleNamespace(splits=lambda: ("train", "test")))


def test_the_difference_of_the_final_settings_says_whether_it_is_noise() -> None:
    base = {"name": "base", "mean": 0.5, "half_width": None, "tested": 100}
    best = {**base, "name": "best", "mean": 0.7}
    assert compare_final([best, base]) == [
        "best settings +20.0 +- 13.3 points: beyond the noise of images, but n = 1",
        "100 test images: one image = 1 points",
    ]
    several = [{**row, "half_width": 0.01} for row in (best, base)]
    assert compare_final(several)[0] == "best settings +20.0 +- 13.4 points: beyond noise"
    assert compare_final([best]) == [], "the best settings are those of the file"
    assert compare_final([best, {**base, "tested": None}]) == [], "an earlier version did not count the images"


def test_trials_within_noise_of_the_best_one_are_counted(digits_store: str) -> None:
    done = [{"state": "done", "accuracy": accuracy} for accuracy in (0.5, 0.8, 0.75)]
    rows = [*done, {"state": "stopped", "accuracy": 0.8}]
    assert describe_noise(rows, digits_store) == (
        "140 validation images: one image = 0.71 points; 1 of 2 other whole trials are within noise of the best one "
        "(95 %)"
    )
    assert describe_noise(rows[3:], digits_store) == describe_noise(rows, "nowhere") == ""
