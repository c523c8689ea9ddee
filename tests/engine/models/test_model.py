"""The directory of a model: it describes itself, and a torn or changed one is refused."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dream_ray import api
from dream_ray.config.sections import Network
from dream_ray.data.store.store import Store
from dream_ray.engine.models.model import Model, read_model, write_model
from dream_ray.errors import RunError, UsageError
from tests.models import CLASSES, NETWORK
from tests.runs import CPU


@pytest.fixture
def copied(trained: Model, tmp_path: Path) -> Path:
    """A copy of the model, free to change."""
    return Path(shutil.copytree(trained.path, tmp_path / "model"))


def test_a_model_describes_itself(trained: Model, split_store: str) -> None:
    own, manifest = api.load_model(trained.path).description, Store.open(split_store).manifest
    assert own == trained.description
    assert (own.network, own.class_names, own.shape_CHW) == (NETWORK, CLASSES, (1, 8, 8))
    assert (own.normalisation.mean, own.normalisation.std) == (manifest.mean, manifest.std)
    assert own.origin["asked"]["store_checksum"] == manifest.checksum
    assert own.origin["asked"]["recipe"]["epochs"] == 4


def test_a_copied_model_is_the_same(trained: Model, copied: Path) -> None:
    assert read_model(str(copied)).digest == trained.digest


def other_weights(path: Path) -> None:
    network = read_model(str(path)).load(CPU)
    for parameter in network.parameters():
        parameter.add_(0.1)
    description = (path / "model.json").read_text()
    write_model(str(path), network, read_model(str(path)).description)
    (path / "model.json").write_text(description)


def change_description(path: Path, change: Callable[[dict], None]) -> None:
    values = json.loads((path / "model.json").read_text())
    change(values)
    (path / "model.json").write_text(json.dumps(values))


def cut(path: Path) -> None:
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (other_weights, RunError, "is torn: model.safetensors has the digest"),
        (cut, RunError, "is torn: model.safetensors has the digest"),
        (lambda path: (path / "model.safetensors").unlink(), RunError, "model.safetensors"),
        (lambda path: (path / "model.json").unlink(), UsageError, "does not exist or is not finished"),
        (lambda path: (path / "model.json").write_text("{"), RunError, "model.json is damaged"),
        (lambda path: change_description(path, lambda v: v["class_names"].reverse()), RunError, "was changed after"),
        (lambda path: change_description(path, lambda v: v.pop("accuracy")), RunError, "is damaged: accuracy"),
        (lambda path: change_description(path, lambda v: v.update(format_version=2)), UsageError, "format version 1"),
    ],
)
def test_a_damaged_model_is_refused(
    copied: Path, damage: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    damage(copied)
    with pytest.raises(error, match=re.escape(message)):
        read_model(str(copied))


def test_a_changed_network_of_a_user_is_refused(
    trained: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    (tmp_path / "own_net_of_models.py").write_text(
        "from torch import nn\n"
        "def net(num_classes, shape_CHW):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Linear(3, num_classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    from dream_ray.nets import build_network

    name = "own_net_of_models:net"
    network = build_network(name, num_classes=4, shape_CHW=(1, 8, 8), options={})
    described = replace(trained.description, network=Network(name=name), network_source="0123")
    model = write_model(str(tmp_path / "model"), network, described)
    with pytest.raises(UsageError, match=re.escape("must have the source that model")):
        model.load(CPU)


def test_equal_models_have_equal_files(trained: Model, tmp_path: Path) -> None:
    again = write_model(str(tmp_path / "model"), trained.load(CPU), trained.description)
    assert again.digest == trained.digest
    assert torch.equal(*(m.load(CPU).head.weight for m in (again, trained)))
