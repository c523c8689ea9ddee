"""The objective of MTT and its adjoint against autograd through the whole unrolled loop, in float64."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dream_ray.core import rng
from dream_ray.core.images.augment import augment, sample_params, view_of
from dream_ray.core.images.multiformation import decode_factor
from dream_ray.core.matching import trajectory_matching
from dream_ray.core.matching.objectives import Forward, Parameters
from dream_ray.core.matching.trajectory_matching import (
    Batch,
    TrajectoryMatch,
    contracted_gradient,
    match_trajectory,
    student_gradient,
)

CLASSES, IPC = 3, 2


def forward(parameters: Parameters, images: Tensor) -> tuple[Tensor, Tensor]:
    """A convolution, a smooth activation (for finite differences), a mean pool and a linear layer."""
    maps = torch.tanh(F.conv2d(images, parameters["trunk.weight"], parameters["trunk.bias"], padding=1))
    features = F.avg_pool2d(maps, 4).flatten(1)
    return features, F.linear(features, parameters["head.weight"], parameters["head.bias"])


def parameters(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"trunk.weight": (4, 2, 3, 3), "trunk.bias": (4,), "head.weight": (CLASSES, 16), "head.bias": (CLASSES,)}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def synthetic() -> Tensor:
    """Stored images of every class (L, N, C, H, W)."""
    generator = torch.Generator().manual_seed(9)
    return torch.rand(CLASSES, IPC, 2, 8, 8, generator=generator, dtype=torch.float64)


def batches(count: int) -> list[Batch]:
    """For each step a random half of the decoded set, normalised and augmented; all draws are made here."""

    def batch(images: Tensor, chosen: Tensor, step: int) -> tuple[Tensor, Tensor]:
        decoded = torch.stack([decode_factor(of_class, 2) for of_class in images])
        labels = torch.arange(CLASSES).repeat_interleave(decoded.shape[1])
        view = sample_params("color_crop_flip_cutout", rng.stream(step, "test"), height=8, width=8)
        return augment((decoded.flatten(0, 1)[chosen] - 0.4) / 0.3, view_of(view, images.device, images.dtype)), labels[
            chosen
        ]

    decoded = CLASSES * IPC * 4
    orders = [torch.from_numpy(rng.stream(step, "order").permutation(decoded)) for step in range(count)]
    return [partial(batch, chosen=order[: decoded // 2], step=step) for step, order in enumerate(orders)]


STEP_SIZE = torch.tensor(0.3, dtype=torch.float64)


def match(count: int, images: Tensor, step_size: Tensor = STEP_SIZE) -> TrajectoryMatch:
    return match_trajectory(forward, parameters(0), parameters(1), batches(count), images, step_size)


def unrolled(images: Tensor, step_size: Tensor, steps: Sequence[Batch]) -> Tensor:
    """MTT's loss as its algorithm is written, on one flat vector; differentiable."""
    start, target = parameters(0), parameters(1)
    shapes = {name: tensor.shape for name, tensor in start.items()}

    def unflat(vector: Tensor) -> dict[str, Tensor]:
        parts = vector.split([shape.numel() for shape in shapes.values()])
        return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}

    first, last = (torch.cat([tensor.flatten() for tensor in one.values()]) for one in (start, target))
    theta = first.clone().requires_grad_()
    for step in steps:
        inputs, labels = step(images)
        logits = forward(unflat(theta), inputs)[1]
        loss = -torch.log_softmax(logits, dim=1)[torch.arange(len(labels)), labels].mean()
        theta = theta - step_size * torch.autograd.grad(loss, theta, create_graph=True)[0]
    return (theta - last).dot(theta - last) / (first - last).dot(first - last)


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_loss_and_gradients_equal_autograd_through_the_whole_loop(count: int) -> None:
    images, step_size = synthetic().requires_grad_(), STEP_SIZE.clone().requires_grad_()
    expected = unrolled(images, step_size, batches(count))
    result = match(count, synthetic())
    torch.testing.assert_close(result.loss, expected.detach(), rtol=1e-12, atol=0)
    if count == 0:
        return
    by_images, by_step_size = torch.autograd.grad(expected, (images, step_size))
    torch.testing.assert_close(result.by_images, by_images, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(result.by_step_size, by_step_size, rtol=1e-10, atol=0)
    assert bool((result.by_images.abs().amax(dim=(1, 2, 3, 4)) > 1e-6).all())


def test_the_gradient_differs_from_a_first_order_approximation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the derivative through the parameters, the gradient in the images differs."""
    right = match(7, synthetic())

    def without_curvature(*given: Any) -> tuple[Tensor, Parameters, Tensor]:
        value, by_parameters, by_inputs = contracted_gradient(*given)
        return value, {name: torch.zeros_like(x) for name, x in by_parameters.items()}, by_inputs

    monkeypatch.setattr(trajectory_matching, "contracted_gradient", without_curvature)
    wrong = match(7, synthetic())
    assert float((wrong.by_images - right.by_images).norm() / right.by_images.norm()) > 0.1


def test_gradients_equal_finite_differences() -> None:
    count, images, tiny = 5, synthetic(), 1e-5
    result = match(count, images)
    generator = torch.Generator().manual_seed(3)
    for _ in range(5):
        direction = torch.randn(images.shape, generator=generator, dtype=torch.float64)
        above, below = (match(count, images + sign * tiny * direction).loss for sign in (1, -1))
        torch.testing.assert_close(
            (result.by_images * direction).sum(), (above - below) / (2 * tiny), rtol=1e-6, atol=1e-9
        )
    above, below = (match(count, images, STEP_SIZE + sign * tiny).loss for sign in (1, -1))
    torch.testing.assert_close(result.by_step_size, (above - below) / (2 * tiny), rtol=1e-7, atol=0)


def test_a_student_without_steps_stays_where_it_is() -> None:
    result = match(0, synthetic())
    assert result.loss.item() == 1.0
    assert result.by_images.shape == synthetic().shape
    assert not result.by_images.any()
    assert result.by_step_size.item() == 0.0


def test_one_step_by_hand() -> None:
    [batch] = batches(1)
    start, target = parameters(0), parameters(1)
    gradient = student_gradient(forward, start, *batch(synthetic()))
    gap = sum(((start[name] - 0.3 * gradient[name] - target[name]) ** 2).sum() for name in start)
    slope = sum((-2 * gradient[name] * (start[name] - 0.3 * gradient[name] - target[name])).sum() for name in start)
    whole = sum(((start[name] - target[name]) ** 2).sum() for name in start)
    result = match(1, synthetic())
    assert result.loss.item() == pytest.approx(float(gap / whole), rel=1e-12)
    assert result.by_step_size.item() == pytest.approx(float(slope / whole), rel=1e-12)


def test_a_perfect_student_has_no_loss_and_no_gradient() -> None:
    [batch] = batches(1)
    start = parameters(0)
    gradient = student_gradient(forward, start, *batch(synthetic()))
    target = {name: start[name] - STEP_SIZE * gradient[name] for name in start}
    result = match_trajectory(forward, start, target, [batch], synthetic(), STEP_SIZE)
    assert result.loss.item() == 0.0
    assert not result.by_images.any()
    assert result.by_step_size.item() == 0.0


@pytest.mark.parametrize("count", [0, 2])
def test_an_expert_that_does_not_move_has_a_loss_that_is_not_finite(count: int) -> None:
    same = parameters(0)
    result = match_trajectory(forward, same, same, batches(count), synthetic(), STEP_SIZE)
    assert not bool(result.loss.isfinite())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_result_has_the_precision_of_the_input(dtype: torch.dtype) -> None:
    start, target = ({name: x.to(dtype) for name, x in parameters(seed).items()} for seed in (0, 1))
    images, step_size = synthetic().to(dtype), STEP_SIZE.to(dtype)
    result = match_trajectory(forward, start, target, batches(7), images, step_size)
    assert {tensor.dtype for tensor in result} == {dtype}


def test_batches_are_replayed_and_nothing_is_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Step i sees the same batch each time: once forwards, once backwards."""
    order: list[int] = []
    seen: list[tuple[str, Tensor, Tensor]] = []

    def recorded(step: int, batch: Batch, images: Tensor) -> tuple[Tensor, Tensor]:
        order.append(step)
        return batch(images)

    def learning(name: str, function: Callable[..., Any], network: Forward, start: Parameters, *given: Any) -> Any:
        seen.append((name, *given[:2]))
        return function(network, start, *given)

    for function in (student_gradient, contracted_gradient):
        monkeypatch.setattr(trajectory_matching, function.__name__, partial(learning, function.__name__, function))
    steps = [partial(recorded, step, batch) for step, batch in enumerate(batches(7))]
    match_trajectory(forward, parameters(0), parameters(1), steps, synthetic(), STEP_SIZE)
    names = [name for name, _, _ in seen]
    assert names == ["student_gradient"] * 7 + ["contracted_gradient"] * 7
    assert order == [*range(7), *reversed(range(7))]
    for step, (_, inputs, labels) in zip(order, seen, strict=True):
        assert torch.equal(inputs, seen[step][1])
        assert torch.equal(labels, seen[step][2])


def test_no_graph_is_kept_and_no_input_is_changed() -> None:
    images = synthetic().requires_grad_()
    start, target = parameters(0), parameters(1)
    result = match_trajectory(forward, start, target, batches(3), images, STEP_SIZE)
    assert not any(tensor.requires_grad for tensor in result)
    assert images.grad is None
    assert torch.equal(images.detach(), synthetic())
    assert all(torch.equal(start[name], values) for name, values in parameters(0).items())
    assert STEP_SIZE.item() == 0.3


def test_a_contraction_is_the_pull_back_of_the_gradient() -> None:
    def cross_entropy(theta: Parameters, inputs: Tensor) -> Tensor:
        return F.cross_entropy(forward(theta, inputs)[1], labels)

    [batch] = batches(1)
    inputs, labels = batch(synthetic())
    direction = parameters(5)
    gradient, pull_back = torch.func.vjp(torch.func.grad(cross_entropy), parameters(0), inputs)
    value, by_parameters, by_inputs = contracted_gradient(forward, parameters(0), inputs, labels, direction)
    torch.testing.assert_close(value, torch.stack([(gradient[n] * direction[n]).sum() for n in gradient]).sum())
    torch.testing.assert_close((dict(by_parameters), by_inputs), pull_back(direction))
    for name, values in student_gradient(forward, parameters(0), inputs, labels).items():
        torch.testing.assert_close(values, gradient[name])
        assert not values.requires_grad
    assert not value.requires_grad
    assert not by_inputs.requires_grad


def test_unused_inputs_have_derivative_zero() -> None:
    """The network is a bias alone, and has an unused parameter."""
    theta = {"bias": torch.randn(CLASSES, dtype=torch.float64), "unused": torch.randn(2, dtype=torch.float64)}
    inputs, labels = torch.randn(6, 2, dtype=torch.float64), torch.arange(6) % CLASSES
    direction = {name: torch.ones_like(values) for name, values in theta.items()}

    def constant(theta: Parameters, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return inputs, theta["bias"].expand(len(inputs), CLASSES)

    _, by_parameters, by_inputs = contracted_gradient(constant, theta, inputs, labels, direction)
    assert not by_inputs.any()
    assert not by_parameters["unused"].any()
    assert not student_gradient(constant, theta, inputs, labels)["unused"].any()
