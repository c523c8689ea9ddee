"""Arms of an experiment at models: frozen networks, easy starts and sets of real images."""

import os
from pathlib import Path
from typing import Any

import pytest

from dream_ray.errors import UsageError
from dream_ray.experiments.directory import Table, begin_or_continue
from dream_ray.experiments.report import page, read_results
from dream_ray.sets import read
from tests.experiments.tables import run_table, table_of
from tests.models import untrained

AT_MODEL = {"initialisation.models": ["model"], "initialisation.allow_weak_models": True}
FROZEN = {"source.kind": "frozen", "source.models": ["model"], "source.allow_weak_models": True}
ARMS: dict[str, Any] = {
    "random": {"steps": 0, "settings": {"initialisation.strategy": "random"}},
    "easy": {"steps": 0, "settings": {"initialisation.strategy": "easy", **AT_MODEL}},
    "frozen": {"settings": {**FROZEN, "initialisation.strategy": "easy"}},
}


def table(directory: Path, store: str, **changed: Any) -> Table:
    return table_of(str(directory / "out"), store, **{"arms": ARMS, **changed})


@pytest.mark.slow
def test_selections_and_frozen_networks_are_arms(
    tmp_path: Path, four_digits_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths of models begin at the working directory, and the table keeps whole ones."""
    monkeypatch.chdir(tmp_path)
    model = untrained(four_digits_store, tmp_path / "model")
    found = table(tmp_path, four_digits_store)
    run_table(found)
    assert found.models() == [os.path.realpath(model.path)]
    monkeypatch.chdir("/")
    results = read_results(found)
    assert not results["failed"] and not results["missing"]
    last = {row["arm"]: row for row in results["summary"]}
    assert {arm: row["step"] for arm, row in last.items()} == dict.fromkeys(ARMS, 8) | {"random": 0, "easy": 0}
    assert all(row["cpu_s"] > 0 for row in last.values())
    assert "The images of a set take 256 bytes at 8 bits" in "\n".join(page(results))
    recipes = {arm: read(f"{found.out}/runs/{arm}-seed-0").recipe for arm in ("random", "easy")}
    assert all("real_images" in recipe for recipe in recipes.values())

    monkeypatch.chdir(tmp_path)
    assert run_table(table(tmp_path, four_digits_store)) == []
    other = untrained(four_digits_store, tmp_path / "other", seed=1)
    Path(model.path).rename(tmp_path / "before")
    Path(other.path).rename(tmp_path / "model")
    with pytest.raises(UsageError, match=r"must hold results of the same settings.*source\.found"):
        begin_or_continue(table(tmp_path, four_digits_store))


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"settings": FROZEN | {"source.models": ["none"]}}, r"arms\.a: model .*/none does not exist"),
        ({"settings": {"source.kind": "frozen"}}, r"arms\.a: source\.models must have at least one model"),
        (
            {"steps": 0, "settings": {"initialisation.strategy": "representative"}},
            r"arms\.a: initialisation\.models must name a model in a set of real images",
        ),
        (
            {"steps": 0, "settings": {"initialisation.strategy": "noise"}},
            r"arms\.a: initialisation\.strategy must be one of random, .* with steps 0; got noise",
        ),
    ],
)
def test_an_arm_without_its_model_is_refused_before_anything_begins(
    arm: dict[str, Any], message: str, tmp_path: Path, four_digits_store: str
) -> None:
    with pytest.raises(UsageError, match=message):
        begin_or_continue(table(tmp_path, four_digits_store, arms={"a": arm}))
    assert not (tmp_path / "out").exists()
