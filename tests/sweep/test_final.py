"""The last word on a sweep: which runs are tested, and what is made of their accuracies."""

from pathlib import Path
from typing import Any

import pytest

from dream_ray import storage
from dream_ray.data.store import Store
from dream_ray.sweep.file import parse_sweep
from dream_ray.sweep.final import final_runs, is_tested, num_tested, read_final, write_final
from tests.sweep.conftest import SETTINGS

SWEEP: dict[str, Any] = {**SETTINGS, "space": {"weights.feature": {"log": [0.01, 10]}}, "final_seeds": 2}


def test_the_best_and_the_published_settings_are_tested_alike(digits_store: str, tmp_path: Path) -> None:
    sweep, store = parse_sweep(SWEEP), Store.open(digits_store)
    planned = final_runs(str(tmp_path), sweep, {"weights.feature": 5.0}, store)
    best, start = planned["best"], planned["start"]
    assert [run.config.seed for run in best] == [run.config.seed for run in start] == [1000, 1001]
    for one, other in zip(best, start, strict=True):
        assert one.config.weights.feature == 5.0 and other.config.weights.feature == 1.0
        assert one.config.total_steps == other.config.total_steps and one.config.data.include_validation
    assert not any(map(is_tested, best)) and num_tested(str(tmp_path)) == 0
    for run, accuracy in zip([*best, *start], (0.75, 0.25, 0.5, 0.5), strict=True):
        storage.write_text(storage.join(run.path, "tested.json"), f'{{"accuracy": {accuracy}}}')
    assert all(map(is_tested, best)) and num_tested(str(tmp_path)) == 4
    write_final(str(tmp_path), planned)
    first, second = read_final(str(tmp_path)) or []
    assert (first["name"], first["mean"], first["n"]) == ("best", 50.0, 2)
    assert first["std"] == pytest.approx(35.355, abs=1e-3) and second["std"] == 0
    assert first["runs"] == [run.path for run in best]


def test_other_best_settings_are_tested_anew(digits_store: str, tmp_path: Path) -> None:
    """As after a sweep that went on with a larger budget."""
    sweep, store = parse_sweep(SWEEP), Store.open(digits_store)
    one = final_runs(str(tmp_path), sweep, {"weights.feature": 5.0}, store)
    other = final_runs(str(tmp_path), sweep, {"weights.feature": 6.0}, store)
    assert {run.path for run in one["best"]}.isdisjoint(run.path for run in other["best"])
    assert one["start"] == other["start"]
    assert list(final_runs(str(tmp_path), sweep, {"weights.feature": 1.0}, store)) == ["best"], "they are the same"
    assert final_runs(str(tmp_path), parse_sweep({**SWEEP, "final_seeds": 0}), {"weights.feature": 5.0}, store) == {}
