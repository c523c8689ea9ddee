"""The objective of MTT: a student trained on the synthetic set should reach the parameters of an expert.

Source: MTT (Cazenavette et al., CVPR 2022, arXiv 2203.11932), algorithm 1. From an expert's parameters theta_0 a
student takes steps theta_{i+1} = theta_i - a g_i of SGD without momentum, g_i = d CE(f_theta_i(x_i), y_i) / d theta_i,
and

    loss = |theta_N - target|^2 / |theta_0 - target|^2.

Its gradient is exact, by the adjoint method: with l_N = d loss / d theta_N and the scalar s_i = <g_i, l_{i+1}>,

    l_i = l_{i+1} - a d s_i / d theta_i,    d loss / d x_i = -a d s_i / d x_i,    d loss / d a = -sum of s_i,

so one step is differentiated at a time, and only the parameters of the earlier steps are kept.
N images, C channels, H, W.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dream_ray.core.matching.objectives import Forward, Parameters

Batch = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Synthetic images -> training batch of a student step: inputs (N, C, H, W), differentiable, and int64 labels (N,).
It is called more than once and must return the same each time, so all random draws are made beforehand."""


class TrajectoryMatch(NamedTuple):
    """The loss of a student, and its gradients.

    Attributes:
        loss: Squared distance to the target over that from the start to the target, a scalar; 1 for a student that
            does not move. Not finite if start and target are equal.
        by_images: d loss / d images, in the shape of the images.
        by_step_size: d loss / d step size, a scalar.
    """

    loss: Tensor
    by_images: Tensor
    by_step_size: Tensor


def student_gradient(forward: Forward, parameters: Parameters, inputs_NCHW: Tensor, labels_N: Tensor) -> Parameters:
    """Returns d CE / d parameters, the mean over a batch.

    Ordinary autograd takes less memory than `torch.func.grad`, which keeps the graph of every derivative.
    """
    with torch.enable_grad():
        leaves = _leaves(parameters)
        loss = F.cross_entropy(forward(leaves, inputs_NCHW)[1], labels_N)
        gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    return dict(zip(leaves, gradients, strict=True))


def contracted_gradient(
    forward: Forward, parameters: Parameters, inputs_NCHW: Tensor, labels_N: Tensor, direction: Parameters
) -> tuple[Tensor, Parameters, Tensor]:
    """Returns s = <d CE / d parameters, direction>, a scalar, d s / d parameters and d s / d inputs (N, C, H, W)."""
    with torch.enable_grad():
        leaves, inputs_NCHW = _leaves(parameters), inputs_NCHW.detach().requires_grad_()
        loss = F.cross_entropy(forward(leaves, inputs_NCHW)[1], labels_N)
        gradients = torch.autograd.grad(loss, list(leaves.values()), create_graph=True, materialize_grads=True)
        value = _inner_product(dict(zip(leaves, gradients, strict=True)), direction)
        *by_parameters, by_inputs_NCHW = torch.autograd.grad(
            value, [*leaves.values(), inputs_NCHW], materialize_grads=True
        )
    return value.detach(), dict(zip(leaves, by_parameters, strict=True)), by_inputs_NCHW


def _leaves(parameters: Parameters) -> dict[str, Tensor]:
    return {name: values.detach().requires_grad_() for name, values in parameters.items()}


def _inner_product(a: Parameters, b: Parameters) -> Tensor:
    return torch.stack([torch.sum(values * b[name]) for name, values in a.items()]).sum()


@torch.no_grad()
def match_trajectory(
    forward: Forward,
    start: Parameters,
    target: Parameters,
    batches: Sequence[Batch],
    images: Tensor,
    step_size: Tensor,
) -> TrajectoryMatch:
    """Trains a student on synthetic images and compares it with an expert.

    The parameters before each step are kept for the backward pass. Recomputing some of them would cost one more
    gradient for almost every step.

    Args:
        forward: The network as a function.
        start: Parameters of the expert where the student starts.
        target: Parameters of the expert that the student should reach, with the same names.
        batches: One for each step of the student; without batches, the student does not move.
        images: Stored synthetic images in any shape that `batches` take.
        step_size: Learning rate a of the student, a scalar.
    """
    passed = list(_walk(forward, start, batches, images, step_size))
    arrived = passed.pop()
    whole = squared_distance(start, target)
    loss = squared_distance(arrived, target) / whole
    adjoint: Parameters = {name: 2 * (values - target[name]) / whole for name, values in arrived.items()}
    by_images, by_step_size = torch.zeros_like(images), torch.zeros_like(step_size)
    for batch in reversed(batches):
        adjoint, of_images, of_step_size = _step_back(forward, passed.pop(), adjoint, batch, images, step_size)
        by_images += of_images
        by_step_size += of_step_size
    return TrajectoryMatch(loss, by_images, by_step_size)


def squared_distance(a: Parameters, b: Parameters) -> Tensor:
    """Returns the squared Euclidean distance of two sets of parameters, a scalar."""
    return torch.stack([torch.sum((values - b[name]).square()) for name, values in a.items()]).sum()


def _walk(
    forward: Forward, start: Parameters, batches: Sequence[Batch], images: Tensor, step_size: Tensor
) -> Iterator[Parameters]:
    """Yields the parameters of a student before the first step and after each."""
    parameters = start
    yield parameters
    for batch in batches:
        gradient = student_gradient(forward, parameters, *batch(images))
        parameters = {name: values - step_size * gradient[name] for name, values in parameters.items()}
        yield parameters


def _step_back(
    forward: Forward, parameters: Parameters, adjoint: Parameters, batch: Batch, images: Tensor, step_size: Tensor
) -> tuple[Parameters, Tensor, Tensor]:
    """Backpropagates through one step of the student.

    Args:
        forward: The network as a function.
        parameters: Parameters before the step.
        adjoint: d loss / d parameters after the step.
        batch: Training batch of the step.
        images: Synthetic images.
        step_size: Learning rate.

    Returns:
        d loss / d parameters before the step, and what the step adds to the gradients of images and step size.
    """
    inputs_NCHW, pull_back, labels_N = torch.func.vjp(batch, images, has_aux=True)  # type: ignore[misc]  # 3 with has_aux
    value, by_parameters, by_inputs_NCHW = contracted_gradient(forward, parameters, inputs_NCHW, labels_N, adjoint)
    before = {name: values - step_size * by_parameters[name] for name, values in adjoint.items()}
    return before, pull_back(-step_size * by_inputs_NCHW)[0], -value
