"""Objectives against double backward by hand in float64, and what the switches do."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dream_ray.core.objectives import DISTANCES, Objective, Parameters, Signals, matching_loss, signals


def forward(parameters: Parameters, images: Tensor) -> tuple[Tensor, Tensor]:
    hidden = torch.tanh(F.linear(images.flatten(1), parameters["trunk.weight"], parameters["trunk.bias"]))
    return hidden, F.linear(hidden, parameters["head.weight"], parameters["head.bias"])


@pytest.fixture
def parameters() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"trunk.weight": (5, 4), "trunk.bias": (5,), "head.weight": (3, 5), "head.bias": (3,)}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def images(count: int, seed: int) -> Tensor:
    return torch.randn(count, 1, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(parameters: dict[str, Tensor], synthetic: Tensor, real: Tensor, label: int, objective: Objective) -> Tensor:
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in parameters.items()}
    sides = []
    for batch in (real, synthetic):
        features, logits = forward(leaves, batch)
        loss = -torch.log_softmax(logits, dim=1)[:, label].mean()
        gradients = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
        sides.append((features.mean(0), dict(zip(leaves, gradients, strict=True))))
    (feature_real, gradient_real), (feature_synthetic, gradient_synthetic) = sides
    distance = DISTANCES[objective.distance]
    total = objective.feature_weight * distance(feature_real.detach(), feature_synthetic)
    for name in objective.matched_names(parameters):
        gap = distance(gradient_real[name].detach(), gradient_synthetic[name])
        total = total + objective.gradient_weight * gap
    return total


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.0, 2.0), (3.0, 0.0), (0.5, 0.25)])
@pytest.mark.parametrize(("biases", "classifier"), [(False, False), (True, False), (False, True), (True, True)])
def test_loss_and_gradient_equal_double_backward_by_hand(
    parameters: dict[str, Tensor], distance: str, weights: tuple[float, float], biases: bool, classifier: bool
) -> None:
    objective = Objective(*weights, distance, biases, classifier)
    real, synthetic, label = images(6, 1), images(3, 2), 1
    target = signals(forward, parameters, real, label, objective)

    def loss_of(batch: Tensor) -> Tensor:
        return matching_loss(target, signals(forward, parameters, batch, label, objective), objective)

    gradient, loss = torch.func.grad_and_value(loss_of)(synthetic)
    leaf = synthetic.clone().requires_grad_()
    expected = by_hand(parameters, leaf, real, label, objective)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, leaf)[0])
    if distance in ("mse", "cosine"):
        assert torch.autograd.gradcheck(lambda x: by_hand(parameters, x, real, label, objective), leaf)


def test_matched_names_follow_the_switches(parameters: dict[str, Tensor]) -> None:
    def names(biases: bool, classifier: bool) -> tuple[str, ...]:
        return Objective(1, 1, "mse", biases, classifier).matched_names(parameters)

    assert names(False, False) == ("trunk.weight",)
    assert names(False, True) == ("trunk.weight", "head.weight")
    assert names(True, False) == ("trunk.weight", "trunk.bias", "head.bias")
    assert names(True, True) == tuple(parameters)


def test_no_gradient_is_computed_where_none_is_matched(parameters: dict[str, Tensor]) -> None:
    result = signals(forward, parameters, images(2, 0), 0, Objective(1.0, 0.0, "mse", False, False))
    assert result.gradients == {}


def test_equal_signals_have_no_loss(parameters: dict[str, Tensor]) -> None:
    objective = Objective(1.0, 1.0, "mse", True, True)
    same: Signals = signals(forward, parameters, images(4, 0), 2, objective)
    assert matching_loss(same, same, objective).item() == 0.0
