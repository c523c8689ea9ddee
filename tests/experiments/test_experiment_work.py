"""The work of an experiment: it continues after any kill, keeps to its ceiling and mixes no results."""

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from dream_ray import api, cli, storage
from dream_ray.core.intervals import wilson_interval
from dream_ray.engine.evaluation import kept_results
from dream_ray.engine.progress.heartbeat import Heartbeat
from dream_ray.engine.run.directory import open_run
from dream_ray.errors import UsageError
from dream_ray.experiments import directory, report
from dream_ray.experiments.directory import Session, Table, begin_or_continue, open_table
from dream_ray.experiments.report import read_results, write_report
from dream_ray.experiments.results import read_points, tasks_of
from tests.experiments.tables import BASE, RANDOM, run_table, table_of
from tests.runs import Killed, kill_at

pytestmark = pytest.mark.xdist_group("a whole table")  # so that one process works through it
COMPARISON = {"reference": "random", "targets": [0.01, 0.999]}


@pytest.fixture(scope="module")
def finished(four_digits_store: str, tmp_path_factory: pytest.TempPathFactory) -> Table:
    """A whole table; read only."""
    table = table_of(str(tmp_path_factory.mktemp("table") / "out"), four_digits_store, equal_accuracy=COMPARISON)
    run_table(table)
    return table


@pytest.fixture
def copied(finished: Table, tmp_path: Path) -> Table:
    """The same table, free to change."""
    out = str(shutil.copytree(finished.out, tmp_path / "copied"))
    return Table(out, finished.store, finished.experiment, finished.device)


def accuracies(table: Table) -> dict[tuple[str, int, int], list[float]]:
    return {(row["arm"], row["seed"], row["step"]): row["accuracies"] for row in read_results(table)["points"]}


def test_a_whole_table_has_every_point(finished: Table) -> None:
    results = read_results(finished)
    assert [(row["arm"], row["step"], row["n"]) for row in results["summary"]] == [
        *[("random", step, 1) for step in (0, 4, 8)],
        *[("dream_plus", step, 1) for step in (0, 4, 8)],
    ]
    assert (results["missing"], results["failed"]) == ([], {})
    seconds = [row["cpu_s"] for row in results["points"] if row["arm"] == "random"]
    assert 0 == seconds[0] < seconds[1] < seconds[2]
    assert 0 < results["cpu_hours"] < 0.1
    assert {"store", "numerics", "versions", "device", "threads", "compile"} == results["origin"].keys()
    assert results["settings_digests"].keys() == {"random", "dream_plus"}
    assert len(set(results["settings_digests"].values())) == 2
    (session,) = results["sessions"]
    assert "commit" in session
    assert 3600 * results["cpu_hours"] >= session["cpu_s"]


def test_the_results_are_those_of_evaluate(finished: Table) -> None:
    path = finished.run_path(finished.experiment.cells()[1])
    rows = api.evaluate(path, steps=[4, 8], repeats=2, local=True)
    found = accuracies(finished)
    assert [row["accuracies"] for row in rows] == [found["dream_plus", 0, 4], found["dream_plus", 0, 8]]


def test_balanced_accuracy_is_the_mean_over_the_classes(finished: Table) -> None:
    experiment = finished.experiment
    run = finished.open_run(experiment.cells()[0])
    assert run is not None
    found = [kept_results.read_result(task, run) for _, task in tasks_of(experiment, experiment.cells()[0], run)]
    by_hand = [
        statistics.fmean(hits / images for hits, images in zip(one.hits_L, one.images_L, strict=True))
        for one in found
        if one is not None and one.step == 8
    ]
    (point,) = [one for one in read_points(finished) if (one.arm, one.step) == ("random", 8)]
    assert len(by_hand) == 2 and point.balanced == pytest.approx(statistics.fmean(by_hand))


def test_a_whole_table_does_nothing_again(finished: Table) -> None:
    assert run_table(finished) == []


