"""Training steps against loops by hand, and the compiled program against the eager one."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dream_ray.core import rng
from dream_ray.core.images.cutmix import cutmix, mix_of, sample_cutmix
from dream_ray.core.images.normalisation import Normalisation
from dream_ray.core.images.random_crops import sample_crops
from dream_ray.engine.networks.program_form import ProgramForm
from dream_ray.engine.networks.sources import Snapshot
from dream_ray.engine.networks.update_program import (
    Recipe,
    UpdateProgram,
    draw_inputs,
    training_images,
)
from dream_ray.nets import Classifier, build_network

CPU = torch.device("cpu")
PIXELS = Normalisation.of((0.0,), (1.0,), CPU)
OPTIONS: dict[str, dict[str, Any]] = {
    "convnet": {"depth": 2, "width": 4},
    "resnetap10": {"width": 0.0625, "norm": "instance"},
    "resnet10": {"width": 0.0625, "norm": "batch"},
}
RECIPE = Recipe(6, 0.1, 0.9, 5e-4, 0.5, "color_crop_flip")


def network(name: str = "convnet", **options: Any) -> Classifier:
    with rng.torch_randomness(rng.stream(0, "network")):
        return build_network(name, num_classes=2, shape_CHW=(1, 16, 16), options={**OPTIONS[name], **options}).train()


def batch(count: int = 6) -> tuple[Tensor, Tensor]:
    images = rng.stream(0, "images").integers(0, 256, (count, 1, 16, 16), dtype=np.uint8)
    return torch.from_numpy(images), torch.arange(count) % 2


def trained(
    recipe: Recipe,
    learner: Classifier,
    *,
    steps: int = 2,
    backend: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Returns the state of a network after some steps, with momentum."""
    program, optimizer = UpdateProgram(recipe, PIXELS, dtype, ProgramForm(backend=backend)), recipe.optimizer(learner)
    generator = stream()
    for _ in range(steps):
        program(learner, optimizer, *batch(), generator)
    return Snapshot(0, 0, learner, optimizer).state()


def stream() -> np.random.Generator:
    return rng.stream(0, "x")


@contextlib.contextmanager
def counted_graphs() -> Iterator[Callable[[], int]]:
    from torch._dynamo.utils import counters

    before = counters["stats"]["unique_graphs"]
    yield lambda: counters["stats"]["unique_graphs"] - before


