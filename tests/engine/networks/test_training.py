"""Training by SGD: steps, passes and accuracy."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dream_ray.core import rng
from dream_ray.core.images.cutmix import cutmix, sample_cutmix
from dream_ray.core.images.normalisation import Normalisation
from dream_ray.engine.networks import training
from dream_ray.engine.networks.training import (
    Recipe,
    TensorImages,
    accuracy,
    random_resized_crop,
    train_pass,
    train_step,
)
from dream_ray.nets import Classifier, build_network

NORMALISATION = Normalisation.of((0.0,), (1.0,), torch.device("cpu"))


def network() -> Classifier:
    with rng.torch_randomness(rng.stream(0, "network")):
        return build_network("convnet", num_classes=2, shape_CHW=(1, 8, 8), options={"depth": 1, "width": 4})


def easy_set() -> TensorImages:
    """Bright left halves against bright right halves."""
    images = torch.zeros(40, 1, 8, 8)
    images[:20, :, :, :4] = 1
    images[20:, :, :, 4:] = 1
    return TensorImages(images, torch.arange(40) // 20)


def test_training_learns_an_easy_set() -> None:
    recipe = Recipe(8, 0.05, 0.9, 0.0, 0.0, "none")
    classifier = network()
    optimizer = recipe.optimizer(classifier)
    for epoch in range(5):
        train_pass(classifier, optimizer, easy_set(), 40, recipe, NORMALISATION, rng.stream(0, "x", inner=epoch))
    assert accuracy(classifier, easy_set(), NORMALISATION) == 1.0


@pytest.mark.parametrize(("options", "steps"), [({"norm": "batch"}, 5), ({}, 6)])
def test_a_last_batch_of_one_image_has_no_statistics(options: dict[str, str], steps: int) -> None:
    """Batch norm raises an error for features of one image and one position."""
    with rng.torch_randomness(rng.stream(0, "network")):
        shape = {"depth": 3, "width": 4, **options}
        classifier = build_network("convnet", num_classes=2, shape_CHW=(1, 8, 8), options=shape)
    taken: list[int] = []
    train_pass(
        classifier,
        Recipe(8, 0.05, 0.9, 0.0, 0.0, "none").optimizer(classifier),
        TensorImages(torch.rand(41, 1, 8, 8), torch.arange(41) % 2),
        41,
        Recipe(8, 0.05, 0.9, 0.0, 0.0, "none"),
        NORMALISATION,
        rng.stream(0, "x"),
        lambda network, images, labels: taken.append(len(images)) or training.backward(network, images, labels),
    )
    assert taken == [8] * 5 + [1] * (steps - 5)


def test_accuracy_counts_over_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_EVALUATION_BATCH", 7)
    classifier = network()
    with torch.no_grad():
        classifier.head.weight.zero_()
        classifier.head.bias.copy_(torch.tensor([1.0, 0.0]))
    data = TensorImages(torch.rand(30, 1, 8, 8), (torch.arange(30) >= 24).long())
    assert accuracy(classifier, data, NORMALISATION) == pytest.approx(24 / 30)


def test_a_mixed_batch_has_the_mixed_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(8, 0.1, 0.0, 0.0, 1.0, "none")
    images, labels = torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 0, 1, 1, 0])
    ours = network()
    train_step(ours, recipe.optimizer(ours), images, labels, recipe, rng.stream(0, "x"))

    by_hand = network()
    mix = sample_cutmix(rng.stream(0, "x"), num_images=6, height=8, width=8, probability=1.0)
    assert mix is not None
    logits = by_hand(cutmix(images, mix))[1]
    one_hot = F.one_hot(labels, 2) * mix.share + F.one_hot(labels[torch.from_numpy(mix.partner)], 2) * (1 - mix.share)
    loss = -(one_hot * logits.log_softmax(dim=1)).sum(dim=1).mean()
    gradients = torch.autograd.grad(loss, list(by_hand.parameters()))
    for parameter, trained, gradient in zip(by_hand.parameters(), ours.parameters(), gradients, strict=True):
        torch.testing.assert_close(trained, parameter - 0.1 * gradient)


def test_random_resized_crop_keeps_shape_and_range() -> None:
    images = torch.rand(16, 3, 12, 12)
    cropped = random_resized_crop(images, rng.stream(0, "x"))
    assert cropped.shape == images.shape
    assert float(cropped.min()) >= float(images.min()) - 1e-5
    assert float(cropped.max()) <= float(images.max()) + 1e-5
    assert not torch.allclose(cropped, images, atol=1e-2)


def test_random_resized_crop_never_looks_outside() -> None:
    """A ramp from 0 to 1 stays a ramp inside [0, 1], between half and all of the area long."""
    ramp = torch.linspace(0, 1, 33).expand(64, 1, 33, 33)
    cropped = random_resized_crop(ramp, rng.stream(0, "x"))
    span = cropped[:, 0, 16, -1] - cropped[:, 0, 16, 0]
    assert bool((span > 0.5).all())
    assert bool((span <= 1.0 + 1e-5).all())


def test_equal_streams_train_equal_networks() -> None:
    recipe = Recipe(8, 0.05, 0.9, 5e-4, 0.5, "color_crop_flip_scale_rotate_cutout", random_resized_crop=True)
    trained = []
    for _ in range(2):
        classifier = network()
        optimizer = recipe.optimizer(classifier)
        train_pass(classifier, optimizer, easy_set(), 40, recipe, NORMALISATION, rng.stream(0, "x"))
        trained.append(np.concatenate([p.detach().numpy().ravel() for p in classifier.parameters()]))
    assert np.array_equal(*trained)