def test_the_report_shows_everything(copied: Table) -> None:
    results = write_report(copied)
    files = {name: storage.read_bytes(storage.join(copied.out, name)) for name in ("results.json", "curves.png")}
    assert json.loads(files["results.json"]) == results and len(files["curves.png"]) > 1000
    page = storage.read_text(storage.join(copied.out, "results.md"))
    assert "| dream_plus | own | 8 |" in page and "95 % (Student's t)" in page and "of 1. Commits: " in page
    assert "dream_plus  own" in repr(results) and results._repr_html_().count("<table>") == 2
    last = results["summary"][-1]
    by_images = " to ".join(f"{100 * bound:.1f}" for bound in wilson_interval(last["mean"], 141))
    assert f"| {100 * last['balanced']:.1f} | {by_images} |" in page and last["tested"] == 141
    assert "own, against random: dream_plus " in page and "141 test images: one image = 0.71 points" in page
    (comparison,) = results["equal_accuracy"]["arms"].values()
    assert [ratio["target"] for ratio in comparison["steps"]] == [0.01, 0.999]
    assert comparison["steps"][1]["arm"] == [8.0, None], "never reached"
    assert "Missing" not in page
    risen = {**results["equal_accuracy"], "gain_of_last_third": {"random": 0.006, "dream_plus": 0.004}}
    assert (
        "random 0.60 (its end is not reached), dream_plus 0.40."
        in report.page({**results, "equal_accuracy": risen})[-1]
    )


def test_status_prints_the_results(
    copied: Table, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.delete(storage.join(copied.run_path(copied.experiment.cells()[1]), "evaluation"))
    storage.write_text(f"{copied.run_path(copied.experiment.cells()[0])}.reason.txt", "loss must be finite")
    monkeypatch.setattr(sys, "argv", ["dream-ray", "status", copied.out])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    shown = capsys.readouterr().out
    assert "Tiny runs" in shown and re.search(r"random\s+own", shown) and "balanced" in shown
    assert "failed: random-seed-0: loss must be finite" in shown
    assert "missing: dream_plus, seed 0: 6 networks at steps 0, 4, 8" in shown
    assert "CPU hours: 0.0" in shown


@pytest.mark.parametrize("step", [0, 5])
def test_a_kill_changes_no_point(finished: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    table = table_of(str(tmp_path / "out"), finished.store)
    with monkeypatch.context() as patch:
        patch.setattr(Heartbeat, "on_step", kill_at(step))
        with pytest.raises(Killed):
            run_table(table)
    begun = read_results(table)
    assert begun["missing"] and begun["points"], "readable while it runs"
    assert [row["step"] for row in begun["points"]] == [0] if step == 0 else [0, 4]
    run_table(table)
    assert accuracies(table) == accuracies(finished)


@pytest.mark.slow
def test_the_same_command_continues_after_sigkill(finished: Table, tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(BASE))
    command = [sys.executable, "-m", "dream_ray", "experiment", str(file), "--store", finished.store]
    command += ["--out", str(tmp_path / "out"), "--local"]
    for name in ("runs/random-seed-0/evaluation/networks", "runs/dream_plus-seed-0/checkpoints/step-00000004"):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 200
        while not (tmp_path / "out" / name).exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    assert "dream_plus  own" in done.stdout and "missing" not in done.stdout
    assert accuracies(open_table(str(tmp_path / "out"))) == accuracies(finished)


def test_the_ceiling_stops_the_table_and_more_hours_continue_it(finished: Table, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert not run_table(table_of(out, finished.store, cpu_hours=1e-9))
    little = table_of(out, finished.store, cpu_hours=1e-9)
    write_report(little)
    assert "- dream_plus, seed 0: 6 networks at steps 0, 4, 8" in storage.read_text(storage.join(out, "results.md"))
    enough = table_of(out, finished.store)
    run_table(enough)
    assert accuracies(enough) == accuracies(finished)


def test_the_cost_of_a_second_session_of_a_process_adds_to_that_of_the_first(
    four_digits_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of(str(tmp_path / "out"), four_digits_store)
    begin_or_continue(table)
    clock = [100.0]
    monkeypatch.setattr("time.process_time", lambda: clock[0])
    for end in (105.0, 112.0):
        session = Session.begin()
        clock[0] = end
        table.write_session(session)
        table.write_session(session)
    assert [one["cpu_s"] for one in sorted(table.read_sessions(), key=lambda one: one["cpu_s"])] == [5, 7]
    assert table.spent_s() == 12


def test_the_ceiling_stops_a_run_between_two_steps(
    finished: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of(str(tmp_path / "out"), finished.store)
    first = table.run_path(table.experiment.cells()[0])
    checkpoint = storage.join(first, "checkpoints", "step-00000004")
    monkeypatch.setattr(Table, "spent_s", lambda self: 3601.0 if storage.exists(checkpoint) else 0.0)
    assert len(run_table(table)) == 3, "both networks of step 0, and the first one of step 4"
    assert open_run(first).checkpoints().newest() == 4


@pytest.mark.slow
def test_more_seeds_and_arms_continue_a_table(copied: Table) -> None:
    arms = {**BASE["arms"], "third": {"settings": {**RANDOM, "pixels.lr": 0.5}}}
    more = {"equal_accuracy": COMPARISON, "arms": arms, "seeds": 2}
    larger = table_of(copied.out, copied.store, **more)
    lines = run_table(larger)
    assert {line.partition(" ")[0] for line in lines} == {
        "third-seed-0",
        "random-seed-1",
        "dream_plus-seed-1",
        "third-seed-1",
    }
    rows = read_results(larger)["summary"]
    assert [row["n"] for row in rows] == [2] * 9 and all(row["half_width"] is not None for row in rows)
    with pytest.raises(UsageError, match="must include every run of .*; .*-seed-[01] is missing. Put it back"):
        begin_or_continue(copied)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"settings": {**BASE["settings"], "selection.interval": 7}},
            "settings.random.selection.interval was 10, is 7",
        ),
        ({"ipc": 2}, "settings.random.ipc was 1, is 2"),
        (
            {"network": {"name": "convnet", "options": {"depth": 2, "width": 4, "norm": "batch"}}},
            "settings.random.network.options.norm was None, is batch",
        ),
        ({"evaluation": {"steps": [0, 4, 8], "repeats": 3}}, "evaluation.repeats was 2, is 3"),
        ({"resources": {"cpus": 2}}, "origin.threads was 1, is 2"),
        ({"equal_accuracy": None}, "equal_accuracy was .*, is None"),
        (
            {"equal_accuracy": {"reference": "random", "targets": [0.01, 0.5]}},
            r"equal_accuracy.targets was \[0.01, 0.999\], is \[0.01, 0.5\]",
        ),
        (
            {"equal_accuracy": {**COMPARISON, "reference": "dream_plus"}},
            "equal_accuracy.reference was random, is dream_plus",
        ),
    ],
)
def test_another_table_is_refused(finished: Table, changed: dict[str, Any], message: str) -> None:
    changed = {"equal_accuracy": COMPARISON, **changed}
    with pytest.raises(UsageError, match=f"must hold results of the same settings, store.*{message}.*another --out"):
        begin_or_continue(table_of(finished.out, finished.store, **changed))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("library_versions", lambda: {"torch": "9.9"}, "origin.versions.torch was .*, is 9.9"),
        ("NUMERICS", "other", "origin.numerics was .*, is other"),
    ],
)
def test_other_libraries_and_numerics_are_refused(
    finished: Table, monkeypatch: pytest.MonkeyPatch, name: str, value: Any, message: str
) -> None:
    monkeypatch.setattr(directory, name, value)
    with pytest.raises(UsageError, match=message):
        begin_or_continue(finished)


