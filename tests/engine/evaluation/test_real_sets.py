"""Sets of real images as products: the same images and bytes anywhere, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dream_ray
from dream_ray import api, storage
from dream_ray.cli import run_state
from dream_ray.data.store.store import Store
from dream_ray.engine.evaluation import real_sets
from dream_ray.engine.local_backend import LocalBackend
from dream_ray.engine.models.model import Model, write_model
from dream_ray.errors import RunError, UsageError
from dream_ray.sets import read
from tests.conftest import TINY
from tests.models import CLASSES, train
from tests.runs import CPU, Killed

SMALL = {"network.options": TINY["network"]["options"], "evaluation.quick_epochs": 1}
STRATEGIES = ["random", "representative", "herding", "easy"]
SPLITS = ("train", "validation")


def select(store: str, out: Path | str, model: Model | str | None, **changes: Any) -> Path:
    given: dict[str, Any] = {"strategy": "easy", "ipc": 2, "local": True, "device": "cpu", "config": "smoke"}
    path = model.path if isinstance(model, Model) else model
    api.select(store, out=out, **{**given, "models": [] if path is None else [path], **changes})
    return Path(out)


def recipe(out: Path) -> list[dict[str, Any]]:
    return read(str(out)).recipe["real_images"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_recipe_names_the_images_of_the_set(
    strategy: str, trained: Model, split_store: str, tmp_path: Path
) -> None:
    model = None if strategy == "random" else trained
    out = select(split_store, tmp_path / "set", model, strategy=strategy, ipc=3)
    found, store = read(str(out)), Store.open(split_store)
    for label, origin in enumerate(recipe(out)):
        real_NCHW = store.images(label, SPLITS).take(np.array(origin["index"]))
        assert np.array_equal(found.stored_LNCHW[label], real_NCHW.astype(np.float32) / np.float32(255))
        for index, file, row in zip(origin["index"], origin["file"], origin["row"], strict=True):
            path = origin["files"][file]
            (entry,) = (one for one in store.manifest.files if one.path == path)
            before = 0 if entry.split == "train" else store.count("train", label)
            assert index == before + row
            assert entry.label == label
    assert len({tuple(origin["index"]) for origin in recipe(out)}) > 1


def test_strategies_differ_and_a_smaller_set_is_part_of_a_larger_one(
    trained: Model, split_store: str, tmp_path: Path
) -> None:
    def first(strategy: str, ipc: int) -> list[int]:
        out = select(split_store, tmp_path / f"{strategy}{ipc}", trained, strategy=strategy, ipc=ipc)
        return recipe(out)[0]["index"]

    easy, herded = first("easy", 6), first("herding", 6)
    assert easy != herded
    assert easy[:3] == first("easy", 3)
    assert herded[:3] == first("herding", 3)


def files(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in ("synthetic.parquet", "grid.png", "config.yaml", "env.json")}


def test_a_killed_selection_continues_to_the_same_bytes(
    trained: Model,
    split_store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given: dict[str, Any] = {"factor": 2, "settings": {"initialisation.crops": 2}}
    whole = select(split_store, tmp_path / "whole", trained, **given)
    ranked: list[int] = []
    of_class = real_sets.InitialModels.easiest

    def killed_in_class_2(self: Any, images: Any, label: int, count: int) -> Any:
        ranked.append(label)
        if ranked == [0, 1, 2]:
            raise Killed
        return of_class(self, images, label, count)

    monkeypatch.setattr(real_sets.InitialModels, "easiest", killed_in_class_2)
    with pytest.raises(Killed):
        select(split_store, tmp_path / "killed", trained, **given)
    run_state.show_status(str(tmp_path / "killed"), dream_ray.status(tmp_path / "killed"))
    assert "run the same `dream-ray select` command again" in capsys.readouterr().out
    killed = select(split_store, tmp_path / "killed", trained, **given)
    assert ranked == [0, 1, 2, 2, 3]
    assert files(killed) == files(whole)
    assert [len(origin["boxes"]) for origin in recipe(killed)] == [8] * len(CLASSES)


def test_tasks_in_any_order_write_the_same_bytes(
    trained: Model, split_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = select(split_store, tmp_path / "first", trained)
    in_order = LocalBackend.map

    def reversed_map(self: LocalBackend, function: Callable[..., Any], items: Any, **place: Any) -> Any:
        return in_order(self, function, list(items)[::-1], **place)

    monkeypatch.setattr(LocalBackend, "map", reversed_map)
    assert files(select(split_store, tmp_path / "second", trained)) == files(first)


def test_the_same_call_returns_the_set_and_another_one_is_refused(
    trained: Model, split_store: str, tmp_path: Path
) -> None:
    out = select(split_store, tmp_path / "set", trained)
    before = (out / "synthetic.parquet").stat().st_mtime_ns
    select(split_store, out, trained)
    assert (out / "synthetic.parquet").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match=r"holds another run: ipc was 2, is 3\. Use another out"):
        select(split_store, out, trained, ipc=3)


def test_a_set_is_listed_evaluated_compared_and_exported(trained: Model, split_store: str, tmp_path: Path) -> None:
    out = select(split_store, tmp_path / "a", trained, config=None, settings=SMALL)
    other = select(split_store, tmp_path / "b", None, config=None, settings=SMALL, strategy="random")
    kept = storage.absolute(str(out))
    [one, _] = dream_ray.list_runs(tmp_path)
    assert (one.kind, one.state, one.preset, one.steps) == ("real images", "finished", "easy, 2 x 1^2", "")
    rows = api.evaluate(out, local=True, repeats=1, split="test", baselines=["random real"])
    assert [row["evaluated_set"] for row in rows] == ["distilled", "random real"]
    assert rows[0]["shown_as"] == "selected real"
    assert "selected real" in str(rows)
    assert any("initialisation.strategy" in row for row in api.compare([kept, str(other)]).settings)
    api.export(out, tmp_path / "export", to="npz")
    card = (tmp_path / "export" / "README.md").read_text()
    assert "# Real images of 4 classes, 2 per class" in card
    assert f"digest {trained.digest[:16]}" in card
    assert trained.path not in (tmp_path / "export" / "export.json").read_text()
    assert len(api.load_synthetic(out)) == 8


def test_a_preset_of_easy_images_needs_only_a_model(trained: Model, split_store: str, tmp_path: Path) -> None:
    preset: dict[str, Any] = {"config": "tiny-imagenet-ipc1-easy", "settings": SMALL, "strategy": None, "ipc": None}
    of_preset = select(split_store, tmp_path / "preset", trained, **preset)
    named = select(split_store, tmp_path / "named", trained, ipc=1, factor=2, config="smoke")
    assert recipe(of_preset) == recipe(named)
    with pytest.raises(UsageError, match="models must be given with strategy easy"):
        select(split_store, tmp_path / "none", None, **preset)


def test_the_initial_images_are_no_baseline_of_a_selection(trained: Model, split_store: str, tmp_path: Path) -> None:
    out = select(split_store, tmp_path / "set", trained)
    with pytest.raises(UsageError, match="must not have initial mosaics, which are the same images"):
        api.evaluate(out, local=True, baselines=["initial mosaics"])


def test_a_run_without_steps_is_neither_distilled_nor_resumed(split_store: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"outer_steps must be an int >= 1; got 0\. .*`dream-ray select`"):
        api.distill("smoke", store=split_store, out=tmp_path / "run", local=True, settings={"outer_steps": 0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": None}, "strategy and ipc must be given, .* or a preset that selects"),
        ({"strategy": "noise"}, "strategy must be one of random, representative, herding, easy; got 'noise'"),
        ({"ipc": 61}, "ipc must be at most the number of images of the smallest class, '0' with 60 in train and valid"),
        ({"ipc": 16, "factor": 2}, r"ipc \* factor\^2 must be at most the number .*; got 64"),
        ({"settings": {"initialisation.candidates": 1}}, r"initialisation\.candidates must be at least .* \(2\)"),
        ({"settings": {"outer_steps": 3}}, "settings must not name outer_steps"),
    ],
)
def test_wrong_arguments_are_refused(
    changes: dict[str, Any], message: str, trained: Model, split_store: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        select(split_store, tmp_path / "set", trained, **changes)
    assert not (tmp_path / "set" / "config.yaml").exists()


@pytest.mark.parametrize("strategy", ["representative", "herding", "easy"])
def test_strategies_with_scores_or_features_need_a_model(strategy: str, split_store: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"models must be given with strategy {strategy}: --model MODEL"):
        select(split_store, tmp_path / "set", None, strategy=strategy)


def changed_model(model: Model, path: Path, **changes: Any) -> str:
    """Copies a model with another description, and the digest that belongs to it."""
    write_model(str(path), model.load(CPU), replace(model.description, **changes))
    return str(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ("0", "5", "3", "8")}, "must have the classes in the order of store"),
        ({"class_names": ("0", "3", "5", "9")}, "must have the classes of store"),
        ({"shape_CHW": (1, 16, 16)}, "must take images of the store's shape"),
        ({"accuracy": {}}, "must have a known accuracy"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(
    changes: dict[str, Any], message: str, trained: Model, split_store: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        select(split_store, tmp_path / "set", changed_model(trained, tmp_path / "model", **changes))


def test_a_torn_model_is_refused(trained: Model, split_store: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    train(split_store, path, epochs=1)
    description = json.loads((path / "model.json").read_text())
    (path / "model.json").write_text(json.dumps({**description, "weights_sha256": "0" * 64}))
    with pytest.raises(RunError, match="is torn"):
        select(split_store, tmp_path / "set", str(path))


def test_a_model_scores_with_its_own_normalisation(trained: Model, split_store: str, tmp_path: Path) -> None:
    """The normalisation of the set is that of the settings: it does not change the order."""
    usual = select(split_store, tmp_path / "usual", trained)
    other = {"data.normalisation": {"mean": [0.9], "std": [0.1]}}
    changed = select(split_store, tmp_path / "other", trained, settings=other)
    assert recipe(changed) == recipe(usual)
    assert read(str(changed)).mean == (0.9,)
