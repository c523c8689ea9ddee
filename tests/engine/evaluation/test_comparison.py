"""Comparison of runs of one store."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dream_ray
from dream_ray.config import parse_config
from dream_ray.engine.evaluation.comparison import Curve, _accuracy_tables
from dream_ray.errors import UsageError
from tests.conftest import TINY
from tests.runs import create_run, run_all


def report(run: Path, name: str, mean: float, n: int, evaluated_set: str = "distilled") -> None:
    """Writes a kept evaluation."""
    row = {"evaluated_set": evaluated_set, "step": None, "mean": mean, "half_width": 0.01 if n > 1 else None, "n": n}
    network = {"name": "convnet", "options": {"width": 4}}
    document = {"network": network, "protocol": "quick", "split": "test", "evaluated_sets": [row]}
    (run / "evaluation").mkdir(exist_ok=True)
    (run / "evaluation" / f"{name}.json").write_text(json.dumps(document))


@pytest.fixture(scope="module")
def runs(four_digits_store: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished run with validations and evaluations, and one with another rate that has not begun."""
    from dream_ray.engine.run.lifecycle import finish_run

    first, second = (tmp_path_factory.mktemp(name) / "run" for name in ("first", "second"))
    run = create_run(str(first), parse_config(TINY), four_digits_store)
    run_all(run, 2)
    finish_run(run)
    (first / "validation").mkdir()
    for step, accuracy in ((0, 0.5), (4, 0.75)):
        (first / "validation" / f"step-{step:08d}.json").write_text(json.dumps({"step": step, "accuracy": accuracy}))
    report(first, "n=1", 0.25, 1)
    report(first, "n=3", 0.5, 3)
    report(first, "baseline", 0.4, 1, "random real")
    changed = parse_config({**TINY, "seed": 3, "pixels": {"lr": 0.5}})
    create_run(str(second), changed, four_digits_store)
    return first, second


def test_settings_that_differ(runs: tuple[Path, Path]) -> None:
    found = dream_ray.compare(runs)
    assert found.settings == {"seed": [0, 3], "pixels.lr": [parse_config(TINY).pixels.lr, 0.5]}
    assert [run.name for run in found.runs] == [f"{path.parent.name}/run" for path in runs]


def test_the_larger_of_two_evaluations_counts(runs: tuple[Path, Path]) -> None:
    rows = dream_ray.compare(runs).accuracies
    assert [(row["evaluated_set"], row["mean"], row["n"]) for row in rows] == [
        ("random real", 0.4, 1),
        ("distilled", 0.5, 3),
    ]
    assert {(row["network"], row["protocol"], row["split"]) for row in rows} == {("convnet, width 4", "quick", "test")}


def test_curves_have_steps_and_the_seconds_until_them(runs: tuple[Path, Path]) -> None:
    finished, waiting = dream_ray.compare(runs).runs
    rows = [json.loads(line) for line in (runs[0] / "metrics.jsonl").read_text().splitlines()]
    assert finished.losses.steps == [1, 2, 3, 4, 5, 6, 7, 8]
    assert finished.losses.values == [row["loss"] for row in rows]
    seconds = [sum(row["seconds"] for row in rows[: step + 1]) for step in range(8)]
    assert finished.losses.seconds == pytest.approx(seconds)
    assert finished.validation == Curve([0, 4], [0.0, pytest.approx(seconds[3])], [0.5, 0.75])
    assert waiting.losses == waiting.validation == Curve([], [], [])


def test_the_accuracy_before_a_run_was_lengthened_names_its_step(runs: tuple[Path, Path]) -> None:
    document = json.loads((runs[0] / "evaluation" / "n=3.json").read_text())
    (runs[0] / "evaluation" / "n=3.json").write_text(json.dumps({**document, "steps": 4}))
    rows = dream_ray.compare(runs).accuracies
    assert [(row["evaluated_set"], row["step"], row["n"]) for row in rows] == [
        ("random real", None, 1),
        ("distilled", None, 1),
        ("distilled", 4, 3),
    ]
    assert dream_ray.list_runs(runs[0])[0].accuracy == 0.25, "that of the present set"
    (runs[0] / "evaluation" / "n=3.json").write_text(json.dumps(document))


def test_distilled_sets_are_compared_with_the_first_one() -> None:
    scores = {"step": None, "n": 3, "half_width": 0.01, "tested": 1000, "balanced": 0.4, "test_interval": [0.4, 0.6]}
    rows = [
        {"run": "a", "evaluated_set": "random real", "mean": 0.3, **scores},
        {"run": "a", "evaluated_set": "distilled", "mean": 0.5, **scores},
        {"run": "b", "evaluated_set": "distilled", "mean": 0.6, **scores},
        {"run": "c", "evaluated_set": "distilled", "mean": 0.51, **scores, "half_width": None, "n": 1},
    ]
    accuracies, differences = _accuracy_tables("kind", rows)
    assert accuracies.rows[1] == ["a", "distilled", "50.0 +- 1.0", "3", "40.0", "40.0 to 60.0"]
    # By hand: 1.96**2 * (0.25 + 0.24) / 1000 and 2 * 0.01**2 under the root.
    assert differences.rows[0] == ["b, distilled +10.0 +- 4.6 points: beyond noise"]
    assert differences.rows[1][0].endswith(": within noise") and len(differences.rows) == 2


def test_files_and_tables(runs: tuple[Path, Path], tmp_path: Path) -> None:
    found = dream_ray.compare(runs, out=tmp_path)
    document: dict[str, Any] = json.loads((tmp_path / "comparison.json").read_text())
    assert document["settings"] == found.settings and document["accuracies"] == found.accuracies
    for name in ("curves.png", "images.png"):
        with Image.open(tmp_path / name) as picture:
            assert len(np.unique(np.asarray(picture))) > 10
    text = repr(found)
    assert "pixels.lr" in text and "50.0 +- 1.0" in text and "random real" in text
    assert "<td>pixels.lr</td>" in found._repr_html_()
    assert len(found.plot().axes) == 4 and len(found.plot_images().axes) == 2


def test_runs_of_two_stores_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """The content of a store counts, not its path."""
    other = tmp_path / "other"
    shutil.copytree(runs[1], other)
    environment = json.loads((other / "env.json").read_text())
    (other / "env.json").write_text(json.dumps({**environment, "store": "/moved/store"}))
    dream_ray.compare([runs[0], other])
    (other / "env.json").write_text(json.dumps({**environment, "store_checksum": "0123456789abcdef"}))
    with pytest.raises(UsageError, match="runs must be of one store; .*that of .*/other 0123456789ab"):
        dream_ray.compare([runs[0], other])


def test_one_run_is_no_comparison(runs: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="runs must be at least two directories of runs; got 1"):
        dream_ray.compare(runs[:1])
    with pytest.raises(UsageError, match="runs must be different"):
        dream_ray.compare([runs[0], f"{runs[0]}/"])
    with pytest.raises(UsageError, match="runs must be a list of directories; got 'runs/a'"):
        dream_ray.compare("runs/a")
    with pytest.raises(UsageError, match="run nothing does not exist"):
        dream_ray.compare([runs[0], "nothing"])