def assert_same_state(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The absolute tolerance is for the bias of a convolution before a norm, whose gradient is rounding errors."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-6), name


def by_hand(learner: Classifier, recipe: Recipe, radius: float = 0.0) -> list[Tensor]:
    """Returns the gradients of a batch, at the highest loss within `radius`."""
    images, labels = batch()
    inputs = training_images(PIXELS, draw_inputs(recipe, images, labels, stream()))
    height, width = images.shape[2:]
    drawn = stream()
    mix = sample_cutmix(drawn, num_images=6, height=height, width=width, probability=recipe.cutmix_probability)
    own, partner = F.one_hot(labels, 2), F.one_hot(labels if mix is None else labels[torch.from_numpy(mix.partner)], 2)
    share = 1.0 if mix is None else mix.share
    weights = list(learner.parameters())

    def gradients() -> list[Tensor]:
        log_probabilities = learner(inputs)[1].log_softmax(dim=1)
        loss = -((own * share + partner * (1 - share)) * log_probabilities).sum(dim=1).mean()
        return list(torch.autograd.grad(loss, weights))

    uphill = gradients()
    if not radius:
        return uphill
    length = torch.stack([gradient.square().sum() for gradient in uphill]).sum().sqrt()
    with torch.no_grad():
        for weight, gradient in zip(weights, uphill, strict=True):
            weight += radius * gradient / length
    return gradients()


@pytest.mark.parametrize("radius", [0.0, 0.05, 1.0])
def test_a_step_equals_a_loop_by_hand(radius: float) -> None:
    """A mixed batch, with the gradient of SAM for a radius above 0."""
    recipe = Recipe(6, 0.1, 0.0, 0.0, 1.0, "none", sam_radius=radius)
    gradients, moved = by_hand(network(), recipe, radius), trained(recipe, network(), steps=1)
    for (name, parameter), gradient in zip(network().named_parameters(), gradients, strict=True):
        torch.testing.assert_close(moved[f"network.{name}"], parameter.detach() - 0.1 * gradient)


def test_weight_decay_and_momentum_are_those_of_sgd() -> None:
    recipe = Recipe(6, 0.1, 0.9, 0.05, 0.0, "none")
    learner = network()
    reference = torch.optim.SGD(learner.parameters(), lr=0.1, momentum=0.9, weight_decay=0.05, foreach=False)
    for _ in range(3):
        for parameter, gradient in zip(learner.parameters(), by_hand(learner, recipe), strict=True):
            parameter.grad = gradient
        reference.step()
    assert_same_state(trained(recipe, network(), steps=3), Snapshot(0, 0, learner, reference).state())


def test_the_statistics_of_sam_move_once_and_are_those_of_the_parameters() -> None:
    plain, flat = (
        trained(Recipe(6, 0.0, 0.9, 0.0, 0.0, "none", sam_radius=radius), network("resnet10"), steps=1)
        for radius in (0.0, 0.5)
    )
    statistics = [name for name in plain if "running" in name or "num_batches" in name]
    assert statistics
    assert all(torch.equal(plain[name], flat[name]) for name in statistics)


def test_a_network_without_a_gradient_stays_finite() -> None:
    still = network()
    with torch.no_grad():
        still.head.weight.zero_()
        still.head.bias.zero_()
    labels = torch.tensor([0, 1] * 3)
    recipe = Recipe(6, 0.1, 0.0, 0.0, 0.0, "none", sam_radius=0.5)
    images = batch()[0][:1].expand(6, -1, -1, -1)  # equal images of both classes
    UpdateProgram(recipe, PIXELS)(still, recipe.optimizer(still), images, labels, stream())
    assert all(torch.isfinite(parameter).all() for parameter in still.parameters())


def test_a_frozen_parameter_is_not_trained() -> None:
    learner, untouched = network(), network()
    learner.trunk.requires_grad_(requires_grad=False)
    moved = trained(RECIPE, learner)
    for name, parameter in untouched.named_parameters():
        assert torch.equal(moved[f"network.{name}"], parameter) == name.startswith("trunk."), name


@pytest.mark.parametrize(("name", "radius"), [*((name, 0.0) for name in OPTIONS), ("convnet", 0.05)])
def test_training_is_one_graph_and_moves_what_eager_training_moves(name: str, radius: float) -> None:
    """Mixed and unmixed batches; traced as for a compiled run, and executed by eager PyTorch."""
    recipe = Recipe(6, 0.1, 0.9, 5e-4, 0.5, "color_crop_flip", sam_radius=radius)
    with counted_graphs() as graphs:
        found = trained(recipe, network(name), steps=4, backend="eager")
        assert graphs() == 1
    assert_same_state(found, trained(recipe, network(name), steps=4))


def test_compiled_training_equals_eager() -> None:
    assert_same_state(trained(RECIPE, network(), backend="inductor"), trained(RECIPE, network()))


def test_a_batch_of_another_size_is_trained_on_eagerly() -> None:
    recipe = Recipe(7, 0.1, 0.9, 5e-4, 0.5, "color_crop_flip")
    with counted_graphs() as graphs:
        found, expected = trained(recipe, network(), backend="eager"), trained(recipe, network())
        assert graphs() == 0
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def cropped(images: Tensor) -> Tensor:
    recipe = Recipe(len(images), 0.1, 0.0, 0.0, 0.0, "none", random_resized_crop=True)
    return training_images(PIXELS, draw_inputs(recipe, images, torch.zeros(len(images)), stream()))


def test_random_resized_crop_keeps_shape_and_range() -> None:
    images = torch.rand(16, 1, 12, 12)
    found = cropped(images)
    assert found.shape == images.shape
    assert float(found.min()) >= float(images.min()) - 1e-5
    assert float(found.max()) <= float(images.max()) + 1e-5
    assert not torch.allclose(found, images, atol=1e-2)


def test_random_resized_crop_never_looks_outside() -> None:
    """A ramp from 0 to 1 stays a ramp inside [0, 1], between half and all of the area long."""
    found = cropped(torch.linspace(0, 1, 33).expand(64, 1, 33, 33))
    span = found[:, 0, 16, -1] - found[:, 0, 16, 0]
    assert bool((span > 0.5).all())
    assert bool((span <= 1.0 + 1e-5).all())


def crop_by_a_loop(generator: np.random.Generator) -> tuple[float, float]:
    """The width and height of one crop, drawn as torchvision does, as parts of the sides."""
    for _ in range(10):
        area, ratio = generator.uniform(0.5, 1.0), math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
        width, height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if width <= 1 and height <= 1:
            return width, height
    return 1.0, 1.0


def test_random_resized_crops_are_distributed_as_those_of_a_loop_that_draws_again() -> None:
    """The mean area is 0.69; if sides were clipped, it would be 0.74."""
    drawn = sample_crops(20_000, stream(), 0.5)
    found_N2, generator = drawn[:, [0, 1], [0, 1]], rng.stream(1, "x")
    expected_N2 = np.array([crop_by_a_loop(generator) for _ in range(20_000)])
    assert found_N2.max() <= 1
    assert found_N2.prod(axis=1).mean() == pytest.approx(0.691, abs=0.005)
    quantiles = np.linspace(0, 1, 11)
    for axis in range(2):
        found, expected = (np.quantile(sides[:, axis], quantiles) for sides in (found_N2, expected_N2))
        np.testing.assert_allclose(found, expected, atol=0.006)
    shifts_N2 = drawn[:, :, 2] / np.maximum(1 - found_N2, 1e-12)
    assert np.abs(shifts_N2).max() <= 1 and np.abs(shifts_N2.mean(axis=0)).max() < 0.03


class Fixed:
    """Draws areas and ratios from a list of tries, and no shift."""

    def __init__(self, area: list[float], log_ratio: list[float]) -> None:
        self.draws = [np.array(area)[:, None], np.array(log_ratio)[:, None], np.zeros(1), np.zeros(1)]

    def uniform(self, *bounds: float, size: object) -> np.ndarray:
        return self.draws.pop(0)


@pytest.mark.parametrize(
    ("area", "log_ratio", "sides"),
    [
        ([0.64, *[0.5] * 9], [0.0] * 10, (0.8, 0.8)),
        ([1.0, 0.9, 0.49, *[0.5] * 7], [0.2, -0.2, *[0.0] * 8], (0.7, 0.7)),
        ([*[1.0] * 9, 0.81], [*[0.2] * 9, 0.0], (0.9, 0.9)),
        ([1.0] * 10, [0.2] * 10, (1.0, 1.0)),
    ],
    ids=["first try", "third try", "last try", "no try"],
)
def test_a_crop_that_does_not_fit_is_drawn_again(
    area: list[float], log_ratio: list[float], sides: tuple[float, float]
) -> None:
    drawn: Any = Fixed(area, log_ratio)
    [matrix_23] = sample_crops(1, drawn, 0.5)
    assert (matrix_23[0, 0], matrix_23[1, 1]) == pytest.approx(sides)


def test_mixed_images_are_those_of_cutmix() -> None:
    recipe = Recipe(6, 0.1, 0.0, 0.0, 1.0, "none")
    images, labels = batch()
    mix = sample_cutmix(stream(), num_images=6, height=16, width=16, probability=1.0)
    found = training_images(PIXELS, draw_inputs(recipe, images, labels, stream()))
    assert torch.equal(found, cutmix(images.float() / 255, mix_of(mix, 6, CPU)))


@pytest.mark.parametrize(("name", "backend"), [*((name, None) for name in OPTIONS), ("convnet", "eager")])
def test_training_in_bfloat16_keeps_parameters_and_statistics_in_float32(name: str, backend: str | None) -> None:
    found = trained(RECIPE, network(name), dtype=torch.bfloat16, backend=backend)
    expected, before = trained(RECIPE, network(name)), dict(network(name).named_parameters())
    assert {tensor.dtype for tensor in found.values()} == {tensor.dtype for tensor in expected.values()}
    trunk = [key for key in expected if key.startswith("network.") and expected[key].ndim == 4]
    for key in trunk:
        moved, reference = (state[key] - before[key.removeprefix("network.")] for state in (found, expected))
        error = torch.linalg.vector_norm(moved - reference) / torch.linalg.vector_norm(reference)
        assert 0 < error < 0.5, key
