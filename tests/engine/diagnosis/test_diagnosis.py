"""A diagnosis shows the selections that a run makes, and writes numbers, pictures and a page of them."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dream_ray import api
from dream_ray.config import parse_config
from dream_ray.config.frameworks import overlay
from dream_ray.core.selection.strategies import STRATEGIES
from dream_ray.data.store.store import Store
from dream_ray.engine.diagnosis import report
from dream_ray.engine.diagnosis.measuring import Diagnosis, measure
from dream_ray.engine.matching.from_config import class_matcher, network_source
from dream_ray.engine.run.normalisation import channel_normalisation
from dream_ray.errors import UsageError
from tests.frameworks import tiny_run

CPU = torch.device("cpu")
NAMES = {"random", *STRATEGIES}


def measured(store: str, settings: dict[str, Any], selections: int = 2) -> Diagnosis:
    config, opened = parse_config(settings), Store.open(store)
    normalise = channel_normalisation(config, opened, CPU)
    shown: list[int] = []

    def progress(status: str, done: int, total: int) -> None:
        shown.append(done)

    found = measure(config, opened, normalise, selections=selections, num_classes=3, progress=progress)
    assert shown == list(range(3 * selections + 1))
    return found


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_selections_are_those_of_a_run(four_digits_store: str, strategy: str) -> None:
    settings = tiny_run("dream_plus", strategy)
    found = measured(four_digits_store, settings)
    config, store = parse_config(settings), Store.open(four_digits_store)
    normalise = channel_normalisation(config, store, CPU)
    selector = class_matcher(config, store, range(4), normalise).selector
    previous: dict[int, torch.Tensor] = {}
    chosen = []
    for snapshot in network_source(config, store, normalise).trajectory(0):
        if config.selects_at(snapshot.inner):
            chosen.append(selector.select_all(snapshot, previous))
            previous = {label: one.assignment_N for label, one in chosen[-1].items()}
    assert found.inner_steps == [0, 2]
    for label in range(3):
        for number, selection in enumerate(found.findings[strategy].chosen[label]):
            assert torch.equal(selection, chosen[number][label].indices)


@pytest.mark.parametrize("framework", ["idc", "dm", "dream_plus"])
def test_every_strategy_is_compared_under_networks_that_need_no_synthetic_images(
    four_digits_store: str, framework: str
) -> None:
    found = measured(four_digits_store, tiny_run(framework, "random"), selections=1)
    assert set(found.findings) == NAMES and found.update_s is None
    for findings in found.findings.values():
        assert len(findings.image_norms) == 3 * 6 and len(findings.batch_norms) == 3
        assert findings.distinct == [len(set(chosen[0].tolist())) for chosen in findings.chosen.values()]
        assert not findings.overlaps


@pytest.fixture(scope="module")
def written(four_digits_store: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The numbers and the directory of a diagnosis."""
    out = tmp_path_factory.mktemp("diagnosis") / "new"
    config = parse_config(tiny_run("dream_plus", "stratified"))
    return api.diagnose(config=config, store=four_digits_store, out=str(out)), out


def test_the_numbers_are_complete(written: tuple[dict[str, Any], Path]) -> None:
    numbers, out = written
    kept = json.loads((out / "diagnosis.json").read_text())
    assert kept == {key: value for key, value in numbers.items() if key != "page"}
    assert (kept["classes"], kept["inner_steps"]) == (["0", "3", "5", "8"], [0, 2])
    assert kept["strategies"].keys() == NAMES
    for found in kept["strategies"].values():
        assert sum(found["histogram"]) == found["gradient_norm_of_images"]["n"] == 2 * 4 * 6
        assert found["gradient_norm_of_batches"]["n"] == 2 * 4
        assert found["gradient_norm_of_batches"]["mean"] <= found["gradient_norm_of_images"]["mean"]
        assert 6 <= found["distinct_images"] <= 12
        assert 0 <= found["overlap"] <= 1
    by_distance = [kept["strategies"][name]["squared_mmd"] for name in ("stratified", "central", "boundary")]
    assert by_distance == sorted(by_distance)


