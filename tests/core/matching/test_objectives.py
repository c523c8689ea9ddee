"""Objectives against double backward and loops by hand in float64, and the effect of the switches."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dream_ray.core.matching.derivatives import Differentiate, by_autograd, by_transforms
from dream_ray.core.matching.objectives import (
    Forward,
    Objective,
    Parameters,
    Signals,
    matching_gradient,
    matching_loss,
    signals,
)


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


def cosine_gap(a: list[Tensor], b: list[Tensor]) -> Tensor:
    norms = [sum(x * x for x in row) ** 0.5 for row in (a, b)]
    return 1 - sum(x * y for x, y in zip(a, b, strict=True)) / (norms[0] * norms[1] + 1e-6)


ROW_GAPS: dict[str, Callable[[list[Tensor], list[Tensor]], Tensor]] = {
    "mse": lambda a, b: sum((x - y) ** 2 for x, y in zip(a, b, strict=True)),
    "l1": lambda a, b: sum(abs(x - y) for x, y in zip(a, b, strict=True)),
    "l1_mean": lambda a, b: sum(abs(x - y) for x, y in zip(a, b, strict=True)) / len(a),
    "cosine": cosine_gap,
}


def gap_by_loops(distance: str, a: Tensor, b: Tensor) -> Tensor:
    """Sums over the rows of the first axis, number by number."""
    return sum(ROW_GAPS[distance](list(a[row].flatten()), list(b[row].flatten())) for row in range(len(a)))


def by_hand(
    parameters: dict[str, Tensor],
    synthetic: Tensor,
    real: Tensor,
    label: int,
    objective: Objective,
    forward: Forward = forward,
) -> Tensor:
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in parameters.items()}
    sides = []
    for batch in (real, synthetic):
        features, logits = forward(leaves, batch)
        loss = -torch.log_softmax(logits, dim=1)[:, label].mean()
        gradients = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
        sides.append((features.mean(0), dict(zip(leaves, gradients, strict=True))))
    (feature_real, gradient_real), (feature_synthetic, gradient_synthetic) = sides
    feature_gap = ROW_GAPS[objective.distance](list(feature_real.detach()), list(feature_synthetic))
    total = objective.feature_weight * feature_gap
    for name in objective.matched_names(parameters):
        gap = gap_by_loops(objective.distance, gradient_real[name].detach(), gradient_synthetic[name])
        total = total + objective.gradient_weight * gap
    return total


def loss_and_gradient(
    forward: Forward,
    parameters: Parameters,
    real: Tensor,
    synthetic: Tensor,
    label: int,
    objective: Objective,
    differentiate: Differentiate,
) -> tuple[Tensor, Tensor]:
    at = torch.tensor(label)
    target = signals(forward, parameters, real, at, objective, differentiate)

    def synthetic_signals(batch: Tensor) -> Signals:
        return signals(forward, parameters, batch, at, objective, differentiate, again=True)

    return matching_gradient(synthetic_signals, synthetic, target, objective, differentiate)


@pytest.mark.parametrize("differentiate", [by_autograd, by_transforms])
@pytest.mark.parametrize("distance", ROW_GAPS)
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.0, 2.0), (3.0, 0.0), (0.5, 0.25)])
@pytest.mark.parametrize(("biases", "classifier"), [(False, False), (True, False), (False, True), (True, True)])
def test_loss_and_gradient_equal_double_backward_by_hand(
    parameters: dict[str, Tensor],
    distance: str,
    weights: tuple[float, float],
    biases: bool,
    classifier: bool,
    differentiate: Differentiate,
) -> None:
    objective = Objective(*weights, distance, biases, classifier)
    real, synthetic, label = images(6, 1), images(3, 2), 1
    loss, gradient = loss_and_gradient(forward, parameters, real, synthetic, label, objective, differentiate)
    leaf = synthetic.clone().requires_grad_()
    expected = by_hand(parameters, leaf, real, label, objective)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, leaf)[0])
    if distance in ("mse", "cosine"):
        assert torch.autograd.gradcheck(lambda x: by_hand(parameters, x, real, label, objective), leaf)


def convolutional(parameters: Parameters, images: Tensor) -> tuple[Tensor, Tensor]:
    maps = torch.tanh(F.conv2d(images, parameters["trunk.weight"], parameters["trunk.bias"], padding=1))
    features = maps.flatten(1)
    return features, F.linear(features, parameters["head.weight"], parameters["head.bias"])


def convolutional_parameters() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)
    shapes = {"trunk.weight": (2, 1, 3, 3), "trunk.bias": (2,), "head.weight": (3, 8), "head.bias": (3,)}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


DC = Objective(0.0, 1.0, "cosine", match_biases=False, match_classifier=True)
DM = Objective(1.0, 0.0, "mse", match_biases=False, match_classifier=False)


@pytest.mark.parametrize("differentiate", [by_autograd, by_transforms])
@pytest.mark.parametrize("objective", [DC, DM], ids=["dc", "dm"])
def test_gradients_of_dc_and_dm_equal_double_backward_through_a_convolution(
    objective: Objective, differentiate: Differentiate
) -> None:
    parameters, real, synthetic, label = convolutional_parameters(), images(6, 1), images(3, 2), 1
    loss, gradient = loss_and_gradient(convolutional, parameters, real, synthetic, label, objective, differentiate)
    leaf = synthetic.clone().requires_grad_()
    expected = by_hand(parameters, leaf, real, label, objective, convolutional)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, leaf)[0])


def test_dc_compares_every_output_channel_of_a_convolution_and_every_class_of_the_classifier() -> None:
    """With plain numbers, row by row; biases are left out."""
    parameters = convolutional_parameters()
    label = torch.tensor(2)
    sides = [signals(convolutional, parameters, images(count, seed=count), label, DC).gradients for count in (6, 3)]
    total = 0.0
    for name in ("trunk.weight", "head.weight"):
        for a, b in zip(*(gradients[name].flatten(1).tolist() for gradients in sides), strict=True):
            dot = sum(x * y for x, y in zip(a, b, strict=True))
            total += 1 - dot / (math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b)) + 1e-6)
    of_real, of_synthetic = (Signals(torch.zeros(1, 8, dtype=torch.float64), gradients) for gradients in sides)
    assert matching_loss(of_real, of_synthetic, DC).item() == pytest.approx(total, rel=1e-12)


def test_dm_compares_the_means_of_features() -> None:
    """With plain numbers: a loop over the features, and one over the images of either batch."""
    parameters, real, synthetic = convolutional_parameters(), images(6, 1), images(3, 2)
    total = 0.0
    for feature in range(8):
        means = []
        for batch in (real, synthetic):
            of_each = convolutional(parameters, batch)[0][:, feature].tolist()
            means.append(sum(of_each) / len(of_each))
        total += (means[0] - means[1]) ** 2
    of_real, of_synthetic = (signals(convolutional, parameters, batch, 0, DM) for batch in (real, synthetic))
    assert matching_loss(of_real, of_synthetic, DM).item() == pytest.approx(total, rel=1e-12)


def test_cosine_of_features_is_that_of_the_whole_vector() -> None:
    objective = Objective(1.0, 0.0, "cosine", False, False)
    first, longer, other = (Signals(torch.tensor([values]), {}) for values in ([3.0, 4.0], [6.0, 8.0], [4.0, 3.0]))
    assert matching_loss(first, longer, objective).item() == pytest.approx(0, abs=1e-6)
    assert matching_loss(first, other, objective).item() == pytest.approx(1 - 24 / 25, abs=1e-6)


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
    same: Signals = signals(forward, parameters, images(4, 0), torch.tensor(2), objective)
    assert matching_loss(same, same, objective).item() == 0.0
