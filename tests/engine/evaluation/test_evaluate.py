"""Evaluation: baselines, rules for the arguments, and the meaning of the numbers."""

import shutil
import sys
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dream_ray import api, storage
from dream_ray.config import parse_config
from dream_ray.config.frameworks.base import evaluation as recipe_of_dc
from dream_ray.config.sections import Network
from dream_ray.core.images.normalisation import to_unit
from dream_ray.engine.evaluation import baselines, evaluate, tasks
from dream_ray.engine.evaluation.baselines import BASELINES, representative_indices
from dream_ray.engine.evaluation.evaluate import EvaluationResult, num_epochs, summarise, train_and_test
from dream_ray.engine.evaluation.options import check_evaluation, evaluation_name
from dream_ray.engine.evaluation.tasks import distilled_task, plan_tasks, run_task, training_data
from dream_ray.engine.networks import stored_images
from dream_ray.engine.networks.training import TensorImages
from dream_ray.engine.run.directory import Run, open_run
from dream_ray.errors import RunError, UsageError
from dream_ray.nets import Classifier
from dream_ray.storage import mapped_arrays


@pytest.fixture(scope="module")
def run(digits_store: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = {
        "ipc": 2,
        "factor": 2,
        "outer_steps": 1,
        "inner_steps": 2,
        "network": {"options": {"depth": 2, "width": 4}},
        "selection": {"num_clusters": 6},
        "update": {"num_images": 32},
        "data": {"include_validation": False},
        "evaluation": {"quick_epochs": 2, "epochs": 3, "whole_set_epochs": 10},
    }
    path = str(tmp_path_factory.mktemp("evaluate") / "run")
    api.distill(parse_config(settings), store=digits_store, out=path, local=True)
    return open_run(path)


CPU = torch.device("cpu")
PLAN: dict[str, Any] = {
    "networks": (),
    "steps": (),
    "repeats": 1,
    "protocol": "quick",
    "split": "test",
    "baselines": [],
}
CHECKED = {name: value for name, value in PLAN.items() if name != "networks"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"protocol": "slow"}, "protocol must be one of quick, published; got 'slow'"),
        ({"split": "train"}, "split must be one of test, validation; got 'train'"),
        ({"baselines": ["hole set"]}, "baselines must be of random real, .*; got hole set: did you mean whole set?"),
        ({"baselines": "none"}, "baselines must be a list of names of random real, .*, or empty; got 'none'"),
        ({"steps": "1"}, "steps must be a list of ints, or empty; got '1'"),
        ({"protocol": "quik"}, "protocol must be one of .*; got 'quik': did you mean quick?"),
        ({"repeats": 0}, "repeats must be an int >= 1; got 0"),
    ],
)
def test_wrong_arguments(run: Run, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_evaluation(run, **{**CHECKED, **changed})


def test_networks_are_no_names(run: Run) -> None:
    with pytest.raises(UsageError, match=r"networks must be a list of dream_ray\.Network; got 'convnet'"):
        api.evaluate(run.path, networks="convnet", steps=[0], local=True)  # type: ignore[arg-type]


def test_a_split_that_was_distilled_is_refused(run: Run) -> None:
    seen = Run(run.path, parse_config({}), run.environment)
    with pytest.raises(UsageError, match="the run distilled 'validation' too"):
        check_evaluation(seen, **{**CHECKED, "split": "validation"})


def test_baselines_have_as_many_stored_pixels(run: Run) -> None:
    store = run.open_store()
    indices = representative_indices(run, store, CPU)
    sizes = {name: len(make(run, store, 0, indices)) for name, make in BASELINES.items()}
    assert sizes == {
        "initial mosaics": 10 * 2 * 4,
        "random real": 10 * 2,
        "k-means real": 10 * 2,
        "whole set": sum(store.count("train", label) for label in range(10)),
    }


def test_k_means_images_are_distinct_images_of_their_class(run: Run) -> None:
    store = run.open_store()
    indices = representative_indices(run, store, CPU)
    data = BASELINES["k-means real"](run, store, 0, indices)
    [(images, labels)] = data.batches([np.arange(len(data))], CPU)
    for label, chosen in enumerate(indices):
        assert len(set(chosen)) == 2
        own = to_unit(store.images(label, ("train",)).take(torch.tensor(chosen).numpy()), CPU)
        assert torch.equal(images[labels == label], own)


def test_random_images_differ_between_repeats(run: Run) -> None:
    store = run.open_store()
    first, again, second = (
        next(BASELINES["random real"](run, store, repeat, ()).batches([np.arange(20)], CPU))[0] for repeat in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_results_are_deterministic_and_networks_fresh(run: Run) -> None:
    tasks = plan_tasks(run, **{**PLAN, "repeats": 2})
    accuracies = [run_task(task, "cpu").accuracy for task in (*tasks, tasks[0])]
    assert accuracies[0] == accuracies[2]
    assert {task.repeat for task in tasks} == {0, 1}


def test_epochs_of_the_protocols(run: Run) -> None:
    assert num_epochs(run.config, "quick", "distilled") == 2
    assert num_epochs(run.config, "published", "distilled") == 3
    assert num_epochs(run.config, "quick", "whole set") == 1
    assert num_epochs(run.config, "published", "whole set") == 10


def test_summary_gives_mean_and_sample_deviation_as_fractions() -> None:
    results = [
        EvaluationResult("whole set", 0, 0.9, 100, 5, 1.0, "cpu"),
        EvaluationResult("distilled", 1, 0.6, 40, 2, 1.0, "cuda"),
        EvaluationResult("distilled", 0, 0.5, 40, 2, 1.0, "cpu"),
    ]
    distilled, whole = summarise(results)
    assert distilled["evaluated_set"] == "distilled"
    assert distilled["mean"] == pytest.approx(0.55)
    assert distilled["std"] == pytest.approx(0.070710678)
    assert distilled["accuracies"] == pytest.approx([0.5, 0.6])
    assert (whole["n"], whole["std"]) == (1, None)
    assert (distilled["devices"], whole["devices"]) == (["cpu", "cuda"], ["cpu"])
    assert distilled["half_width"] == pytest.approx(12.7062 * 0.070710678 / 2**0.5)
    assert whole["half_width"] is None


def test_a_summary_with_a_diverged_network_counts_it_and_gives_no_mean() -> None:
    results = [EvaluationResult("distilled", n, one, 40, 2, 1.0, "cpu") for n, one in enumerate((0.5, None, 0.6))]
    [row] = summarise(results)
    assert (row["mean"], row["std"], row["half_width"]) == (None, None, None)
    assert (row["diverged"], row["n"], row["accuracies"]) == (1, 3, [0.5, None, 0.6])
    with pytest.raises(RunError, match=r"logits must be finite; those of network 2 trained on distilled are not"):
        results[1].finite_accuracy()


def test_a_network_that_diverges_has_no_accuracy(run: Run) -> None:
    config = run.config.model_copy(update={"evaluation": run.config.evaluation.model_copy(update={"lr": 1e9})})
    store = run.open_store()
    data, _ = training_data(plan_tasks(run, **PLAN)[0], run, store)
    result = train_and_test(config, store, data, run.normalise(store), protocol="quick", split="test")
    assert result.accuracy is None


def test_a_summary_has_a_row_per_step() -> None:
    results = [EvaluationResult("distilled", 0, 0.1, 40, 2, 1.0, "cpu", step) for step in (20, 0, 100)]
    assert [
        row["step"] for row in summarise([*results, EvaluationResult("whole set", 0, 0.9, 100, 5, 1.0, "cpu")])
    ] == [
        0,
        20,
        100,
        None,
    ]


NAMES: list[tuple[Network | None, tuple[str, ...], str]] = [
    (None, tuple(BASELINES), "convnet-quick-test"),
    (Network(options={"depth": 2, "width": 4}), tuple(BASELINES), "convnet-quick-test"),
    (None, ("whole set",), "convnet-quick-test-distilled_whole-set"),
    (Network(), tuple(BASELINES), "convnet-default-quick-test"),
    (Network(options={"width": 8, "norm": "none"}), (), "convnet-norm=none-width=8-quick-test-distilled"),
    (Network(name="resnet10"), tuple(BASELINES), "resnet10-quick-test"),
    (Network(name="torchvision:resnet18"), tuple(BASELINES), "torchvision-resnet18-quick-test"),
    (Network(name="mine:make", options={"weights": "../w"}), tuple(BASELINES), "mine-make-options-953a22de-quick-test"),
    (Network(name="mine:make", options={"widths": [8, 16]}), tuple(BASELINES), "mine-make-options-408b5b6c-quick-test"),
]


@pytest.mark.parametrize(("network", "baselines", "name"), NAMES, ids=[name for *_, name in NAMES])
def test_names_of_evaluations(run: Run, network: Network | None, baselines: tuple[str, ...], name: str) -> None:
    used = network or run.config.network
    assert evaluation_name(run.config, used, "quick", "test", baselines, 3) == name
    assert evaluation_name(run.config, used, "quick", "test", baselines, 5) == f"{name}-n=5"
    assert evaluation_name(run.config, used, "quick", "test", baselines, 3, [20, 0]) == f"{name}-steps=0_20"
    assert len(evaluation_name(run.config, used, "quick", "test", baselines, 3, range(99))) < len(name) + 30


def test_evaluations_of_other_networks_baselines_or_n_have_other_files(run: Run) -> None:
    other = Network(options={"depth": 1, "width": 3})
    api.evaluate(run.path, repeats=1, baselines=("random real",), local=True)
    api.evaluate(run.path, repeats=1, baselines=(), local=True)
    api.evaluate(run.path, repeats=1, baselines=(), networks=[other], local=True)
    api.evaluate(run.path, repeats=2, baselines=(), networks=[other], local=True)
    names = [name for name in storage.list_directory(run.file("evaluation")) if name.endswith(".json")]
    found = [storage.read_json(run.file("evaluation", name)) for name in names]
    said = [
        (one["network"]["options"]["width"], len(one["evaluated_sets"]), one["evaluated_sets"][0]["n"]) for one in found
    ]
    assert sorted(said) == [(3, 1, 1), (3, 1, 2), (4, 1, 1), (4, 2, 1)]


def test_a_run_on_gpus_can_be_evaluated_without_a_gpu(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    moved = shutil.copytree(run.path, tmp_path / "moved", ignore=shutil.ignore_patterns("evaluation"))
    environment = {**run.environment, "device": "cuda", "device_name": "NVIDIA H200"}
    storage.write_json(str(moved / "env.json"), environment)
    here, there = (api.evaluate(path, repeats=1, local=True) for path in (run.path, str(moved)))
    assert [row["accuracies"] for row in there] == [row["accuracies"] for row in here]
    assert [row["evaluated_set"] for row in there] == ["distilled", *BASELINES] and all(
        row["devices"] == ["cpu"] for row in there
    )


def test_only_equal_whole_sets_are_trained_once(run: Run) -> None:
    """Whitening and the decay of the learning rate are part of the name of a cached result."""
    _, task = plan_tasks(run, **{**PLAN, "baselines": ["whole set"]})
    store, files = run.open_store(), set()
    for settings in ({}, {"data": {"zca": True}}, {"evaluation": {"lr_decay": 0.1, "lr_milestones": [0.5]}}):
        base = {"factor": 1, "pixels": {"space": "normalised"}}
        changed = Run(run.path, parse_config({**base, **settings}), run.environment)
        files.add(tasks._whole_set_file(task, changed, store, CPU))
    assert len(files) == 3


def test_a_whole_set_result_with_other_fields_is_not_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of the package may have written it."""
    _, task = plan_tasks(run, **{**PLAN, "baselines": ["whole set"]})
    before = tasks._whole_set_file(task, run, run.open_store(), CPU)
    monkeypatch.setattr(tasks, "EvaluationResult", make_dataclass("Earlier", ["arm", "accuracy"]))
    assert tasks._whole_set_file(task, run, run.open_store(), CPU) != before


@pytest.mark.parametrize(
    ("name", "value"),
    [("NUMERICS", "other"), ("library_versions", lambda: {"torch": "9.9"})],
    ids=["numerics", "torch"],
)
def test_a_whole_set_result_of_other_libraries_is_not_read(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    """Kept results and reports name the libraries of the present process."""
    _, task = plan_tasks(run, **{**PLAN, "baselines": ["whole set"]})
    before = tasks._whole_set_file(task, run, run.open_store(), CPU)
    monkeypatch.setattr(tasks, name, value)
    assert tasks._whole_set_file(task, run, run.open_store(), CPU) != before


def test_a_whole_set_result_of_another_arithmetic_is_not_read(run: Run) -> None:
    _, task = plan_tasks(run, **{**PLAN, "baselines": ["whole set"]})
    more_threads = Run(run.path, run.config, {**run.environment, "threads_per_worker": run.threads + 1})
    rounded = Run(run.path, run.config.model_copy(update={"precision": "bfloat16"}), run.environment)
    files = {tasks._whole_set_file(task, one, run.open_store(), CPU) for one in (run, more_threads, rounded)}
    assert len(files) == 3


NETWORK = """
from torch import nn

def make(num_classes, shape_CHW):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, num_classes))
"""


@pytest.fixture
def drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Network:
    """A user's network with dropout."""
    (tmp_path / "drawing_network.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "drawing_network", raising=False)
    return Network(name="drawing_network:make", options={})


def test_a_network_with_dropout_is_reproducible(run: Run, drawing: Network) -> None:
    (task,) = plan_tasks(run, **{**PLAN, "networks": [drawing]})
    before = torch.get_rng_state()
    first = train_weights(task, run)
    torch.rand(3)
    assert torch.equal(train_weights(task, run), first)
    torch.set_rng_state(before)


def train_weights(task: tasks.EvaluationTask, run: Run) -> torch.Tensor:
    """Returns the weights of the trained network, which differ more than its accuracy."""
    trained: list[Classifier] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "count_hits", lambda network, *rest: trained.append(network) or [0] * 10)
        run_task(task, "cpu")
    return trained[0].head.weight.detach()


@pytest.mark.parametrize("evaluated_set", ["distilled", "initial mosaics", "random real", "k-means real"])
def test_large_sets_train_to_the_same_bits(run: Run, evaluated_set: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set that is not kept decoded in memory gives the network that one in memory gives."""
    chosen = [evaluated_set] if evaluated_set != "distilled" else []
    task = plan_tasks(run, **{**PLAN, "baselines": chosen})[-1]
    assert task.evaluated_set == evaluated_set
    expected = train_weights(task, run)
    for module in (baselines, stored_images):
        monkeypatch.setattr(module, "RESIDENT_BYTES", 0)
    monkeypatch.setattr(mapped_arrays, "MAPPED_BYTES", 0)
    data, _ = tasks.training_data(task, run, run.open_store())
    assert not isinstance(data, TensorImages)
    assert torch.equal(train_weights(task, run), expected)


def test_a_checkpoint_is_evaluated_as_its_product(run: Run) -> None:
    finished, checkpoint = (distilled_task(run, "test", step) for step in (None, run.config.total_steps))
    assert torch.equal(train_weights(checkpoint, run), train_weights(finished, run))


def test_the_whole_set_is_trained_again_after_a_code_change(run: Run, drawing: Network, tmp_path: Path) -> None:
    _, task = plan_tasks(run, **{**PLAN, "baselines": ["whole set"], "networks": [drawing]})
    before = tasks._whole_set_file(task, run, run.open_store(), CPU)
    (tmp_path / "drawing_network.py").write_text(NETWORK.replace("ReLU", "Tanh"))
    assert tasks._whole_set_file(task, run, run.open_store(), CPU) != before


@pytest.mark.parametrize(
    ("epochs", "rates"), [(1, [1]), (2, [1, 0.04]), (3, [1, 1, 0.04]), (6, [1, 1, 1, 1, 0.2, 0.04])]
)
def test_the_learning_rate_decays_after_parts_of_the_epochs(
    run: Run, monkeypatch: pytest.MonkeyPatch, epochs: int, rates: list[float]
) -> None:
    """With any number of epochs, the first one has the first learning rate."""
    seen: list[float] = []

    def train_pass(network: Classifier, optimizer: torch.optim.Optimizer, *rest: object) -> None:
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()

    monkeypatch.setattr(evaluate, "train_pass", train_pass)
    config = parse_config({"evaluation": {"lr": 1.0, "quick_epochs": epochs}})
    store = run.open_store()
    data = BASELINES["random real"](run, store, 0, ())
    train_and_test(config, store, data, run.normalise(store), protocol="quick", split="test")
    assert seen == pytest.approx(rates)


def test_dc_trains_one_epoch_more_and_forgets_the_momentum_at_the_decay(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop of DC's code for 8 published epochs: `for ep in range(8 + 1)`, with a decay at the end of `ep` 5."""
    expected, lr, age = [], 0.01, 0
    for ep in range(8 + 1):
        expected.append((lr, age))
        age += 1
        if ep == 8 // 2 + 1:
            lr, age = lr * 0.1, 0
    seen: list[tuple[float, int]] = []

    def train_pass(network: Classifier, optimizer: torch.optim.Optimizer, *rest: object) -> None:
        parameter = next(network.parameters())
        state = optimizer.state[parameter]
        seen.append((optimizer.param_groups[0]["lr"], state.get("age", 0)))
        state["age"] = state.get("age", 0) + 1
        optimizer.step()

    monkeypatch.setattr(evaluate, "train_pass", train_pass)
    config = parse_config({"framework": "dc", "evaluation": recipe_of_dc(epochs=8, augmentation="none")})
    store = run.open_store()
    data = BASELINES["random real"](run, store, 0, ())
    train_and_test(config, store, data, run.normalise(store), protocol="published", split="test")
    assert [age for _, age in seen] == [age for _, age in expected]
    assert [lr for lr, _ in seen] == pytest.approx([lr for lr, _ in expected])
