"""The parts of Ray Tune for a sweep, without a running Ray."""

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray.tune import TuneError
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from dream_ray.distributed.cluster import capacity
from dream_ray.distributed.cluster.capacity import Needs
from dream_ray.distributed.tune import tuner
from dream_ray.distributed.tune.executors import at_a_time
from dream_ray.distributed.tune.search import SweepResult
from dream_ray.distributed.tune.tuner import NodesWatch, Search, Spending, fit, loggers_of, scheduler_of
from dream_ray.errors import TransientError
from dream_ray.sweeps.file import parse_sweep
from dream_ray.sweeps.study import RUNG, make_sampler

SWEEP: dict[str, Any] = {
    "preset": "smoke",
    "settings": {"evaluation.every": 20, "data.include_validation": False},
    "space": {"weights.feature": {"log": [0.01, 10]}},
}


@pytest.fixture
def search(tmp_path: Path) -> Search:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sweep = parse_sweep(SWEEP)

    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/secret-password.db")
    return Search(sweep, make_sampler(sweep, 0), "x", storage)


def rung(number: int, accuracy: float) -> dict[str, Any]:
    # A restarted process counts its reports from 1.
    return {RUNG: number, "accuracy": accuracy, "training_iteration": 1}


def test_a_dropped_paused_trial_keeps_its_last_result(search: Search) -> None:
    """HyperBand drops paused trials without a result; resumed ones report their first rungs again."""
    search.suggest("one")
    for number, accuracy in ((1, 0.25), (2, 0.5), (1, 0.25), (2, 0.5), (3, 0.75)):
        search.on_trial_result("one", rung(number, accuracy))
    search.on_trial_complete("one")
    [trial] = search._ot_study.trials
    assert (trial.state, trial.value, trial.user_attrs[RUNG]) == (TrialState.COMPLETE, 0.75, 3)
    assert trial.intermediate_values == {1: 0.25, 2: 0.5, 3: 0.75}
    assert search.number_of("one") == 0


def test_a_failed_trial_has_no_result(search: Search) -> None:
    search.suggest("one")
    search.on_trial_result("one", rung(1, 0.25))
    search.on_trial_complete("one", error=True)
    [trial] = search._ot_study.trials
    assert trial.state == TrialState.FAIL and trial.values is None


def test_the_files_of_tune_do_not_contain_the_url_of_the_study(search: Search, tmp_path: Path) -> None:
    from ray import cloudpickle

    search.suggest("one")
    search.save(str(tmp_path / "state"))
    assert b"secret-password" not in cloudpickle.dumps(search) and not (tmp_path / "state").exists()


# Four rungs.
SHORT: dict[str, Any] = {"outer_steps": 4, "inner_steps": 20, "evaluation.every": 20, "data.include_validation": False}


class Running:
    """Stands in for a trial: the part that a scheduler of Tune reads."""

    status, is_saving = Trial.RUNNING, False

    def __init__(self, number: int) -> None:
        self.trial_id = str(number)


class Trials:
    """Stands in for the controller of Tune: the part that a scheduler calls."""

    def __init__(self, scheduler: TrialScheduler, count: int) -> None:
        self.all = [Running(number) for number in range(count)]
        self.scheduler = scheduler
        for trial in self.all:
            scheduler.on_trial_add(self, trial)

    def report(self, number: int, rung: int, accuracy: float) -> str:
        """Reports a rung and returns the decision of the scheduler."""
        trial = self.all[number]
        decided = self.scheduler.on_trial_result(self, trial, {RUNG: rung, "accuracy": accuracy})
        if decided != TrialScheduler.CONTINUE:
            trial.status = Trial.TERMINATED if decided == TrialScheduler.STOP else Trial.PAUSED
        return decided

    def stop_trial(self, trial: Any) -> None:
        trial.status = Trial.TERMINATED
        self.scheduler.on_trial_complete(self, trial, {})

    def get_live_trials(self) -> list[Any]:
        return [trial for trial in self.all if trial.status != Trial.TERMINATED]


def scheduled(count: int, ended: Sequence[FrozenTrial] = (), **scheduler: Any) -> Trials:
    made = scheduler_of(parse_sweep({**SWEEP, "settings": SHORT, "scheduler": scheduler}), ended)
    assert made is not None
    return Trials(made, count)


