"""Evaluation of bare sets, moved stores, other stores and unfinished runs."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dream_ray import api, storage
from dream_ray.config import parse_config
from dream_ray.data.ingest import ingest
from dream_ray.engine.evaluation.opening import BareSet, open_evaluated
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.directory import Run, open_run
from dream_ray.engine.run.sets import set_file
from dream_ray.errors import UsageError
from tests.conftest import FOUR_DIGITS, TINY
from tests.runs import Killed, create_run, kill_at, work

ONE: dict[str, Any] = {"repeats": 1, "baselines": (), "local": True}


@pytest.fixture(scope="module")
def finished(four_digits_store: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = str(tmp_path_factory.mktemp("finished") / "run")
    api.distill(parse_config(TINY), store=four_digits_store, out=path, local=True)
    return open_run(path)


@pytest.fixture(scope="module")
def other_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of the same classes whose splits are others."""
    path = str(tmp_path_factory.mktemp("other") / "store")
    ingest(FOUR_DIGITS.__class__(**{**vars(FOUR_DIGITS), "validation": 0.3}), path)
    return path


@pytest.fixture
def stopped(four_digits_store: str, out: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that a kill ended after seven of eight steps."""
    run = create_run(out, parse_config(TINY), four_digits_store)
    with monkeypatch.context() as patch:
        patch.setattr("dream_ray.engine.progress.heartbeat.Heartbeat.on_step", kill_at(6))
        with pytest.raises(Killed):
            work(run.path, range(4))
    return run


def accuracies(*arguments: Any, **options: Any) -> list[list[float]]:
    return [row["accuracies"] for row in api.evaluate(*arguments, **{**ONE, **options})]


def test_a_bare_file_gives_the_accuracy_of_its_run(
    finished: Run, four_digits_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = accuracies(finished.path)
    file = str(shutil.copy(finished.set_file, tmp_path / "colleague.parquet"))
    monkeypatch.chdir(tmp_path)
    assert accuracies("colleague.parquet") == expected, "its store is where it was"
    moved = str(shutil.copytree(four_digits_store, tmp_path / "moved"))
    (row,) = api.evaluate(file, store=moved, **ONE)
    assert row["accuracies"] == expected[0]
    assert row["report"].startswith(f"{tmp_path}/colleague-evaluation/store-")
    assert open_evaluated(finished.set_file) == finished, "the set of a run is evaluated as the run"


def test_the_store_of_a_run_may_have_moved(finished: Run, four_digits_store: str, tmp_path: Path) -> None:
    run = Run(str(shutil.copytree(finished.path, tmp_path / "run")), finished.config, finished.environment)
    moved = str(shutil.copytree(four_digits_store, tmp_path / "moved"))
    storage.write_json(run.file("env.json"), {**run.environment, "store": "/gone"})
    with pytest.raises(UsageError, match="store /gone, which run .* distils, does not exist.* with --store"):
        api.evaluate(run.path, **ONE)
    shutil.copy(run.set_file, tmp_path / "set.parquet")
    assert accuracies(run.path, store=moved) == accuracies(finished.path)


def test_another_store_tests_with_the_normalisation_of_the_set(
    finished: Run, other_store: str, caplog: pytest.LogCaptureFixture
) -> None:
    opened = open_evaluated(finished.path, other_store)
    assert isinstance(opened, BareSet) and not opened.is_own_store
    _, description = read_synthetic(finished.set_file)
    normalise = opened.normalise(opened.open_store(), torch.device("cpu"))
    mean_1CHW = torch.tensor(description["mean"]).reshape(1, -1, 1, 1)
    assert normalise(mean_1CHW).abs().max() < 1e-6
    (row,) = api.evaluate(finished.path, store=other_store, **ONE)
    assert "none of its test images were distilled" in caplog.text
    assert "/evaluation/store-" in row["report"]
    assert storage.read_json(row["report"])["origin"]["store"] == opened.environment["store_checksum"]


def test_results_of_another_set_at_the_same_path_are_refused(
    finished: Run, stopped: Run, four_digits_store: str, tmp_path: Path
) -> None:
    file = str(shutil.copy(finished.set_file, tmp_path / "set.parquet"))
    api.evaluate(file, store=four_digits_store, **ONE)
    shutil.copy(set_file(stopped.path), file)
    with pytest.raises(UsageError, match="set was .*, is .* Move it away"):
        api.evaluate(file, store=four_digits_store, **ONE)


def test_an_unfinished_run_is_evaluated_at_its_newest_checkpoint(stopped: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = api.evaluate(stopped.path, **ONE)
    assert row["step"] == 6
    (again,) = api.evaluate(stopped.path, steps=[6], **ONE)
    assert again["accuracies"] == row["accuracies"]
    dataset = api.load_synthetic(stopped.path)
    assert dataset.images_NCHW.shape == (4 * 4, 1, 8, 8)
    assert storage.exists(stopped.file("partial-step-00000006.png"))
    # Workers that go on delete the checkpoint; what was written stays.
    storage.delete(stopped.checkpoints().directory(6))
    assert accuracies(stopped.path, steps=[6], repeats=2)[0][0] == row["mean"]


def test_a_set_is_that_of_the_newest_checkpoint_if_the_first_one_looked_at_is_deleted(
    stopped: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints, found = stopped.checkpoints(), iter([4, 6])
    storage.delete(checkpoints.directory(4))
    monkeypatch.setattr(type(checkpoints), "newest", lambda self: next(found))
    assert set_file(stopped.path) == stopped.partial_file(6)


def test_a_run_without_a_checkpoint_has_no_set(four_digits_store: str, out: str) -> None:
    create_run(out, parse_config(TINY), four_digits_store)
    with pytest.raises(UsageError, match=r"must have a complete checkpoint; it has none yet\. `dream-ray status"):
        api.load_synthetic(out)


def test_results_of_earlier_versions_are_read(finished: Run) -> None:
    """They did not count the images of classes."""
    (row,) = api.evaluate(finished.path, **ONE)
    recipe = finished.file("evaluation", "networks", "convnet-quick-test")
    path = storage.join(recipe, "distilled-step-00000008-0000.json")
    kept = storage.read_json(path)
    for name in ("hits_L", "images_L"):
        del kept["result"][name]
    storage.write_json(path, kept)
    (earlier,) = api.evaluate(finished.path, **ONE)
    assert earlier["accuracies"] == row["accuracies"]
    assert (earlier["balanced"], earlier["tested"], earlier["class_accuracies"]) == (None, None, ())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classes": ("0", "3")}, r"store .* must have the classes of set .* \(4 classes: 0, 3, 5, 8\); got 2 classes"),
        ({"size": 4}, r"store .* must have the shape of set .*, \(1, 8, 8\); got \(1, 4, 4\)"),
    ],
)
def test_stores_that_do_not_fit_are_refused(
    finished: Run, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    store = str(tmp_path / "store")
    ingest(FOUR_DIGITS.__class__(**{**vars(FOUR_DIGITS), **changed}), store)
    with pytest.raises(UsageError, match=message):
        api.evaluate(finished.path, store=store, **ONE)


def test_wrong_sets_are_refused(finished: Run, stopped: Run, other_store: str, tmp_path: Path) -> None:
    file = str(shutil.copy(finished.set_file, tmp_path / "set.parquet"))
    with pytest.raises(UsageError, match="must not have initial mosaics, which only the directory of its run has"):
        api.evaluate(file, baselines=["initial mosaics"], local=True)
    with pytest.raises(UsageError, match="must have the content of .*, which the unfinished run .* distils; got"):
        api.evaluate(stopped.path, store=other_store, local=True)


def test_a_run_without_unseen_images_is_told_what_can_still_be_done(finished: Run, tmp_path: Path) -> None:
    store, out = str(tmp_path / "store"), str(tmp_path / "run")
    ingest(FOUR_DIGITS, store)
    manifest = storage.read_json(f"{store}/manifest.json")
    manifest["counts"]["test"] = [0, 0, 0, 0]
    manifest["files"] = [file for file in manifest["files"] if file["split"] != "test"]
    storage.write_json(f"{store}/manifest.json", manifest)
    create_run(out, parse_config(TINY), store)
    shutil.copytree(finished.file("checkpoints"), f"{out}/checkpoints")
    shutil.copy(finished.set_file, out)
    with pytest.raises(UsageError, match=r"got 'test'. The run has seen all images of its store.*--store STORE"):
        api.evaluate(out, local=True)
    with pytest.raises(UsageError, match=r"distilled 'validation' too .*include_validation=false.*--test-fraction"):
        api.evaluate(out, split="validation", local=True)
