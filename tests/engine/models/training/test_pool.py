"""Pools: members are trainings of their own, and other commands take a pool for all of them."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from dream_ray import api
from dream_ray.config import parse_config
from dream_ray.config.sections import Network
from dream_ray.engine.models.model import Model
from dream_ray.engine.models.spec import TrainSpec
from dream_ray.engine.models.training import reports
from dream_ray.engine.models.training.checkpoint import TrainingState
from dream_ray.engine.models.training.pool import read_pool_progress
from dream_ray.engine.run.spec import RunSpec
from dream_ray.errors import RunError, UsageError
from tests.models import NETWORK, RECIPE, train
from tests.runs import Killed

OTHER = Network(name="convnet", options={"depth": 1, "width": 8})


def train_pool(store: str, out: Path | str, **changes: Any) -> tuple[Model, ...]:
    given: dict[str, Any] = {"networks": [NETWORK, OTHER], "epochs": 4, "recipe": RECIPE, "local": True}
    return api.train_pool(store, out=out, **{**given, "device": "cpu", **changes})


@pytest.fixture(scope="module")
def pool(split_store: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A pool of two members, trained by a process that was killed in the second one, and by a second process."""
    path = tmp_path_factory.mktemp("pools") / "pool"
    on_step, steps = reports.TrainingReports.on_step, []

    def kill(self: Any, state: TrainingState) -> None:
        on_step(self, state)
        steps.append(state.step)
        if len(steps) == 24 + 13:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reports.TrainingReports, "on_step", kill)
        with pytest.raises(Killed):
            train_pool(split_store, path)
        with pytest.raises(UsageError, match=r"is not finished: it contains no pool\.json"):
            api.load_pool(path)
        text, done, total = read_pool_progress(str(path))
        assert text.startswith("1 of 2 members finished; member 1: epoch 1 of 4, ") and total == 48 and done < 48
        patch.setattr(reports.TrainingReports, "on_step", lambda self, state: steps.append(state.step))
        train_pool(split_store, path)
    assert steps[37:] == list(range(13, 25)), "only the last epoch of the second member is repeated"
    return str(path)


def test_members_are_trainings_of_their_own(pool: str, trained: Model, split_store: str, tmp_path: Path) -> None:
    alone = train(split_store, tmp_path / "alone", network=OTHER, recipe={**RECIPE, "seed": 1})
    assert [model.digest for model in api.load_pool(pool)] == [trained.digest, alone.digest]


def test_a_pool_grows(pool: str, split_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(pool, tmp_path / "pool")
    trained: list[str] = []

    def copy(spec: TrainSpec, begun: dict[str, Any]) -> None:
        trained.append(spec.out)
        shutil.copytree(f"{pool}/member-0", spec.out, dirs_exist_ok=True)

    monkeypatch.setattr("dream_ray.engine.models.training.pool.train", copy)
    larger = train_pool(split_store, tmp_path / "pool", members=3)
    assert trained == [f"{tmp_path}/pool/member-2"]
    assert [model.digest for model in larger[:2]] == [model.digest for model in api.load_pool(pool)]
    with pytest.raises(UsageError, match=r"members must be at least those of the pool in .* \(3\); got 2"):
        train_pool(split_store, tmp_path / "pool")


def spec_of(store: str, **settings: Any) -> RunSpec:
    return RunSpec(config=parse_config(settings), store=store, out=None, local=True)


def test_a_run_takes_a_pool_for_its_members(pool: str, trained: Model, split_store: str, tmp_path: Path) -> None:
    members = (f"{pool}/member-0", f"{pool}/member-1")
    spec = spec_of(split_store, source={"kind": "frozen", "models": [pool, trained.path]})
    assert spec.config.source.models == (*members, trained.path)
    easy = spec_of(split_store, initialisation={"strategy": "easy", "models": [pool]})
    assert easy.config.initialisation.models == members
    with pytest.raises(UsageError, match=r"initialisation.models must name one model, .* herding; got 2"):
        spec_of(split_store, initialisation={"strategy": "herding", "models": [pool]})
    shutil.copytree(pool, tmp_path / "one")
    (tmp_path / "one" / "pool.json").write_text(json.dumps({"digests": [trained.digest]}))
    one = spec_of(split_store, source={"kind": "frozen", "models": [str(tmp_path / "one")]})
    assert one.config.source.models == (f"{tmp_path}/one/member-0",)


@pytest.mark.parametrize("torn", ["missing", "another", "damaged"])
def test_a_torn_pool_is_refused(pool: str, split_store: str, tmp_path: Path, torn: str) -> None:
    shutil.copytree(pool, tmp_path / "pool")
    messages = {
        "missing": "is torn: its model .*/member-1 is missing, and pool.json names",
        "another": "is torn: its model .*/member-1 has the digest [0-9a-f]{12}, and pool.json names",
        "damaged": "pool.json is damaged: it names no members",
    }
    if torn == "damaged":
        (tmp_path / "pool" / "pool.json").write_text(json.dumps({"digests": []}))
    else:
        shutil.rmtree(tmp_path / "pool" / "member-1")
    if torn == "another":
        shutil.copytree(f"{pool}/member-0", tmp_path / "pool" / "member-1")
    for use in (api.load_pool, lambda path: spec_of(split_store, source={"kind": "frozen", "models": [path]})):
        with pytest.raises(RunError, match=messages[torn]):
            use(str(tmp_path / "pool"))


def test_a_pool_is_no_model(pool: str, split_store: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be one model; it is a pool, of models such as .*member-0"):
        api.load_model(pool)
    with pytest.raises(UsageError, match="weights must be one model; .* is a pool"):
        api.train(split_store, out=tmp_path / "model", weights=pool, local=True)
    with pytest.raises(UsageError, match="such as member-0"):
        train(split_store, pool)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networks": []}, "networks must have at least one network; got none"),
        ({"members": 0}, "members must be an int >= 1; got 0"),
        ({"members": 1}, "members must be at least the number of networks (2); got 1"),
        ({"workers": 2}, "workers must be 1 with local, which trains one member after the other; got 2"),
        ({"local": False, "workers": 3}, "workers must be at most members (2), each of which one worker trains; got 3"),
        ({"recipe": {"batch_size": 500}}, "batch_size must be at most the number of training images (192); got 500"),
    ],
)
def test_wrong_arguments_are_refused(split_store: str, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        train_pool(split_store, tmp_path / "pool", **changes)
    assert not (tmp_path / "pool").exists()


def test_an_error_names_the_member(split_store: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="member 0: the training diverged before step"):
        train_pool(split_store, tmp_path / "pool", recipe={**RECIPE, "lr": 1e30})
