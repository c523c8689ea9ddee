"""Instance norm in closed form against the norm of PyTorch: values, gradients and gradients of gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dream_ray.nets.instance_norm import InstanceNorm, with_closed_norms

SHAPES = ((4, 3, 5, 2), (2, 3, 7), (3, 3, 1, 1))


def norm(num_channels: int = 3) -> nn.GroupNorm:
    found = nn.GroupNorm(num_channels, num_channels).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in found.parameters():
        parameter.data = torch.randn(num_channels, generator=generator, dtype=torch.float64)
    return found


def maps(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def second_derivatives(module: nn.Module, images: Tensor) -> list[Tensor]:
    """Returns values, gradients by images, scale and shift, and derivatives of a function of these gradients."""
    images = images.clone().requires_grad_()
    leaves = [images, *module.parameters()]
    values = module(images)
    gradients = torch.autograd.grad(values.square().mul(maps(values.shape, 1)).sum(), leaves, create_graph=True)
    of_gradients = torch.stack([(gradient**3).sum() for gradient in gradients]).sum()
    return [values.detach(), *gradients, *torch.autograd.grad(of_gradients, leaves)]


@pytest.mark.parametrize("shape", SHAPES)
def test_two_derivatives_equal_those_of_pytorch(shape: tuple[int, ...]) -> None:
    own, of_pytorch = (second_derivatives(module, maps(shape)) for module in (InstanceNorm(norm()), norm()))
    for found, expected in zip(own, of_pytorch, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_a_batch_of_classes_has_the_second_derivatives_of_each() -> None:
    module = InstanceNorm(norm())

    def penalty(images_NCHW: Tensor) -> Tensor:
        def loss(images_NCHW: Tensor) -> Tensor:
            values: Tensor = module(images_NCHW)
            return values.pow(4).sum()

        return torch.func.grad(loss)(images_NCHW).square().sum()

    derivative: Callable[[Tensor], Tensor] = torch.func.grad(penalty)
    images_LNCHW = maps((3, 4, 3, 5, 2))
    expected_LNCHW = torch.stack([derivative(images_NCHW) for images_NCHW in images_LNCHW])
    torch.testing.assert_close(torch.func.vmap(derivative)(images_LNCHW), expected_LNCHW)


def test_only_affine_instance_norms_are_replaced_and_keep_their_parameters() -> None:
    class Own(nn.GroupNorm):
        """A norm of a user, whose values may be others."""

    inner = nn.Sequential(norm(), nn.GroupNorm(1, 3), nn.GroupNorm(3, 3, affine=False), Own(3, 3))
    network = nn.Sequential(inner, nn.BatchNorm2d(3))
    before = dict(network.named_parameters())
    assert with_closed_norms(network) is network
    assert [type(module) for module in inner] == [InstanceNorm, nn.GroupNorm, nn.GroupNorm, Own]
    assert {name: id(parameter) for name, parameter in network.named_parameters()} == {
        name: id(parameter) for name, parameter in before.items()
    }
