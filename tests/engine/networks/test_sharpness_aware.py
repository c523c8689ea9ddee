"""The gradient of SAM against a loop written by hand."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dream_ray.core import rng
from dream_ray.engine.networks.sharpness_aware import flat_backward
from dream_ray.engine.networks.training import MixedLabels, Recipe, backward, train_step
from dream_ray.nets import Classifier, build_network


def network(norm: str = "instance") -> Classifier:
    with rng.torch_randomness(rng.stream(0, "network")):
        options = {"depth": 1, "width": 4, "norm": norm}
        return build_network("convnet", num_classes=2, shape_CHW=(1, 8, 8), options=options).double().train()


def batch() -> tuple[torch.Tensor, MixedLabels]:
    images = torch.from_numpy(rng.stream(0, "images").normal(size=(6, 1, 8, 8)))
    return images, MixedLabels(torch.arange(6) % 2, torch.arange(6) // 3, torch.tensor(0.7, dtype=torch.float64))


@pytest.mark.parametrize("radius", [0.0, 0.05, 1.0])
def test_gradient_equals_a_loop_by_hand(radius: float) -> None:
    images, labels = batch()
    by_hand = network()
    weights = list(by_hand.parameters())

    def gradients() -> list[torch.Tensor]:
        log_probabilities = by_hand(images)[1].log_softmax(dim=1)
        one_hot = 0.7 * F.one_hot(labels.own_N, 2).double() + 0.3 * F.one_hot(labels.partner_N, 2).double()
        return list(torch.autograd.grad(-(one_hot * log_probabilities).sum(dim=1).mean(), weights))

    uphill = gradients()
    length = np.sqrt(sum(float((gradient**2).sum()) for gradient in uphill))
    with torch.no_grad():
        for weight, gradient in zip(weights, uphill, strict=True):
            weight += radius * gradient / length
    expected = gradients()

    ours = network()
    flat_backward(radius)(ours, images, labels)
    for parameter, gradient, untouched in zip(ours.parameters(), expected, network().parameters(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-13)
        assert torch.equal(parameter, untouched)


def test_statistics_move_once_and_are_those_of_the_parameters() -> None:
    images, labels = batch()
    flat, plain = network("batch"), network("batch")
    flat_backward(0.5)(flat, images, labels)
    backward(plain, images, labels)
    buffers = dict(plain.named_buffers())
    assert buffers
    for name, buffer in flat.named_buffers():
        assert torch.equal(buffer, buffers[name])


def test_a_network_without_a_gradient_stays_finite() -> None:
    images, labels = batch()
    still = network()
    labels = MixedLabels(labels.own_N, 1 - labels.own_N, torch.tensor(0.5, dtype=torch.float64))
    with torch.no_grad():
        still.head.weight.zero_()
        still.head.bias.zero_()
    flat_backward(0.5)(still, images, labels)
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in still.parameters())


def test_it_trains() -> None:
    images, labels = batch()
    learner, recipe = network(), Recipe(6, 0.1, 0.9, 0.0, 0.0, "none")
    optimizer = recipe.optimizer(learner)
    for _ in range(20):
        train_step(learner, optimizer, images, labels.own_N, recipe, rng.stream(0, "x"), flat_backward(0.05))
    assert torch.equal(learner(images)[1].argmax(dim=1), labels.own_N)
