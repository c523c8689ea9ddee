"""The study of a sweep: resume, budget, results and databases."""

import re
import signal
from pathlib import Path
from typing import Any

import optuna
import pyarrow.parquet as pq
import pytest
from optuna.trial import TrialState

from dream_ray.errors import RunError, UsageError
from dream_ray.sweeps import journal
from dream_ray.sweeps.directory import SweepContext, check_new_sweep, create_sweep
from dream_ray.sweeps.file import num_rungs, parse_sweep
from dream_ray.sweeps.results import RESULTS, read_rows, rows_of, write_results
from dream_ray.sweeps.space import suggest
from dream_ray.sweeps.study import (
    JOURNAL,
    RUNG,
    best_trials,
    counted_trials,
    open_study,
    outer_steps_spent,
    requeue,
    running_trials,
    seconds_spent,
)

SWEEP: dict[str, Any] = {
    "preset": "smoke",
    "settings": {"evaluation.every": 10, "checkpoint_every": 10, "data.include_validation": False},
    "space": {"selection.num_clusters": {"int": [8, 64]}, "weights.feature": {"log": [0.01, 10]}},
    "start": [{"weights.feature": 2.0}],
}


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def ask(study: optuna.Study, sweep: Any) -> tuple[optuna.Trial, dict[str, Any]]:
    trial = study.ask()
    return trial, suggest(sweep.space, trial, sweep.base())


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_start_points_come_first_and_interrupted_trials_run_again(
    tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is a file, or several parts in a bucket, whose objects cannot grow."""
    monkeypatch.setattr(journal, "_PART_BYTES", 500)
    directory, sweep = f"{scheme}{tmp_path}", parse_sweep(SWEEP)
    study = open_study(directory, sweep, "store")
    first, values = ask(study, sweep)
    assert values["weights.feature"] == 2.0
    assert values["selection.num_clusters"] == sweep.base().selection.num_clusters, "the value of the settings"
    study.tell(first, 0.5)
    _, cut_off = ask(study, sweep)

    again = open_study(directory, sweep, "store")
    requeue(again, running_trials(again))
    assert [trial.number for trial in counted_trials(again)] == [0], "a repeated trial counts once"
    trial, repeated = ask(again, sweep)
    assert repeated == cut_off
    again.tell(trial, 0.75)
    assert len(counted_trials(again)) == 2
    assert running_trials(open_study(directory, sweep, "store")) == []
    assert (tmp_path / JOURNAL).is_dir() == bool(scheme)
    assert not scheme or len(list((tmp_path / JOURNAL).iterdir())) > 2


def test_a_start_point_survives_a_kill_before_its_trial_has_values(tmp_path: Path) -> None:
    sweep = parse_sweep(SWEEP)
    study = open_study(str(tmp_path), sweep, "store")
    study.ask()
    requeue(study, running_trials(study))
    assert ask(study, sweep)[1] == sweep.start_points()[0]


def test_a_kill_between_the_two_entries_of_a_requeue_loses_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = parse_sweep(SWEEP)
    study = open_study(str(tmp_path), sweep, "store")
    study.ask()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(study, "tell", lambda number, state: signal.raise_signal(signal.SIGINT))
        requeue(study, running_trials(study))
    again = open_study(str(tmp_path), sweep, "store")
    requeue(again, running_trials(again))
    assert [trial.state for trial in again.trials] == [TrialState.FAIL, TrialState.WAITING]
    assert again.trials[1].user_attrs == {"again": 0}


def test_the_documented_snippet_opens_the_study(tmp_path: Path) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "search-for-settings.md"
    [snippet] = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    ours = open_study(str(tmp_path), parse_sweep(SWEEP), "store")
    found: dict[str, Any] = {}
    exec(snippet.replace("OUT", str(tmp_path)), found)
    assert len(found["study"].trials) == len(ours.trials) == 1


def test_a_study_of_another_store_is_refused(tmp_path: Path) -> None:
    open_study(str(tmp_path), parse_sweep(SWEEP), "store")
    with pytest.raises(UsageError, match="resume needs the sweep that .* began with"):
        open_study(str(tmp_path), parse_sweep(SWEEP), "another")


def test_another_sampler_makes_another_search_and_a_larger_budget_does_not(tmp_path: Path) -> None:
    """The points of a grid are put into the study when it is made."""
    changed = {**SWEEP, "space": {"weights.feature": {"choices": [0.1, 1.0]}}, "start": []}
    open_study(str(tmp_path), parse_sweep(changed), "store")
    open_study(str(tmp_path), parse_sweep({**changed, "budget": {"trials": 99}}), "store")
    with pytest.raises(UsageError, match="sampler or store have changed"):
        open_study(str(tmp_path), parse_sweep({**changed, "sampler": {"name": "grid"}}), "store")


def test_a_damaged_study_is_reported(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text("{not json}\n" * 3)
    with pytest.raises(RunError, match=r"the study of .* is damaged"):
        open_study(str(tmp_path), parse_sweep(SWEEP), "store")


def test_an_incomplete_entry_damages_no_other(tmp_path: Path) -> None:
    sweep = parse_sweep(SWEEP)
    study = open_study(str(tmp_path), sweep, "store")
    trial, _ = ask(study, sweep)
    study.tell(trial, 0.5)
    _, cut_off = ask(study, sweep)
    journal = tmp_path / JOURNAL
    whole = journal.read_bytes()
    for cut in (1, 10, 60):
        journal.write_bytes(whole[:-cut])
        again = open_study(str(tmp_path), sweep, "store")
        requeue(again, running_trials(again))
        _, values = ask(again, sweep)
        assert values["selection.num_clusters"] == cut_off["selection.num_clusters"], "the incomplete entry is gone"
        assert len(counted_trials(open_study(str(tmp_path), sweep, "store"))) == 2, "the journal is readable"


def test_an_entry_on_a_full_disk_damages_no_other(tmp_path: Path) -> None:
    """Tune neither stops at the failed write nor reports it."""
    sweep = parse_sweep(SWEEP)
    study = open_study(str(tmp_path), sweep, "store")
    trial, _ = ask(study, sweep)
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"op_code":6,"worker')
    study.tell(trial, 0.5)
    assert [trial.value for trial in counted_trials(open_study(str(tmp_path), sweep, "store"))] == [0.5]


def test_best_values_come_from_a_whole_trial(tmp_path: Path) -> None:
    sweep = parse_sweep(SWEEP)
    study = open_study(str(tmp_path), sweep, "store")
    assert best_trials(study, sweep) == []
    rungs = num_rungs(sweep.base())
    for accuracy, reached in ((None, 1), (0.25, rungs), (0.75, rungs), (0.5, rungs), (0.875, rungs - 1)):
        trial, values = ask(study, sweep)
        trial.set_user_attr(RUNG, reached)
        if accuracy is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, accuracy)
        if accuracy == 0.75:
            best = values
    assert best_trials(study, sweep)[0].params == best, "neither a failed trial nor a stopped one"


def test_a_sweep_without_trials_has_results(tmp_path: Path) -> None:
    """For example after Ctrl-C before the first trial."""
    sweep = parse_sweep({**SWEEP, "start": []})
    study = open_study(str(tmp_path), sweep, "store")
    with pytest.raises(RunError, match="no trial of the sweep succeeded; the last reason: none began"):
        write_results(str(tmp_path), sweep, study)
    assert pq.read_table(tmp_path / RESULTS).num_rows == 0


def test_the_spent_budget_counts_every_trial_once(tmp_path: Path) -> None:
    sweep = parse_sweep({**SWEEP, "seeds": 2, "budget": {"outer_steps": 100}})
    base = sweep.base()
    study = open_study(str(tmp_path), sweep, "store")
    assert outer_steps_spent(sweep, study) == 0 and seconds_spent(study) == 0
    for reached in (num_rungs(base), 2):
        trial, _ = ask(study, sweep)
        trial.set_user_attr(RUNG, reached)
        study.tell(trial, 0.5)
    ask(study, sweep)  # still running
    part = 2 * base.evaluation.every // base.inner_steps
    assert outer_steps_spent(sweep, study) == 2 * base.outer_steps + part
    assert 0 < seconds_spent(study) < 10


def test_incompatible_values_are_the_reason_of_a_failure(tmp_path: Path) -> None:
    space = {f"weights.{name}": {"choices": [0, 1]} for name in ("feature", "gradient")}
    sweep = parse_sweep({**SWEEP, "space": space, "start": []})
    study = open_study(str(tmp_path), sweep, "store")
    study.enqueue_trial(dict.fromkeys(space, 0))
    trial, _ = ask(study, sweep)
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    [row] = rows_of(str(tmp_path), sweep, study)
    assert row["state"] == "failed" and "feature and gradient cannot both be 0" in row["reason"]
    assert outer_steps_spent(sweep, study) == 0


def test_zero_concurrent_trials_are_refused() -> None:
    with pytest.raises(UsageError, match=r"max-concurrent must be an int >= 1; got 0"):
        SweepContext("out", "store", "cpu", max_concurrent=0)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(UsageError, match=r"device must be one of auto, cpu, cuda; got 'tpu'"):
        SweepContext("out", "store", "tpu")


def test_an_earlier_sweep_informs_only_the_sampler(tmp_path: Path) -> None:
    sweep = parse_sweep(SWEEP)
    first, second = (SweepContext(str(tmp_path / name), "store", "cpu", None) for name in ("first", "second"))
    create_sweep(sweep, first)
    study = open_study(first.out, sweep, "store")
    for accuracy in (0.25, 0.75):
        trial, values = ask(study, sweep)
        study.tell(trial, accuracy)

    later = parse_sweep({**SWEEP, "earlier": [first.out]})
    create_sweep(later, second)
    study = open_study(second.out, later, "store")
    assert [trial.values for trial in study.trials[1:]] == [[0.25], [0.75]]
    assert study.trials[2].params == values
    states = [row["state"] for row in rows_of(second.out, later, study)]
    assert counted_trials(study) == [] and states == ["waiting", "earlier", "earlier"]
    assert best_trials(study, later) == []
    trial, values = ask(study, sweep)
    assert values["weights.feature"] == 2.0, "the start point of the new sweep comes first"


def test_an_earlier_sweep_over_another_space_is_refused(tmp_path: Path) -> None:
    create_sweep(parse_sweep(SWEEP), SweepContext(str(tmp_path / "first"), "store", "cpu", None))
    other = {**SWEEP, "space": {"weights.feature": {"log": [0.01, 20]}}, "earlier": [str(tmp_path / "first")]}
    with pytest.raises(
        UsageError, match=r"earlier must name sweeps over the same space and metrics; .*first has others"
    ):
        check_new_sweep(parse_sweep(other), SweepContext(str(tmp_path / "second"), "store", "cpu", None))
    with pytest.raises(UsageError, match="earlier must name directories of sweeps; .*nowhere holds none"):
        check_new_sweep(
            parse_sweep({**SWEEP, "earlier": [str(tmp_path / "nowhere")]}),
            SweepContext(str(tmp_path / "x"), "s", "cpu", None),
        )


def test_a_study_in_a_database_needs_its_url_and_never_writes_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/secret.db"
    out = tmp_path / "sweep"
    create_sweep(parse_sweep(SWEEP), SweepContext(str(out), "store", "cpu", url))
    assert read_rows(str(out), url) == [], "not begun"
    open_study(str(out), parse_sweep(SWEEP), "store", url)
    with pytest.raises(UsageError, match="study must be the URL of the database"):
        read_rows(str(out))
    assert [row["state"] for row in read_rows(str(out), url)] == ["waiting"]
    assert not (out / JOURNAL).exists()
    assert "secret" not in "".join(path.read_text() for path in out.iterdir())
    assert optuna.load_study(study_name="dream_ray-sweep", storage=url).directions
    other = tmp_path / "elsewhere" / "other"
    create_sweep(parse_sweep(SWEEP), SweepContext(str(other), "store", "cpu", url))
    open_study(str(other), parse_sweep(SWEEP), "another", url)  # a database may hold several
    with pytest.raises(UsageError, match="out must have a new name; the database already has a study dream_ray-sweep"):
        check_new_sweep(parse_sweep(SWEEP), SweepContext(str(tmp_path / "elsewhere" / "sweep"), "store", "cpu", url))


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("sqlite:///{}/damaged.db", RunError, "the study of .* is damaged or cannot be read: file is not a database$"),
        ("sqlite:///{}/no/such.db", RunError, "cannot be read: unable to open database file$"),
        ("nonsense", RunError, "Could not parse SQLAlchemy URL"),
        (
            "mssql://somebody:password@there/x",
            UsageError,
            r"needs another package \(PostgreSQL: pip install 'dream-ray\[postgresql\]' .* postgresql\+psycopg://\)",
        ),
    ],
)
def test_an_unusable_database_is_refused_before_anything_is_written(
    url: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    (tmp_path / "damaged.db").write_text("not a database" * 100)
    out = tmp_path / "sweep"
    with pytest.raises(error, match=message) as raised:
        check_new_sweep(parse_sweep(SWEEP), SweepContext(str(out), "store", "cpu", url.format(tmp_path)))
    assert not out.exists() and "password" not in str(raised.value)


def test_best_trials_of_two_metrics_are_the_front_of_whole_trials(tmp_path: Path) -> None:
    sweep = parse_sweep({**SWEEP, "metrics": ["accuracy", "compute_s"], "scheduler": {"name": "none"}})
    study = open_study(str(tmp_path), sweep, "store")
    rungs = num_rungs(sweep.base())
    results = {(0.5, 10.0): rungs, (0.75, 20.0): rungs, (0.5, 15.0): rungs, (0.875, 5.0): 1, (0.25, 5.0): rungs}
    for values, reached in results.items():
        trial, _ = ask(study, sweep)
        trial.set_user_attr(RUNG, reached)
        study.tell(trial, values)
    assert [trial.number for trial in best_trials(study, sweep)] == [1, 0, 4], "sorted by accuracy; trial 3 was stopped"


def test_a_running_trial_shows_its_progress(tmp_path: Path) -> None:
    sweep = parse_sweep(SWEEP)
    study = open_study(str(tmp_path), sweep, "store")
    trial, _ = ask(study, sweep)
    for step, accuracy in ((1, 0.25), (2, 0.5)):
        trial.report(accuracy, step)
    [row] = rows_of(str(tmp_path), sweep, study)
    assert (row["state"], row["accuracy"]) == ("running", 0.5) and 0 <= row["seconds"] < 60


@pytest.mark.parametrize("name", ["tpe", "multivariate_tpe", "cma_es", "nsga2", "gp", "random", "grid"])
def test_every_sampler_proposes(name: str, tmp_path: Path) -> None:
    space: dict[str, Any] = SWEEP["space"]
    if name == "grid":
        space = {"weights.feature": {"choices": [1.0, 2.0, 3.0, 4.0]}}
    sweep = parse_sweep({**SWEEP, "space": space, "start": [], "sampler": {"name": name}})
    study = open_study(str(tmp_path), sweep, "store")
    seen = []
    for accuracy in (0.25, 0.75, 0.5, 0.625):
        trial, values = ask(study, sweep)
        assert all(sweep.space[path].holds(value) for path, value in values.items()) and set(values) == set(space)
        study.tell(trial, accuracy)
        seen.append(values["weights.feature"])
    assert len(set(seen)) == 4
    assert sweep.most_trials == (4 if name == "grid" else sweep.budget.trials)
