"""The list of what lies below a directory."""

import json
from pathlib import Path

import pytest
import yaml

import dream_ray
from dream_ray.api.listing import Entry
from dream_ray.config import parse_config, read_settings
from dream_ray.config.nearest_preset import nearest_preset
from dream_ray.errors import UsageError
from dream_ray.sweeps.directory import SweepContext, create_sweep
from dream_ray.sweeps.file import parse_sweep
from tests.conftest import TINY
from tests.experiments.tables import BASE
from tests.runs import create_run
from tests.sweeps.conftest import SWEEP


@pytest.fixture(scope="module")
def root(four_digits_store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs, a sweep and an experiment, the files of which say how far they are."""
    root = tmp_path_factory.mktemp("runs")
    smoke = parse_config({**read_settings(preset="smoke"), "seed": 4})
    create_run(str(root / "a" / "waiting"), smoke, four_digits_store)
    create_run(str(root / "validated"), parse_config(TINY), four_digits_store)
    for step in (2, 4):
        path = root / "validated" / "validation" / f"step-{step:08d}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"step": step, "accuracy": step / 10}))
    (root / "validated" / "failure.json").write_text(json.dumps({"message": "no disk"}))
    create_run(str(root / "old"), smoke, four_digits_store)
    environment = json.loads((root / "old" / "env.json").read_text())
    (root / "old" / "env.json").write_text(json.dumps({**environment, "format_version": 1}))
    create_sweep(parse_sweep(SWEEP), SweepContext(str(root / "search"), four_digits_store, "cpu"))
    create_run(str(root / "search" / "trials" / "hidden"), smoke, four_digits_store)
    (root / "table").mkdir()
    (root / "table" / "experiment.yaml").write_text(yaml.safe_dump(BASE))
    results = {"summary": [{"mean": 0.5}, {"mean": 0.6}], "missing": [], "experiment": BASE}
    measured = {"evaluation": {"split": "test"}}
    (root / "table" / "results.json").write_text(json.dumps({**results, "experiment": measured}))
    return root


def test_every_kind_is_listed_with_its_state(root: Path) -> None:
    waiting, old, search, table, validated = dream_ray.list_runs(root)
    assert waiting == Entry("run", f"{root}/a/waiting", "waiting", "smoke", 0, 120)
    assert old.state.startswith("unreadable: run") and "format version 4; got 1" in old.state
    assert (search.kind, search.state, search.accuracy) == ("sweep", "no trial", None)
    assert (table.kind, table.state, table.preset) == ("experiment", "finished", "four digits, ipc 1")
    assert table.accuracy_text == "60.0 test"
    assert (validated.state, validated.accuracy_text, validated.steps) == ("failed", "40.0 validation", "0/8")


def test_models_are_listed_with_their_accuracy(tmp_path: Path) -> None:
    for name in ("done", "begun"):
        (tmp_path / name).mkdir()
        asked = {"recipe": {"network": {"name": "convnet"}}}
        (tmp_path / name / "training.json").write_text(json.dumps({"asked": asked}))
    accuracy = {"validation": {"correct": 5, "n": 10}, "test": {"correct": 3, "n": 4}}
    description = {"network": {"name": "convnet"}, "accuracy": accuracy}
    (tmp_path / "done" / "model.json").write_text(json.dumps(description))
    begun, done = dream_ray.list_runs(tmp_path)
    assert (begun.kind, begun.state, begun.preset) == ("model", "unfinished", "convnet")
    assert (done.kind, done.state, done.accuracy_text) == ("model", "finished", "75.0 test")


def test_the_list_is_a_table(root: Path) -> None:
    found = dream_ray.list_runs(str(root))
    lines = repr(found).splitlines()
    assert len(lines) == 6 and lines[0].split()[:3] == ["directory", "kind", "state"]
    assert found._repr_html_().count("<tr>") == 6


def test_an_evaluation_on_the_test_split_counts_most(root: Path) -> None:
    evaluation = root / "a" / "waiting" / "evaluation"
    evaluation.mkdir()
    for number, (split, mean, n) in enumerate((("test", 0.7, 2), ("test", 0.8, 5), ("validation", 0.9, 9))):
        rows = [{"evaluated_set": name, "step": None, "mean": mean, "n": n} for name in ("distilled", "whole set")]
        (evaluation / f"{number}.json").write_text(json.dumps({"split": split, "evaluated_sets": rows}))
    assert dream_ray.list_runs(root)[0].accuracy_text == "80.0 test"


def test_nothing_and_a_missing_directory(tmp_path: Path) -> None:
    assert dream_ray.list_runs(tmp_path) == []
    with pytest.raises(UsageError, match="directory .*nothing does not exist"):
        dream_ray.list_runs(tmp_path / "nothing")


def test_the_preset_with_the_fewest_changes() -> None:
    settings = read_settings(preset="cifar10-ipc10")
    assert nearest_preset(parse_config({**settings, "seed": 9})) == "cifar10-ipc10"
    assert nearest_preset(parse_config({**settings, "outer_steps": 3, "log_every": 2})) == "cifar10-ipc10, 2 changed"
    assert nearest_preset(parse_config({**TINY, "ipc": 3})) == "dream_plus, ipc 3"
