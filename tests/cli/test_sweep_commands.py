"""The commands of sweeps that need no Ray, as a user types them; tests/distributed has the others."""

import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

import dream_ray
from dream_ray import api, cli, storage
from dream_ray.cli import trials
from dream_ray.distributed.cluster import capacity, session
from dream_ray.distributed.tune.search import SweepResult
from dream_ray.errors import UsageError
from dream_ray.sweeps.directory import SweepContext, create_sweep, open_sweep
from dream_ray.sweeps.file import parse_sweep
from dream_ray.sweeps.progress import read_progress
from dream_ray.sweeps.results import BEST, ranked, why_ended, write_results
from dream_ray.sweeps.space import suggest
from dream_ray.sweeps.study import RUNG, open_study

SWEEP: dict[str, Any] = {
    "preset": "smoke",
    "settings": {"evaluation.every": 20, "data.include_validation": False},
    "space": {"pixels.lr": {"log": [1e-4, 1]}, "update.lr": {"log": [1e-4, 1]}},
}
Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs `dream-ray ARGUMENTS` in this process and returns its exit code and its output."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["dream-ray", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
            raise SystemExit(0)
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out + captured.err

    return run


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A sweep with one trial in state running, which no process executes."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sweep, out = parse_sweep(SWEEP), tmp_path / "sweep"
    create_sweep(sweep, SweepContext(str(out), "store", "cpu", max_concurrent=3))
    trial = (study := open_study(str(out), sweep, "store")).ask()
    suggest(sweep.space, trial, sweep.base())
    trial.report(0.625, 1)
    assert study.directions
    return out


def test_status_shows_the_accuracy_of_a_running_trial(call: Call, begun: Path) -> None:
    code, text = call("status", begun)
    assert code == 0 and "accuracy %" in text and "62.5" in text
    assert "pixels.lr" in text and "update.lr" in text, "lr alone is ambiguous"


def test_progress_counts_the_ended_trials(begun: Path, tmp_path: Path) -> None:
    assert read_progress(str(tmp_path / "nothing"), None) == ("starting", 0, 0)
    most = parse_sweep(SWEEP).most_trials
    assert read_progress(str(begun), None) == ("trials: 1 running", 0, most)
    study = open_study(str(begun), parse_sweep(SWEEP), "store")
    study.tell(0, [0.625, *[1.0] * (len(parse_sweep(SWEEP).metrics) - 1)])
    text, ended, total = read_progress(str(begun), None)
    assert (ended, total) == (1, most)
    assert re.match(r"trials: .*1 (done|stopped)", text)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--workers", "2"), "--workers is for runs, and .*sweep is a sweep; its file sets the resources of a trial"),
        (("--local",), "--local is for runs"),
        (("--allow-different-bits",), "--allow-different-bits is for runs"),
    ],
)
def test_resume_of_a_sweep_refuses_options_of_runs(
    option: tuple[str, ...], message: str, call: Call, begun: Path
) -> None:
    code, text = call("resume", begun, *option)
    assert code == 2
    assert re.search(message, text), text


def test_resume_of_a_run_refuses_max_concurrent(call: Call, tmp_path: Path) -> None:
    code, text = call("resume", tmp_path, "--max-concurrent", 2)
    assert code == 2 and "--max-concurrent is for sweeps" in text


def test_resume_refuses_a_sweep_over_another_space(call: Call, begun: Path, digits_store: str) -> None:
    file = begun / "sweep.yaml"
    file.write_text(file.read_text().replace("1.0e-4", "1.0e-5").replace("0.0001", "0.00001"))
    code, text = call("resume", begun)
    assert code == 2 and "resume needs the sweep that" in text


def test_a_sweep_in_use_by_another_process_is_refused(call: Call, begun: Path) -> None:
    with storage.exclusive_lock("sweep", str(begun)):
        code, text = call("resume", begun)
    assert code == 2 and "only one process at a time may use sweep" in text
    assert "interrupted" in call("status", begun)[1], "its trial is unchanged"


def test_a_sweep_that_was_killed_while_it_began_can_begin_again(call: Call, begun: Path) -> None:
    sweep, context = open_sweep(str(begun))
    (begun / "sweep.yaml").unlink()
    with pytest.raises(UsageError, match="must be a new or empty directory"):
        create_sweep(sweep, context)
    (begun / "study.journal").unlink()
    create_sweep(sweep, context)
    assert open_sweep(str(begun)) == (sweep, context)


def test_ctrl_c_before_a_sweep_begins_does_not_suggest_resume(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dream_ray, "sweep", interrupted)
    code, text = call("sweep", "search", "--out", tmp_path / "out")
    assert code == 130 and "interrupted; nothing was written" in text


