"""Runs that start from images which models choose."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dream_ray import storage
from dream_ray.config import Config, parse_config
from dream_ray.data.store.store import Store
from dream_ray.engine.backend import Producers
from dream_ray.engine.models.model import Model
from dream_ray.engine.models.ranking import InitialModels, check_initial_models
from dream_ray.engine.planning.plan import begin_run
from dream_ray.engine.run.directory import Run
from dream_ray.engine.run.spec import RunSpec
from dream_ray.errors import UsageError
from tests.conftest import TINY
from tests.models import train
from tests.runs import CPU, final_images, run_all


def settings(model: Model | str, **changes: Any) -> Config:
    path = model if isinstance(model, str) else model.path
    start = {"strategy": "easy", "models": [path], **changes}
    steps = {"outer_steps": 1, "inner_steps": 1, "selection": {"strategy": "random"}, "source": {"kind": "random"}}
    return parse_config({**TINY, **steps, "ipc": 2, "initialisation": start})


def begin(path: Path, config: Config, store: str) -> Run:
    spec = RunSpec(config=config, store=store, out=str(path), compile="off", device="cpu", local=True)
    return begin_run(spec, Producers())


def test_any_number_of_workers_starts_from_the_same_images(trained: Model, split_store: str, tmp_path: Path) -> None:
    runs = [begin(tmp_path / str(workers), settings(trained), split_store) for workers in (1, 3)]
    for run, workers in zip(runs, (1, 3), strict=True):
        run_all(run, workers)
    assert runs[0].environment["initial_models"] == [trained.digest]
    assert torch.equal(*map(final_images, runs))
    store = Store.open(split_store)
    easiest = InitialModels.open(runs[0], store, CPU).easiest(store.images(3, runs[0].config.splits), 3, 8)
    assert runs[0].checkpoints().load(0, [3]).classes[3].indices.tolist() == easiest.indices.tolist()


def test_a_run_refuses_another_model_at_the_same_path(trained: Model, split_store: str, tmp_path: Path) -> None:
    path = str(tmp_path / "model")
    train(split_store, path, epochs=1)
    run = begin(tmp_path / "run", settings(path, allow_weak_models=True), split_store)
    storage.delete(path)
    train(split_store, path, epochs=2)
    with pytest.raises(UsageError, match="must be the one that the run began with .*; its digest is .*Put it back"):
        run_all(run, 1)


def test_a_weak_model_is_refused_unless_allowed(split_store: str, tmp_path: Path) -> None:
    weak = train(split_store, tmp_path / "weak", epochs=1, recipe={"batch_size": 32, "lr": 1e-6})
    store = Store.open(split_store)
    with pytest.raises(UsageError, match="twice chance.* or set initialisation.allow_weak_models=true"):
        check_initial_models(settings(weak), store)
    assert check_initial_models(settings(weak, allow_weak_models=True), store) == [weak.digest]


def test_a_model_of_other_classes_is_refused(trained: Model, digits_store: str) -> None:
    with pytest.raises(UsageError, match="must have the classes of store"):
        check_initial_models(settings(trained), Store.open(digits_store))


def test_settings_without_models_have_the_digests_that_they_had() -> None:
    assert set(parse_config({}).model_dump()["initialisation"]) == {"strategy", "warmup_epochs"}


@pytest.mark.parametrize(
    ("section", "used"), [("source", {"kind": "frozen"}), ("initialisation", {"strategy": "easy"})]
)
def test_models_are_found_from_any_directory(
    section: str, used: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = parse_config({section: {"models": ["models/a", "/models/b"], **used}})
    located = RunSpec(config=config, store="store", out="out", local=True).config
    assert getattr(located, section).models == (f"{tmp_path}/models/a", "/models/b")