def test_asha_stops_a_trial_that_is_behind_at_a_rung() -> None:
    trials = scheduled(3, name="asha", grace=1, factor=2)
    assert trials.report(0, 1, 0.75) == TrialScheduler.CONTINUE
    assert trials.report(1, 1, 0.25) == TrialScheduler.STOP
    assert trials.report(2, 1, 0.875) == TrialScheduler.CONTINUE


def test_hyperband_pauses_a_bracket_and_continues_its_best_part() -> None:
    """The first bracket has three trials with all four rungs, the second has three with two."""
    trials = scheduled(3 + 3, name="hyperband", factor=2)
    second = range(3, 6)
    for number in second:
        assert trials.report(number, 1, 0.5) == TrialScheduler.CONTINUE
    decided = [trials.report(number, 2, 0.1 * number) for number in second]
    assert decided == [TrialScheduler.PAUSE] * 2 + [TrialScheduler.CONTINUE]
    states = [trials.all[number].status for number in second]
    assert states == [Trial.TERMINATED, Trial.PAUSED, Trial.RUNNING]
    assert trials.scheduler.choose_trial_to_run(trials) is trials.all[4], "it continues once a slot is free"
    assert [trials.report(0, rung, 0.0) for rung in (1, 2, 3)] == [TrialScheduler.CONTINUE] * 3


def test_median_stops_a_trial_below_the_others_after_its_grace() -> None:
    trials = scheduled(5, name="median", grace=2)
    for rung in (1, 2):
        for number, accuracy in enumerate((0.5, 0.625, 0.75)):
            assert trials.report(number, rung, accuracy) == TrialScheduler.CONTINUE
    assert trials.report(3, 1, 0.25) == TrialScheduler.CONTINUE, "within the grace"
    assert trials.report(3, 2, 0.25) == TrialScheduler.STOP
    assert [trials.report(4, rung, 0.6875) for rung in (1, 2)] == [TrialScheduler.CONTINUE] * 2


class FakeTuner:
    """Sets a handler that restores the previous one, as Tune does."""

    def __init__(self, ends: Callable[[], object]) -> None:
        self._ends = ends

    def fit(self) -> None:
        before = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, lambda number, frame: signal.signal(signal.SIGINT, before))
        self._ends()


def ending(error: Exception) -> Callable[[], object]:
    def end() -> None:
        raise error

    return end


@pytest.mark.parametrize("is_pressed", [True, False])
def test_ctrl_c_is_reported_at_any_time(is_pressed: bool) -> None:
    before = signal.getsignal(signal.SIGINT)
    tuner: Any = FakeTuner(lambda: is_pressed and signal.raise_signal(signal.SIGINT))
    assert fit(tuner) == is_pressed
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TuneError("Traceback:\n  line\nOSError: No space left"), "OSError: No space left"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (StorageInternalError("the database is gone"), "the database is gone"),
    ],
)
def test_the_reason_of_a_failed_search_is_one_line(error: Exception, reason: str) -> None:
    tuner: Any = FakeTuner(ending(error))
    with pytest.raises(TransientError, match=f"the search failed; .* Reason: .*{reason}$"):
        fit(tuner)


def test_loggers_do_not_pickle_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray import cloudpickle

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret-password@nowhere/db")
    assert b"secret-password" not in cloudpickle.dumps(loggers_of(parse_sweep({**SWEEP, "log": ["mlflow"]})))


def test_scheduler_none_makes_no_scheduler() -> None:
    assert scheduler_of(parse_sweep({**SWEEP, "scheduler": {"name": "none"}}), []) is None


def study_of(*accuracies: Sequence[float], failed: Sequence[float] = ()) -> list[FrozenTrial]:
    """Makes trials of an earlier session from their accuracies at rungs; the last one is the value of the trial."""
    study = optuna.create_study()
    for *before, last in accuracies:
        rungs = dict(enumerate(before, 1))
        study.add_trial(create_trial(value=last, intermediate_values=rungs, user_attrs={RUNG: len(before) + 1}))
    if failed:
        study.add_trial(create_trial(state=TrialState.FAIL, intermediate_values=dict(enumerate(failed, 1))))
    return study.trials