def interrupted(*arguments: Any, **keywords: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("database", [False, True], ids=["journal", "database"])
def test_a_sweep_without_capacity_leaves_nothing_behind(
    database: bool, digits_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "ray_session", lambda address: nullcontext())
    monkeypatch.setattr(capacity, "is_cluster", lambda: False)
    monkeypatch.setattr(capacity, "present_nodes", lambda: [{"CPU": 2.0}])
    file, out = tmp_path / "sweep.yaml", tmp_path / "out"
    url = f"sqlite:///{tmp_path}/studies.db" if database else None
    file.write_text(yaml.safe_dump({**SWEEP, "resources": {"cpus": 3}}))
    for _ in range(2):
        with pytest.raises(UsageError, match="got 1 worker of 3 CPUs, and Ray has 2 CPUs and 0 GPUs"):
            api.sweep(str(file), store=digits_store, out=str(out), study=url)
    assert not out.exists()
    assert url is None or optuna.get_all_study_names(url) == []


def test_the_best_settings_of_a_sweep_can_be_distilled(
    call: Call, tiny: dict[str, Any], four_digits_store: str, tmp_path: Path
) -> None:
    tiny["evaluation"] |= {"every": 4}
    settings = {
        "config": {**tiny, "data": {"include_validation": False}},
        "space": {"weights.feature": {"log": [1, 9]}},
    }
    sweep = parse_sweep(settings)
    study = open_study(str(tmp_path), sweep, "store")
    trial = study.ask()
    suggest(sweep.space, trial, sweep.base())
    trial.set_user_attr(RUNG, 2)
    study.tell(trial, 0.5)
    write_results(str(tmp_path), sweep, study)
    out = tmp_path / "best"
    code, text = call("distill", "--config", tmp_path / BEST, "--store", four_digits_store, "--out", out, "--local")
    assert code == 0, text
    assert (out / "synthetic.parquet").exists()


def test_wrong_input_to_sweep(call: Call, digits_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dream_ray.distributed.tune.tuner.find_spec", lambda name: None)
    file, out = tmp_path / "sweep.yaml", tmp_path / "out"
    answers = {}
    for name, changed in {
        "no store": {},
        "no such store": {"store": str(tmp_path / "nowhere")},
        "no package": {"store": digits_store, "log": ["wandb"]},
        "typing": {"store": digits_store, "space": {"weights.featur": {"log": [1, 2]}}},
    }.items():
        file.write_text(yaml.safe_dump({**SWEEP, **changed}))
        answers[name] = call("sweep", file, "--out", out)
    assert {code for code, _ in answers.values()} == {2}
    assert f"store must be given, with --store or as `store:` in {file}" in answers["no store"][1]
    assert "nowhere" in answers["no such store"][1]
    assert "log wandb needs a package: pip install 'dream-ray[wandb]'" in answers["no package"][1]
    assert "did you mean weights.feature?" in answers["typing"][1]
    assert not out.exists(), "nothing is written"


def test_tested_settings_are_shown_with_their_cost(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"trial": 0, "state": "done", "rung": 2, "accuracy": 0.8125, "seconds": 12.5, "reason": ""}
    best = {"name": "best", "mean": 0.8125, "std": 0.005, "n": 2, "steps": 240, "compute_s": 12.5, "reasons": []}
    base = {**best, "name": "base", "mean": None, "std": None, "n": 0, "compute_s": None, "reasons": ["not finite"]}
    worse = {**row, "trial": 1, "accuracy": 0.5}
    trials.show_sweep("out", SweepResult([worse, row], [best, base], "all 2 trials of the budget were run"))
    text = capsys.readouterr().out
    assert re.search(r"^ *0 +done .*\n *1 +done ", text, re.M), "the best first"
    assert "ended: all 2 trials of the budget were run\nbest: trial 0, with a validation accuracy of 81.2 %\n" in text
    assert "best settings, tested with new seeds: 81.2 +- 0.5 % (n = 2; 240 steps and 12.5 CPU and GPU" in text
    assert "settings of the sweep file, tested with new seeds: one run failed: not finite" in text


def test_status_says_that_no_process_works_on_a_sweep(call: Call, begun: Path) -> None:
    code, text = call("status", begun)
    assert code == 0 and re.search(r"^ *0 +interrupted ", text, re.M)
    assert f"No process works on this sweep: it was stopped or killed. Run `dream-ray resume {begun}`" in text
    with storage.exclusive_lock("sweep", str(begun)):
        code, text = call("status", begun)
    assert code == 0 and re.search(r"^ *0 +running ", text, re.M) and "No process" not in text


@pytest.mark.parametrize(
    ("budget", "ended"),
    [
        ({"trials": 1}, "all 1 trials of the budget were run"),
        ({"outer_steps": 6}, "the 6 outer steps of the budget are spent, after 1 trials"),
        ({"hours": 2}, "the 2 hours of the budget are spent, after 1 trials"),
    ],
)
def test_the_end_of_a_search_has_its_reason(begun: Path, budget: dict[str, Any], ended: str) -> None:
    sweep, _ = open_sweep(str(begun))
    study = open_study(str(begun), sweep, "store")
    study._storage.set_trial_user_attr(study.trials[0]._trial_id, RUNG, 6)
    study.tell(0, 0.5)
    assert why_ended(parse_sweep({**SWEEP, "budget": budget}), study) == ended


def test_trials_are_ranked() -> None:
    rows = [
        {"state": state, "rung": rung, "accuracy": accuracy, "trial": number}
        for number, (state, rung, accuracy) in enumerate(
            [
                ("failed", None, None),
                ("stopped", 1, 0.9),
                ("done", 6, 0.5),
                ("stopped", 2, 0.1),
                ("done", 6, 0.6),
                ("running", 1, 0.7),
            ]
        )
    ]
    assert [row["trial"] for row in ranked(rows)] == [4, 2, 3, 1, 5, 0]


def test_a_start_outside_of_the_space_says_that_the_settings_are_tried_first(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump({**SWEEP, "space": {"pixels.lr": {"log": [0.1, 1]}}}))
    code, text = call("sweep", file, "--store", "store")
    assert code == 2 and "`start: []`" in text
    assert "the settings themselves, which are tried first, must lie in the space" in " ".join(text.split())