def test_a_later_version_of_the_package_reads_a_table(finished: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_results(finished)
    for module in (directory, kept_results):
        monkeypatch.setattr(module, "library_versions", lambda: {"torch": "9.9"})
        monkeypatch.setattr(module, "NUMERICS", "other")
    assert read_results(open_table(finished.out)) == before


def test_a_version_of_the_package_with_more_settings_reads_a_table(copied: Table) -> None:
    before, path = read_results(copied)["points"], storage.join(copied.out, "table.json")
    values = storage.read_json(path)
    for settings in values["settings"].values():
        del settings["log_every"]
    storage.write_json(path, values)
    assert read_results(open_table(copied.out))["points"] == before


def test_another_store_is_refused(copied: Table) -> None:
    path = storage.join(copied.out, "table.json")
    values = storage.read_json(path)
    values["origin"]["store"] = "0" * 64
    storage.write_json(path, values)
    with pytest.raises(UsageError, match="origin.store was 0000"):
        begin_or_continue(copied)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("numerics", "other", "numerics was .*, is other"),
        ("store_checksum", "1" * 64, "store was .*, is 1111"),
        ("versions", {"torch": "9.9"}, "versions.torch was .*, is 9.9"),
    ],
)
def test_a_run_from_elsewhere_is_not_reported(copied: Table, key: str, value: Any, message: str) -> None:
    """Somebody may copy runs of another machine or version into the directory."""
    path = storage.join(copied.run_path(copied.experiment.cells()[0]), "env.json")
    storage.write_json(path, {**storage.read_json(path), key: value})
    with pytest.raises(UsageError, match=rf"random-seed-0 must hold results of the same .*{message}"):
        read_results(copied)