def test_asha_compares_with_trials_of_earlier_sessions() -> None:
    trials = scheduled(2, study_of([0.5, 0.625, 0.75, 0.875], [0.25]), name="asha", grace=1, factor=2)
    assert [trials.report(0, rung, 0.625) for rung in (1, 2)] == [TrialScheduler.CONTINUE] * 2
    assert trials.report(1, 1, 0.25) == TrialScheduler.STOP


def test_median_compares_with_trials_of_earlier_sessions() -> None:
    """The rungs of failed trials count too."""
    trials = scheduled(2, study_of([0.5, 0.5], [0.625, 0.625], failed=[0.75, 0.75]), name="median", grace=2)
    assert trials.report(0, 2, 0.25) == TrialScheduler.STOP
    assert trials.report(1, 2, 0.6875) == TrialScheduler.CONTINUE


def test_hyperband_starts_with_empty_brackets() -> None:
    trials = scheduled(3, study_of(*[[0.5, 0.5]] * 3), name="hyperband", factor=2)
    assert [trials.report(0, rung, 0.0) for rung in (1, 2, 3)] == [TrialScheduler.CONTINUE] * 3


def test_a_search_ends_when_its_hours_are_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hours of earlier sessions count."""
    monkeypatch.setattr(tuner, "seconds_spent", lambda study: 3000.0)
    spending = Spending(parse_sweep({**SWEEP, "budget": {"hours": 1}}), optuna.create_study())
    now = time.time()
    assert not spending.stop_all()
    monkeypatch.setattr(tuner.time, "time", lambda: now + 590)
    assert not spending.stop_all()
    monkeypatch.setattr(tuner.time, "time", lambda: now + 610)
    assert spending.stop_all()


def test_repeated_rungs_do_not_reduce_the_spent_budget() -> None:
    sweep = parse_sweep({**SWEEP, "settings": SHORT, "budget": {"outer_steps": 4}})
    spending = Spending(sweep, optuna.create_study())
    for number, spent in ((2, False), (4, True), (1, True)):
        assert not spending("one", {**rung(number, 0.5), "config": {}})
        assert spending.stop_all() == spent


def test_a_search_without_nodes_gives_up_after_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes: list[dict[str, float]] = [{"CPU": 2.0}]
    monkeypatch.setattr(tuner, "present_nodes", lambda: nodes)
    monkeypatch.setattr(capacity, "describe_capacity", lambda: "Ray has 0 CPUs")
    watch, trial = NodesWatch(Needs(cpus=2), wait_s=0), Trial("mock", stub=True)
    watch.on_step_end(1, [trial])
    nodes.clear()
    trial.set_status(Trial.RUNNING)
    watch.on_step_end(2, [trial])
    trial.set_status(Trial.PENDING)
    with pytest.raises(TransientError, match="1 worker of 2 CPUs found no free resources within 0 s: Ray has 0 CPUs"):
        watch.on_step_end(3, [trial])


@pytest.mark.parametrize(
    ("grows", "asked", "cpus", "found"),
    [
        (False, None, 4, 4),
        (False, 2, 4, 2),
        (False, 9, 4, 4),
        (True, None, 4, 4),
        (True, None, 0, 1),
        (True, 9, 4, 9),
    ],
)
def test_concurrent_trials_are_those_that_fit_or_the_users_number_on_a_cluster(
    grows: bool, asked: int | None, cpus: float, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dream_ray.distributed.tune.executors.is_cluster", lambda: grows)
    monkeypatch.setattr("dream_ray.distributed.tune.executors.present_nodes", lambda: [{"CPU": cpus}])
    assert at_a_time(Needs(), asked) == found


def test_a_result_shows_the_trials_the_best_first() -> None:
    trials = [
        {"trial": number, "state": "done", "accuracy": accuracy, "reason": "", "weights.feature": 0.5}
        for number, accuracy in enumerate((0.25, None, 0.75))
    ]
    found = SweepResult(trials, [], "the budget of trials")
    assert [line.split()[0] for line in repr(found).splitlines()] == ["trials", "trial", "2", "0", "1"]
    assert found._repr_html_().count("<td>0.5</td>") == 3
    points, best = found.plot().axes[0].lines
    assert list(points.get_ydata()) == list(best.get_ydata()) == [25.0, 75.0]
