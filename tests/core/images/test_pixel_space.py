"""Pixel spaces: the two spaces against each other and against SGD on the joint loss."""

import torch

from dream_ray.core.images.normalisation import Normalisation
from dream_ray.core.images.pixel_space import PIXEL_SPACES, normalised_pixels, unit_pixels
from dream_ray.core.matching.pixel_sgd import pixel_step

NORMALISE = Normalisation.of((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), torch.device("cpu"))


def test_from_unit_and_to_unit_are_inverse() -> None:
    images = torch.rand(2, 3, 4, 4)
    for make in PIXEL_SPACES.values():
        space = make(NORMALISE)
        torch.testing.assert_close(space.to_unit(space.from_unit(images)), images)
        torch.testing.assert_close(space.to_inputs(space.from_unit(images)), NORMALISE(images))


def test_only_unit_pixels_are_clamped() -> None:
    images = torch.tensor([-1.0, 0.5, 2.0]).reshape(1, 3, 1, 1)
    assert unit_pixels(NORMALISE).clamp(images).flatten().tolist() == [0, 0.5, 1]
    assert torch.equal(normalised_pixels(NORMALISE).clamp(images), images)


def test_noise_is_standard_normal_in_normalised_pixels() -> None:
    noise = torch.randn(4, 3, 8, 8)
    assert torch.equal(normalised_pixels(NORMALISE).to_inputs(normalised_pixels(NORMALISE).from_noise(noise)), noise)
    grey = unit_pixels(NORMALISE).from_noise(noise)
    assert grey.min() >= 0
    assert grey.max() <= 1


def test_a_step_of_normalised_pixels_is_one_of_unit_pixels_with_the_rate_times_the_variance() -> None:
    """lr becomes lr * std^2, channel by channel."""
    images = torch.rand(2, 3, 4, 4)
    lr, weights = 0.1, torch.randn(2, 3, 4, 4)

    def gradient(inputs: torch.Tensor) -> torch.Tensor:
        return torch.func.grad(lambda x: (weights * x.square()).sum())(inputs)

    space = normalised_pixels(NORMALISE)
    stored = space.from_unit(images)
    moved, _ = pixel_step(stored, torch.zeros_like(stored), gradient(stored), lr=lr, momentum=0.5, num_classes=1)
    of_unit = gradient(NORMALISE(images)) / NORMALISE.std_1C11
    expected = images - lr * NORMALISE.std_1C11.square() * of_unit
    torch.testing.assert_close(space.to_unit(moved), expected)


def test_a_joint_step_is_that_of_one_sgd_over_the_summed_loss() -> None:
    """DC, DSA, DM and MTT: the step of a class does not depend on the other classes."""
    torch.manual_seed(0)
    images, targets = torch.rand(3, 2, 1, 2, 2), torch.rand(3, 2, 1, 2, 2)
    shared = images.clone().requires_grad_()
    optimizer = torch.optim.SGD([shared], lr=0.1, momentum=0.5)
    own = [(one, torch.zeros_like(one)) for one in images]
    for _ in range(5):
        optimizer.zero_grad()
        (shared - targets).square().sum().backward()
        optimizer.step()
        own = [
            pixel_step(one, velocity, 2 * (one - target), lr=0.1, momentum=0.5, num_classes=1)
            for (one, velocity), target in zip(own, targets, strict=True)
        ]
    torch.testing.assert_close(torch.stack([one for one, _ in own]), shared.detach())


def test_a_constant_channel_is_not_divided() -> None:
    """Such as blue in false-colour images."""
    normalise = Normalisation.of((0.5, 0.0), (0.25, 0.0), torch.device("cpu"))
    images = torch.stack([torch.full((4, 4), 0.75), torch.zeros(4, 4)])[None]
    inputs = normalise(images)
    assert torch.equal(inputs, torch.stack([torch.ones(4, 4), torch.zeros(4, 4)])[None])
    assert torch.equal(normalise.inverse(inputs), images)