def test_a_result_of_other_libraries_is_refused_and_is_no_failure_of_its_run(
    copied: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_results, "library_versions", lambda: {"torch": "9.9"})
    with pytest.raises(UsageError, match="versions.torch was .*, is 9.9"):
        run_table(copied)
    assert copied.failure_of(copied.experiment.cells()[0]) is None


def test_a_run_of_other_settings_is_not_reported(copied: Table) -> None:
    first, second = map(copied.run_path, copied.experiment.cells())
    storage.write_bytes(storage.join(first, "config.yaml"), storage.read_bytes(storage.join(second, "config.yaml")))
    with pytest.raises(UsageError, match="settings.initialisation.strategy was random, is representative"):
        read_results(copied)


def test_a_run_that_another_process_has_is_left_to_it(finished: Table, tmp_path: Path) -> None:
    table = table_of(str(tmp_path / "out"), finished.store)
    first, second = table.experiment.cells()
    begin_or_continue(table)
    with storage.claimed(f"{table.run_path(first)}.claim"):
        lines = run_table(table)
    assert {line.partition(" ")[0] for line in lines} == {second.name}
    assert [row["arm"] for row in read_results(table)["missing"]] == [first.arm]


def test_a_run_that_can_never_succeed_is_reported_and_the_table_goes_on(finished: Table, tmp_path: Path) -> None:
    arms = {"wild": {"settings": {"pixels.lr": 1e30}}, "dream_plus": {}}
    table = table_of(str(tmp_path / "out"), finished.store, arms=arms)
    run_table(table)
    results = read_results(table)
    assert results["failed"].keys() == {"wild-seed-0"} and "must be finite" in results["failed"]["wild-seed-0"]
    assert [row["step"] for row in results["summary"] if row["arm"] == "dream_plus"] == [0, 4, 8]
    assert run_table(table) == [], "it is not tried again"
    storage.delete(f"{table.run_path(table.experiment.cells()[0])}.reason.txt")
    run_table(table)
    assert read_results(table)["failed"] == results["failed"], "tried once more"


@pytest.mark.parametrize(
    ("key", "value", "got"),
    [
        ("classes", 10, 4),
        ("shape", [3, 8, 8], r"\(1, 8, 8\)"),
        ("train", 1, r"240 \(train and validation\)"),
        ("test", 1, 141),
    ],
)
def test_a_store_of_another_set_is_refused(finished: Table, out: str, key: str, value: Any, got: Any) -> None:
    with pytest.raises(UsageError, match=rf"store must hold four digits with set\.{key} .*; got {got}. Use a store"):
        begin_or_continue(table_of(out, finished.store, set={**BASE["set"], key: value}))
    assert not storage.exists(out)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"name": "resnet9"}, "network must be one of convnet.*; got 'resnet9'"),
        ({"name": "convnet", "options": {"widht": 4}}, "widht"),
        ({"name": "convnet", "options": {"depth": 9}}, "depth"),
    ],
)
def test_an_evaluated_network_is_checked_before_anything_is_distilled(
    four_digits_store: str, out: str, network: dict[str, Any], message: str
) -> None:
    evaluation = {**BASE["evaluation"], "networks": {"small": BASE["network"], "other": network}}
    with pytest.raises(UsageError, match=rf"arms\.random: network other: .*{message}"):
        begin_or_continue(table_of(out, four_digits_store, evaluation=evaluation))
    assert not storage.exists(out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "gpu"}, "device must be one of auto, cpu, cuda; got 'gpu'"),
        ({"max_concurrent": 0}, "max-concurrent must be an int >= 1; got 0"),
        ({"max_concurrent": -1, "local": False}, "max-concurrent must be an int >= 1; got -1"),
        ({"max_concurrent": 2}, "max-concurrent must be 1 with local; got 2. Start the same command once more"),
        ({}, "resources.workers must be 1 with local; got 2. Leave out local"),
    ],
)
def test_arguments_that_break_a_rule_are_refused(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    file = tmp_path / "table.yaml"
    file.write_text(yaml.safe_dump({**BASE, "resources": {"workers": 2}}))
    with pytest.raises(UsageError, match=message):
        api.experiment(str(file), **{"store": "nowhere", "out": str(tmp_path / "out"), "local": True, **arguments})


def test_a_directory_with_other_files_is_refused(finished: Table, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="out must be a new directory or .* in it. Use another --out"):
        begin_or_continue(table_of(str(tmp_path), finished.store))