def test_the_page_needs_no_other_file(written: tuple[dict[str, Any], Path]) -> None:
    numbers, out = written
    page = Path(numbers["page"]).read_text()
    assert Path(numbers["page"]).parent == out
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 2 and all(source.startswith("data:image/png;base64,") for source in sources)
    pictures = [base64.b64decode(source.partition(",")[2]) for source in sources]
    assert pictures == [(out / name).read_bytes() for name in ("gradient-norms.png", "chosen-images.png")]
    with Image.open(out / "chosen-images.png") as sheet:
        assert sheet.height > 4 * len(NAMES) * 60, "a row for each class and strategy"
    assert all(f"<td>{name}</td>" in page for name in NAMES)


def test_a_subject_is_shown_as_text(written: tuple[dict[str, Any], Path]) -> None:
    numbers, out = written
    assert "<h1>Diagnosis of &lt;b&gt;</h1>" in report._page(str(out), "<b>", numbers)


def test_times_name_what_they_measure(written: tuple[dict[str, Any], Path]) -> None:
    numbers, _ = written
    lines = report.times(numbers)
    assert "choosing by stratified selection" in lines[0]
    assert re.fullmatch(r"a selection takes \d+ % of the matching time until the next one", lines[-1])
    seconds = numbers["seconds"]
    expected = (seconds["embedding"] + seconds["choosing"]) / (2 * seconds["matching"])
    assert seconds["selection_over_matching"] == pytest.approx(expected)


def test_a_run_has_its_diagnosis_beside_it_and_it_can_be_repeated(four_digits_store: str, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    api.distill(parse_config(tiny_run("dream_plus", "representative")), store=four_digits_store, out=run, local=True)
    for num_classes in (1, 2):
        numbers = api.diagnose(run=run, selections=1, num_classes=num_classes)
        assert len(numbers["classes"]) == num_classes
        assert numbers["page"] == f"{run}/diagnosis/diagnosis.html"
        assert numbers["subject"] == run


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ({"store": None, "config": None}, {}, r"give either a run, or a store with settings .*; got none"),
        ({"run": "run"}, {}, "give either a run, or a store with settings .*; got run and store and settings"),
        ({"config": None}, {}, "give either a run, or a store with settings .*; got store"),
        ({"out": None}, {}, "out must be given without a run, with --out"),
        ({"selections": 0}, {}, r"selections must be an int from 1 to the selections of an outer step \(2\); got 0"),
        ({"selections": 3}, {}, r"selections must be an int from 1 to the selections of an outer step \(2\); got 3"),
        ({"num_classes": 5}, {}, r"num-classes must be an int from 1 to the number of classes \(4\); got 5"),
        ({"cpus_per_worker": 0}, {}, "cpus-per-worker must be an int >= 1; got 0"),
        ({"device": "tpu"}, {}, "device must be one of auto, cpu, cuda; got 'tpu'"),
        ({}, {"framework": "dc"}, "source.kind must be real, random or pool, .*; got synthetic"),
        ({}, {"framework": "mtt"}, "source.kind must be real, random or pool, .*; got expert"),
        ({}, {"framework": "dm", "factor": 1, "data": {"zca": True}}, "data.zca must be false without a run"),
        ({"out": "used"}, {}, "out must be a new directory, or one of an earlier diagnosis; used has other files"),
        ({"store": "nowhere"}, {}, "contains no manifest.json"),
        ({"run": "nowhere", "store": None, "config": None}, {}, "there is no config.yaml in it"),
    ],
)
def test_bad_input_is_refused(
    arguments: dict[str, Any],
    settings: dict[str, Any],
    message: str,
    four_digits_store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    framework = settings.get("framework", "dream_plus")
    config = parse_config(overlay(tiny_run(framework, "random"), settings))
    with pytest.raises(UsageError, match=message):
        api.diagnose(**{"config": config, "store": four_digits_store, "out": "new", **arguments})
    assert not (tmp_path / "new").exists()
