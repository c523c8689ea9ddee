"""What Ray Tune is given, without a Ray: what the study is told of a trial, and what is not written down."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from dream_ray.distributed.tuning import Search, modes_of, scheduler_of
from dream_ray.sweep.file import parse_sweep
from dream_ray.sweep.space import suggest
from dream_ray.sweep.study import RUNG

SWEEP: dict[str, Any] = {
    "preset": "smoke",
    "settings": {"evaluation.every": 20, "data.include_validation": False},
    "space": {"weights.feature": {"log": [0.01, 10]}},
}


@pytest.fixture
def search(tmp_path: Path) -> Search:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sweep = parse_sweep(SWEEP)

    def propose(trial: optuna.Trial) -> None:
        suggest(sweep.space, trial, sweep.base())

    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/hushhush.db")
    return Search(space=propose, metric="accuracy", mode=modes_of(sweep), study_name="x", storage=storage)


def rung(number: int, accuracy: float) -> dict[str, Any]:
    # A process that begins again counts its reports from 1.
    return {RUNG: number, "accuracy": accuracy, "training_iteration": 1}


def test_a_paused_trial_that_is_let_go_has_its_last_result(search: Search) -> None:
    """HyperBand pauses trials, and ends them without a word; they tell their first rungs again when they go on."""
    search.suggest("one")
    for number, accuracy in ((1, 0.25), (2, 0.5), (1, 0.25), (2, 0.5), (3, 0.75)):
        search.on_trial_result("one", rung(number, accuracy))
    search.on_trial_complete("one")
    [trial] = search._ot_study.trials
    assert (trial.state, trial.value, trial.user_attrs[RUNG]) == (TrialState.COMPLETE, 0.75, 3)
    assert trial.intermediate_values == {1: 0.25, 2: 0.5, 3: 0.75}
    assert search.number_of("one") == 0


def test_a_trial_that_failed_has_none(search: Search) -> None:
    search.suggest("one")
    search.on_trial_result("one", rung(1, 0.25))
    search.on_trial_complete("one", error=True)
    [trial] = search._ot_study.trials
    assert trial.state == TrialState.FAIL and trial.values is None


def test_what_tune_writes_down_has_no_url_in_it(search: Search, tmp_path: Path) -> None:
    from ray import cloudpickle

    search.suggest("one")
    search.save(str(tmp_path / "state"))
    assert b"hushhush" not in cloudpickle.dumps(search) and not (tmp_path / "state").exists()


@pytest.mark.parametrize("name", ["asha", "hyperband", "median", "none"])
def test_every_scheduler_is_made(name: str) -> None:
    assert (scheduler_of(parse_sweep({**SWEEP, "scheduler": {"name": name}})) is None) == (name == "none")
