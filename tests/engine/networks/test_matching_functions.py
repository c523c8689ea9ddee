"""The compiled functions against the eager ones."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from dream_ray.core import rng
from dream_ray.core.matching.objectives import Objective
from dream_ray.engine.networks.matching_functions import CompiledBackward, CompiledMatchingFunctions, MatchingFunctions
from dream_ray.engine.networks.sources import Snapshot
from dream_ray.engine.networks.training import Backward, MixedLabels, backward
from dream_ray.nets import build_network

SIDE, BATCH_EMBEDDING, BATCH_REAL, BATCH_SYNTHETIC, NUM_CLASSES = 16, 8, 6, 4, 5
OPTIONS: dict[str, dict[str, Any]] = {
    "convnet": {"depth": 2, "width": 4},
    "resnetap10": {"width": 0.0625, "norm": "instance"},
    "resnet10": {"width": 0.0625, "norm": "batch"},
}
BOTH = Objective(1.0, 1.0, "mse", False, False)


def snapshot(name: str = "convnet", outer: int = 0) -> Snapshot:
    with rng.torch_randomness(rng.stream(0, "network", outer=outer)):
        network = build_network(name, num_classes=NUM_CLASSES, shape_CHW=(3, SIDE, SIDE), options=OPTIONS[name])
    return Snapshot(outer, 0, network, torch.optim.SGD(network.parameters(), lr=0.1))


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def compiled(
    objective: Objective = BOTH, backend: str = "inductor", precision: str = "float32"
) -> CompiledMatchingFunctions:
    return CompiledMatchingFunctions(
        objective, precision, batch_embedding=BATCH_EMBEDDING, batch_real=BATCH_REAL, backend=backend
    )


def results(functions: MatchingFunctions, at: Snapshot, label: int, batch_real: int = BATCH_REAL) -> dict[str, Tensor]:
    """Returns all results of the functions for a class, by name."""
    target = functions.real_signals(at, images(batch_real, 1), label)
    loss, gradient = functions.loss_and_gradient(at, images(BATCH_SYNTHETIC, 2), label, target)
    features = {f"features of {count}": functions.features(at, images(count, 3)) for count in (BATCH_EMBEDDING, 3)}
    return {"loss": loss, "gradient": gradient, "mean": target.mean_feature_D, **features, **target.gradients}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], rel: float) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].shape == tensor.shape, name
        error = torch.linalg.vector_norm(found[name] - tensor) / torch.linalg.vector_norm(tensor)
        assert error < rel, f"{name}: relative error {error:.1e}"


@contextlib.contextmanager
def counted_graphs() -> Iterator[Callable[[], int]]:
    from torch._dynamo.utils import counters

    before = counters["stats"]["unique_graphs"]
    yield lambda: counters["stats"]["unique_graphs"] - before


@pytest.fixture(scope="module")
def inductor() -> CompiledMatchingFunctions:
    """Functions of a compiled run, compiled once for this module."""
    return compiled()


def test_compiled_equals_eager(inductor: CompiledMatchingFunctions) -> None:
    at = snapshot()
    assert_close(results(inductor, at, 1), results(MatchingFunctions(BOTH), at, 1), rel=1e-5)


@pytest.mark.parametrize("name", OPTIONS)
def test_features_in_bfloat16_are_nearly_those_in_float32(name: str) -> None:
    at = snapshot(name)
    expected = MatchingFunctions(BOTH).features(at, images(3))
    for functions in (MatchingFunctions(BOTH, "bfloat16"), compiled(backend="eager", precision="bfloat16")):
        found = functions.features(at, images(3))
        assert found.dtype == torch.float32
        error = torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected)
        assert 1e-5 < error < 3e-2, "eight bits of a number"


def test_another_class_network_or_step_compiles_nothing(inductor: CompiledMatchingFunctions) -> None:
    results(inductor, snapshot(), 0)
    with counted_graphs() as graphs:
        for label in range(NUM_CLASSES):
            at = snapshot(outer=label)
            assert_close(results(inductor, at, label), results(MatchingFunctions(BOTH), at, label), rel=1e-5)
        assert graphs() == 0


def test_a_class_with_too_few_images_is_matched_eagerly(inductor: CompiledMatchingFunctions) -> None:
    """The compiled shapes depend neither on the classes of a worker nor on their order."""
    at = snapshot()
    results(inductor, at, 0)
    with counted_graphs() as graphs:
        for size in range(1, BATCH_REAL):
            found = inductor.real_signals(at, images(size), 1)
            expected = MatchingFunctions(BOTH).real_signals(at, images(size), 1)
            assert torch.equal(found.mean_feature_D, expected.mean_feature_D)
            assert all(torch.equal(found.gradients[name], g) for name, g in expected.gradients.items())
        assert graphs() == 0


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("convnet", Objective(1.0, 0.0, "mse", False, False)),
        ("convnet", Objective(0.0, 1.0, "cosine", True, True)),
        ("convnet", Objective(0.5, 2.0, "l1_mean", True, False)),
        ("resnetap10", Objective(1.0, 1.0, "l1", False, False)),
        ("resnet10", BOTH),
    ],
)
def test_every_network_and_objective_is_one_graph(name: str, objective: Objective) -> None:
    """The functions are traced as in a compiled run, and executed by eager PyTorch."""
    at = snapshot(name)
    before = at.state()
    with counted_graphs() as graphs:
        found = results(compiled(objective, backend="eager"), at, 2)
        assert graphs() == 3
    assert_close(found, results(MatchingFunctions(objective), at, 2), rel=1e-5)
    after = at.state()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items()), "running statistics stay"


def trained(backpropagate: Backward, name: str, share: float) -> dict[str, Tensor]:
    """The state of a network after two steps of training on a mixed batch."""
    at = snapshot(name)
    own = torch.tensor([0, 1, 2, 3])
    labels = MixedLabels(own, own if share == 1 else own.roll(1), torch.tensor(share))
    optimizer = torch.optim.SGD(at.network.train().parameters(), lr=0.1, momentum=0.9)
    for seed in range(2):
        backpropagate(at.network, images(len(labels.own_N), seed), labels)
        optimizer.step()
    return Snapshot(0, 0, at.network, optimizer).state()


def assert_same_state(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The absolute tolerance is for the bias of a convolution before a norm, whose gradient is rounding errors."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("name", OPTIONS)
def test_training_is_one_graph_and_moves_what_eager_training_moves(name: str) -> None:
    with counted_graphs() as graphs:
        found = trained(CompiledBackward(4, backend="eager"), name, 0.25)
        assert graphs() == 1
    assert_same_state(found, trained(backward, name, 0.25))


def test_compiled_training_equals_eager() -> None:
    backpropagate = CompiledBackward(4)
    for share in (0.25, 1.0):
        with counted_graphs() as graphs:
            assert_same_state(trained(backpropagate, "convnet", share), trained(backward, "convnet", share))
            assert graphs() == (share == 0.25), "compiled once, for any share"


def test_a_batch_of_another_size_is_trained_on_eagerly() -> None:
    with counted_graphs() as graphs:
        found, expected = trained(CompiledBackward(5), "convnet", 1.0), trained(backward, "convnet", 1.0)
        assert graphs() == 0
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def test_a_process_may_compile_more_runs_than_torch_keeps_versions_of_a_function() -> None:
    at = snapshot()
    expected = MatchingFunctions(BOTH).features(at, images(3))
    for _ in range(10):
        assert torch.allclose(compiled(backend="eager").features(at, images(3)), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("message", "is_shown"), [("No CUDA runtime is found, using CUDA_HOME='/usr/local'", False), ("Another one", True)]
)
def test_compiling_without_a_gpu_prints_no_warning_about_cuda(message: str, is_shown: bool) -> None:
    logger = logging.getLogger("torch.utils.cpp_extension")
    assert bool(logger.filter(logger.makeRecord(logger.name, logging.WARNING, "", 0, message, (), None))) == is_shown
