"""Training a network once: against a plain loop, after kills, and with arguments that are refused."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dream_ray.config.training_recipe import TrainingRecipe, parse_recipe
from dream_ray.core import rng
from dream_ray.data.store.store import Store
from dream_ray.engine.models.model import Model, read_model
from dream_ray.engine.models.training import directory, reports
from dream_ray.engine.models.training.checkpoint import TrainingState
from dream_ray.engine.models.training.worker import draws_at_random, learning_rate, own_batches
from dream_ray.engine.networks.tensor_file import read_tensors
from dream_ray.engine.networks.update_program import mixed_cross_entropy
from dream_ray.errors import RunError, UsageError
from dream_ray.nets import build_network
from tests.models import NETWORK, RECIPE, train
from tests.runs import CPU, Killed
from tests.thread_group import run_group


def recipe_of(**changes: Any) -> TrainingRecipe:
    return parse_recipe({"network": NETWORK, "epochs": 4, **changes})


def rows_of(model: Model) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(model.path, "metrics.jsonl").read_text().splitlines()]


def plain_training(store: Store, recipe: TrainingRecipe) -> dict[str, torch.Tensor]:
    """Trains by the plainest loop: every image of the store in an array, no functional calls."""
    images, labels = store.training_set(("train",))
    pixels = torch.from_numpy(images.take(np.arange(len(images)))).float() / 255
    mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (store.manifest.mean, store.manifest.std))
    with rng.torch_randomness(rng.stream(0, "model-network")):
        network = build_network(
            NETWORK.name, num_classes=store.num_classes, shape_CHW=store.shape_CHW, options=NETWORK.options
        )
    optimizer = torch.optim.SGD(network.parameters(), lr=recipe.lr, momentum=0.9, weight_decay=5e-4)
    steps = len(images) // recipe.batch_size
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps * recipe.epochs)
    for epoch in range(recipe.epochs):
        order = rng.stream(0, "model-order", outer=epoch).permutation(len(images))
        for step in range(steps):
            chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            optimizer.zero_grad()
            _, logits = network((pixels[chosen] - mean) / std)
            targets = F.one_hot(torch.from_numpy(labels[chosen]), store.num_classes) * 0.9 + 0.1 / store.num_classes
            (-(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()).backward()
            optimizer.step()
            schedule.step()
    return network.state_dict()


def test_a_training_equals_the_plain_loop(split_store: str, tmp_path: Path) -> None:
    plain = {"batch_size": 32, "augmentation": "none", "label_smoothing": 0.1}
    model = train(split_store, tmp_path / "model", recipe=plain)
    expected = plain_training(Store.open(split_store), recipe_of(**plain))
    for name, tensor in model.load(CPU).state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)


def test_a_model_has_learned_and_says_how_well(trained: Model, split_store: str) -> None:
    store = Store.open(split_store)
    network, normalise = trained.load(CPU), trained.normalise(CPU)
    for split, score in trained.description.accuracy.items():
        images, labels = store.training_set((split,))
        with torch.no_grad():
            _, logits = network(normalise(torch.from_numpy(images.take(np.arange(len(images)))).float() / 255))
        assert (score.correct, score.n) == (int((logits.argmax(dim=1).numpy() == labels).sum()), len(images))
    assert trained.description.accuracy["test"].lowest > 0.5
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    rows = rows_of(trained)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["validation"] == trained.description.accuracy["validation"].accuracy
    assert rows[-1]["loss"] < rows[0]["loss"]
    files = {path.name for path in Path(trained.path).iterdir()}
    assert files == {"model.json", "model.safetensors", "training.json", "metrics.jsonl", "cost.json"}


@pytest.mark.parametrize(
    ("killed_at", "every_s", "saved"),
    [(13, 60.0, 12), (9, 0.0, 9), (12, 0.0, 11)],
    ids=["after an epoch", "within an epoch", "at the end of an epoch"],
)
def test_a_killed_training_goes_on_to_the_same_bits(
    trained: Model,
    split_store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killed_at: int,
    every_s: float,
    saved: int,
) -> None:
    on_step = reports.TrainingReports.on_step

    def kill(self: Any, state: TrainingState) -> None:
        on_step(self, state)
        if state.step == killed_at:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(reports, "CHECKPOINT_S", every_s)
        patch.setattr(reports, "_BEAT_S", every_s)
        patch.setattr(reports.TrainingReports, "on_step", kill)
        with pytest.raises(Killed):
            train(split_store, tmp_path / "model")
    with pytest.raises(UsageError, match="is not finished"):
        read_model(str(tmp_path / "model"))
    _, metadata = read_tensors(str(tmp_path / "model" / "checkpoint.safetensors"))
    assert int(metadata["step"]) == saved
    again = train(split_store, tmp_path / "model")
    assert again.digest == trained.digest
    whole, resumed = (rows_of(model) for model in (trained, again))
    assert [(row["epoch"], row["loss"]) for row in resumed] == [(row["epoch"], row["loss"]) for row in whole]


def test_a_finished_training_is_returned(trained: Model, split_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports.TrainingReports, "on_step", None)
    assert train(split_store, trained.path).digest == trained.digest


def test_another_training_in_the_directory_is_refused(trained: Model, split_store: str, digits_store: str) -> None:
    with pytest.raises(UsageError, match=re.escape("another training: recipe.epochs was 4, is 5. Repeat the command")):
        train(split_store, trained.path, epochs=5)
    with pytest.raises(UsageError, match="another training: store_checksum was"):
        train(digits_store, trained.path)


def test_other_bits_are_refused_or_allowed(split_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(self: Any, state: TrainingState) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(reports.TrainingReports, "on_step", kill)
        with pytest.raises(Killed):
            train(split_store, tmp_path / "model")
    described = directory.describe_environment
    monkeypatch.setattr(directory, "describe_environment", lambda device: {**described(device), "cpu": "another"})
    with pytest.raises(UsageError, match=r"other bits: cpu was .*, is another. Allow it with --allow-different-bits"):
        train(split_store, tmp_path / "model")
    model = train(split_store, tmp_path / "model", allow_different_bits=True)
    assert model.description.origin["bits"]["cpu"] == "another"


def test_a_training_that_diverges_ends(split_store: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"the training diverged before step 6: .* Lower lr"):
        train(split_store, tmp_path / "model", recipe={**RECIPE, "lr": 1e30})
    assert not (tmp_path / "model" / "checkpoint.safetensors").exists()


def test_bfloat16_trains_float32_weights(split_store: str, tmp_path: Path) -> None:
    model = train(split_store, tmp_path / "model", epochs=1, recipe={**RECIPE, "precision": "bfloat16"})
    assert {tensor.dtype for tensor in model.load(CPU).state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": {"batch_size": 500}}, "batch_size must be at most the number of training images (192); got 500"),
        ({"workers": 2}, "workers must be 1 with local, which trains in one process; got 2"),
        ({"workers": 3, "local": False}, "batch_size must be a multiple of workers (3)"),
        ({"recipe": {"lrr": 1}}, "lrr is not a known setting; did you mean lr?"),
        ({"recipe": {"augmentation": "flop"}}, "augmentation must be 'none' or operations of"),
        (
            {"recipe": {"normalisation": {"mean": [0, 0], "std": [1, 1]}}},
            "one number per channel of the store (1)",
        ),
        ({"network": None}, "network and epochs must be given"),
        ({"network": "resnet19"}, "network must be one of convnet, "),
        ({"classes": "a,b"}, "classes must be left out without weights"),
        ({"device": "gpu"}, "device must be one of auto, cpu, cuda; got 'gpu'"),
    ],
)
def test_wrong_arguments_are_refused(split_store: str, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        train(split_store, tmp_path / "model", **changes)
    assert not (tmp_path / "model" / "training.json").exists()


def test_a_directory_with_other_files_is_refused(split_store: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"out must be a new or empty directory; .* such as notes.txt"):
        train(split_store, tmp_path)


def test_workers_divide_every_batch() -> None:
    order = np.random.default_rng(0).permutation(103)
    parts = run_group(3, lambda group: own_batches(order, 12, group))
    joined = [np.concatenate(batch) for batch in zip(*parts, strict=True)]
    assert [batch.tolist() for batch in joined] == [order[start : start + 12].tolist() for start in range(0, 96, 12)]


def test_learning_rates() -> None:
    cosine = [learning_rate(recipe_of(lr=1), step, 4) for step in range(4)]
    np.testing.assert_allclose(cosine, [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5])
    stepped = recipe_of(lr=1, schedule="step", lr_milestones=[0.5, 0.75], lr_decay=0.1)
    np.testing.assert_allclose([learning_rate(stepped, step, 4) for step in range(4)], [1, 1, 0.1, 0.01])


def test_smoothed_labels_of_mixed_images() -> None:
    logits, labels = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, 4])
    mix = torch.tensor([1.0, 2.0, 0.0, 0, 0, 0, 0, 0.7])
    own, other = F.one_hot(labels, 5), F.one_hot(labels[[1, 2, 0]], 5)
    targets = (0.7 * own + 0.3 * other) * 0.8 + 0.2 / 5
    expected = -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(mixed_cross_entropy(logits, labels, mix, 0.2), expected)


def test_networks_with_dropout_draw_from_a_keyed_stream() -> None:
    plain = build_network("convnet", num_classes=2, shape_CHW=(1, 8, 8), options={"depth": 1, "width": 2})
    assert not draws_at_random(plain, (1, 8, 8))
    plain.trunk.add_module("dropout", torch.nn.Dropout(0.5))
    assert draws_at_random(plain, (1, 8, 8))
